// See core/os.h: files, sockets, threads and errors of Windows, and its one backend. Facts: QueryPerformanceCounter ("is guaranteed to be
// monotonic"), GetModuleHandleExW (learn.microsoft.com).
#include "core/os.h"

#include <atomic>
#include <mutex>

#include "win/errors.h"
#include "win/files.h"
#include "win/iocp_port.h"
#include "win/windows.h"
#include "win/winsock.h"

namespace cp {

double MonotonicMs() {
  static const double per_ms = [] {
    LARGE_INTEGER frequency;
    QueryPerformanceFrequency(&frequency);
    return static_cast<double>(frequency.QuadPart) / 1e3;
  }();
  LARGE_INTEGER now;
  QueryPerformanceCounter(&now);
  return static_cast<double>(now.QuadPart) / per_ms;
}

}  // namespace cp

namespace cp::os {

// ---- backends ---------------------------------------------------------------------------------------------------------------

std::span<const Backend> Backends() {
  static constexpr Backend kAll[] = {
      {"io_uring", "io_uring is a facility of Linux"},
      {"epoll", "epoll is a facility of Linux"},
      {"kqueue", "kqueue is a facility of macOS and the BSDs"},
      {"iocp", nullptr},
  };
  return kAll;
}

std::unique_ptr<Port> MakePort(const std::string& backend, const PortOptions& options, CreateError* error) {
  if (backend == "iocp") return win::IocpPort::Create(options, error);
  *error = {0, "this version of completion-port has no backend '" + backend + "' for this system"};
  return nullptr;
}

// ---- threads ----------------------------------------------------------------------------------------------------------------

namespace {

struct Start {
  void (*run)();
};
DWORD WINAPI Run(void* given) {
  void (*run)() = static_cast<Start*>(given)->run;
  delete static_cast<Start*>(given);
  run();
  return 0;
}

class LoopNotifier final : public ThreadNotifier {
 public:
  void Notify() override {
    // Whoever finds the flag set has published before that what the loop looks at next: both do it under the port's mutex.
    if (!notified_.exchange(true)) RaiseNotification();
  }
  int notification_fd() const override { return -1; }
  void SetWaker(std::function<void()> wake) override {
    std::lock_guard lock(mutex_);
    waker_ = std::move(wake);
    // A call that came while nobody could hear it.
    if (waker_ && notified_.load()) waker_();
  }
  void ClearNotification() override { notified_.store(false); }
  void RaiseNotification() override {
    std::lock_guard lock(mutex_);
    if (waker_) waker_();
  }

 private:
  std::atomic<bool> notified_{false};
  std::mutex mutex_;
  std::function<void()> waker_;
};

}  // namespace

bool StartThread(const char*, void (*run)()) {
  auto* start = new Start{run};
  const HANDLE thread = CreateThread(nullptr, 0, &Run, start, 0, nullptr);
  if (thread == nullptr) {
    delete start;
    return false;
  }
  CloseHandle(thread);
  return true;
}

uint64_t CurrentThread() { return GetCurrentThreadId(); }

std::shared_ptr<ThreadNotifier> MakeNotifier(CreateError*) { return std::make_shared<LoopNotifier>(); }

void StayLoaded() {
  HMODULE own;
  GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, reinterpret_cast<LPCWSTR>(&StayLoaded), &own);
}

// ---- handles ----------------------------------------------------------------------------------------------------------------

OsHandle OpenFile(const char* path, int flags, uint32_t mode) { return win::Open(path, flags, mode); }
bool Appends(int flags) { return win::Appends(flags); }
OsHandle Listen(const AddressEntry& address, int backlog, bool reuse_port, bool ipv6_only) {
  return win::Listen(address, backlog, reuse_port, ipv6_only);
}
OsHandle Socket(int family, const AddressEntry* local) { return win::Socket(family, local); }

void Close(HandleKind kind, OsHandle os, bool reset) {
  if (kind == HandleKind::kFile) {
    CloseHandle(reinterpret_cast<HANDLE>(os));
    return;
  }
  if (reset && kind == HandleKind::kSocket) win::LingerNot(static_cast<SOCKET>(os));
  closesocket(static_cast<SOCKET>(os));
}

int Address(OsHandle os, bool peer, AddressEntry* out) { return win::Address(static_cast<SOCKET>(os), peer, out); }
int SetOption(OsHandle os, SocketOption option, int value) { return win::SetOption(static_cast<SOCKET>(os), option, value); }
int GetOption(OsHandle os, SocketOption option) { return win::GetOption(static_cast<SOCKET>(os), option); }
int ParseAddress(const std::string& text, AddressEntry* out) { return win::ParseAddress(text, out); }
std::string FormatAddress(const AddressEntry& address) { return win::FormatAddress(address); }

// ---- errors -----------------------------------------------------------------------------------------------------------------

Status MapError(int32_t code) { return win::MapWin32(static_cast<uint32_t>(code)); }
int32_t InvalidCode() { return ERROR_INVALID_PARAMETER; }
int32_t BadHandleCode() { return ERROR_INVALID_HANDLE; }
int32_t TooManyFilesCode() { return ERROR_TOO_MANY_OPEN_FILES; }
int32_t DirectoryCode() { return win::kDirectoryCode; }

}  // namespace cp::os
