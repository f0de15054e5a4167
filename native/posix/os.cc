// See core/os.h: a thin layer over files, sockets and errors of POSIX, and the backends of each such system.
#include "core/os.h"

#if defined(__APPLE__)
#include <dlfcn.h>
#endif
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cerrno>

#if defined(CP_BACKEND_LINUX)
#include "linux/epoll_poller.h"
#include "linux/uring_port.h"
#endif
#if defined(CP_BACKEND_KQUEUE)
#include "mac/kqueue_poller.h"
#endif
#include "posix/errors.h"
#include "posix/files.h"
#include "posix/loop_notifier.h"
#include "posix/reactor_port.h"
#include "posix/sockets.h"
#include "posix/thread_name.h"
#include "posix/thread_sample.h"

namespace cp {

double MonotonicMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

}  // namespace cp

namespace cp::os {

// ---- backends ---------------------------------------------------------------------------------------------------------------

std::span<const Backend> Backends() {
  static constexpr Backend kAll[] = {
#if defined(CP_BACKEND_LINUX)
    {"io_uring", nullptr},
    {"epoll", nullptr},
#else
    {"io_uring", "io_uring is a facility of Linux"},
    {"epoll", "epoll is a facility of Linux"},
#endif
#if defined(CP_BACKEND_KQUEUE)
    {"kqueue", nullptr},
#else
    {"kqueue", "kqueue is a facility of macOS and the BSDs"},
#endif
    {"iocp", "I/O completion ports are a facility of Windows"},
  };
  return kAll;
}

std::unique_ptr<Port> MakePort(const std::string& backend, const PortOptions& options, CreateError* error) {
#if defined(CP_BACKEND_LINUX)
  if (backend == "io_uring") return UringPort::Create(options, error);
  if (backend == "epoll") return posix::ReactorPort::Create(options, "epoll", &MakeEpollPoller, error);
#endif
#if defined(CP_BACKEND_KQUEUE)
  if (backend == "kqueue") return posix::ReactorPort::Create(options, "kqueue", &MakeKqueuePoller, error);
#endif
  for (const Backend& each : Backends())
    if (backend == each.name && each.foreign != nullptr) {
      *error = {0, each.foreign};
      return nullptr;
    }
  *error = {0, "this version of completion-port has no backend '" + backend + "' for this system"};
  return nullptr;
}

// ---- threads ----------------------------------------------------------------------------------------------------------------

namespace {
struct Start {
  const char* name;
  void (*run)();
};
void* Run(void* given) {
  const std::unique_ptr<Start> start(static_cast<Start*>(given));
  posix::NameThread(start->name);
  start->run();
  return nullptr;
}
}  // namespace

bool StartThread(const char* name, void (*run)()) {
  auto start = std::make_unique<Start>(Start{name, run});
  // Signals are the program's business: none is handled on a thread of ours.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  const bool started = pthread_create(&thread, &attributes, &Run, start.get()) == 0;
  if (started) start.release();  // it is the thread's
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return started;
}

uint64_t CurrentThread() { return cp::CurrentThread(); }

std::shared_ptr<ThreadNotifier> MakeNotifier(CreateError* error) {
  int number = 0;
  std::shared_ptr<ThreadNotifier> notifier = posix::LoopNotifier::Create(&number);
  if (notifier) return notifier;
  const char* shortage = posix::ExplainShortage(number);
  *error = {number, shortage != nullptr ? shortage : "nothing can be made to wake the thread by"};
  return nullptr;
}

ProcessCounts CountProcess() { return {}; }  // see /proc/self and /dev/fd

void StayLoaded() {
#if defined(__APPLE__)
  Dl_info own;  // dladdr(3); dlopen(3): RTLD_NODELETE keeps the image through any dlclose, RTLD_NOLOAD only looks for it
  if (dladdr(reinterpret_cast<const void*>(&StayLoaded), &own) != 0) dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
#endif  // elsewhere the linker says it (-z nodelete)
}

// ---- handles ----------------------------------------------------------------------------------------------------------------

OsHandle OpenFile(const char* path, int flags, uint32_t mode) { return posix::Open(path, flags, mode); }
bool Appends(int flags) { return (flags & O_APPEND) != 0; }
OsHandle Listen(const AddressEntry& address, int backlog, bool reuse_port, bool ipv6_only) {
  return posix::Listen(address, backlog, reuse_port, ipv6_only);
}
OsHandle Socket(int family, const AddressEntry* local) { return posix::Socket(family, local); }

void Close(HandleKind kind, OsHandle os, bool reset) {
  const int fd = static_cast<int>(os);
  if (reset && kind == HandleKind::kSocket) {
    // close(2) of a socket with a zero linger time sends a reset (socket(7), SO_LINGER).
    const linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  }
  close(fd);
}

int Address(OsHandle os, bool peer, AddressEntry* out) { return posix::Address(static_cast<int>(os), peer, out); }
int SetOption(OsHandle os, SocketOption option, int value) { return posix::SetOption(static_cast<int>(os), option, value); }
int GetOption(OsHandle os, SocketOption option) { return posix::GetOption(static_cast<int>(os), option); }
int ParseAddress(const std::string& text, AddressEntry* out) { return posix::ParseAddress(text, out); }
std::string FormatAddress(const AddressEntry& address) { return posix::FormatAddress(address); }

// ---- errors -----------------------------------------------------------------------------------------------------------------

Status MapError(int32_t code) { return posix::MapErrno(code); }
int32_t InvalidCode() { return EINVAL; }
int32_t BadHandleCode() { return EBADF; }
int32_t TooManyFilesCode() { return ENFILE; }
int32_t DirectoryCode() { return EISDIR; }

}  // namespace cp::os
