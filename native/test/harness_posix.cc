// See harness.h: memory, sockets and files of POSIX.
#include "test/harness.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <string_view>

#if defined(CP_BACKEND_LINUX)
#include "linux/epoll_poller.h"
#include "linux/uring_port.h"
#else
#include "mac/kqueue_poller.h"
#endif
#include "posix/reactor_port.h"
#include "posix/sockets.h"

namespace cp::test {

std::unique_ptr<Port> MakePort(const PortOptions& options, CreateError* error) {
#if defined(CP_BACKEND_LINUX)
  if (std::string_view(Backend()) == "io_uring") return UringPort::Create(options, error);
#endif
  return posix::ReactorPort::Create(options, Backend(), &MakePoller, error);
}

std::unique_ptr<posix::Poller> MakePoller(CreateError* error) {
#if defined(CP_BACKEND_LINUX)
  return MakeEpollPoller(error);
#else
  return MakeKqueuePoller(error);
#endif
}

Fenced::Fenced(size_t bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t rounded = (bytes + page - 1) / page * page;
  mapped_ = rounded + 2 * page;
  void* base = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
  CP_ASSERT(base != MAP_FAILED);
  base_ = static_cast<std::byte*>(base);
  CP_ASSERT(mprotect(base_ + page, rounded, PROT_READ | PROT_WRITE) == 0);
  data_ = base_ + page;
  bytes_ = rounded;
}

Fenced::~Fenced() { munmap(base_, mapped_); }

int NewSocket() {
  const int fd = posix::Socket(4, nullptr);
  CHECK(fd >= 0);
  return fd;
}

int Listening(sockaddr_in* address, int backlog) {
  const int listener = NewSocket();
  *address = {};
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(*address);
  CHECK(bind(listener, reinterpret_cast<sockaddr*>(address), length) == 0 && listen(listener, backlog) == 0);
  CHECK(getsockname(listener, reinterpret_cast<sockaddr*>(address), &length) == 0);
  return listener;
}

int Connected(const sockaddr_in& address) {
  const int fd = NewSocket();
  CHECK(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  return fd;
}

int ListeningFull(sockaddr_in* address, std::vector<int>* fillers) {
  // How many connections a backlog of 1 holds is each system's own matter (listen(2)); macOS takes 0 for the largest.
  const int listener = Listening(address, 1);
  for (int i = 0; i < 64; i++) {
    const int fd = NewSocket();
    fillers->push_back(fd);
    CHECK_EQ(posix::SetNonBlocking(fd), 0);
    if (connect(fd, reinterpret_cast<const sockaddr*>(address), sizeof(*address)) == 0) continue;
    CHECK_EQ(errno, EINPROGRESS);
    pollfd watched = {fd, POLLOUT, 0};
    if (poll(&watched, 1, 100) == 0) return listener;
  }
  Fail(__FILE__, __LINE__, "a backlog of 1 takes 64 connections");
}

void ResetNow(int fd) {
  const linger now = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  close(fd);
}

void WriteAll(int fd, const void* data, size_t bytes) {
  const auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = write(fd, at, bytes);
    CHECK(written > 0);
    at += written;
    bytes -= static_cast<size_t>(written);
  }
}

void ReadAll(int fd, void* data, size_t bytes) {
  auto* at = static_cast<char*>(data);
  while (bytes > 0) {
    pollfd watched = {fd, POLLIN, 0};
    CHECK(poll(&watched, 1, 10'000) > 0);
    const ssize_t got = read(fd, at, bytes);
    CHECK(got > 0);
    at += got;
    bytes -= static_cast<size_t>(got);
  }
}

int TempFile() {
  char name[] = "/tmp/cp-native-test-XXXXXX";
  const int fd = mkstemp(name);
  CHECK(fd >= 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0);
  unlink(name);
  return fd;
}

void SleepMs(double ms) {
  timespec span = {static_cast<time_t>(ms / 1e3), static_cast<long>(std::fmod(ms, 1e3) * 1e6)};
  while (nanosleep(&span, &span) != 0 && errno == EINTR) {
  }
}

void TcpPair(int out[2]) {
  sockaddr_in address;
  const int listener = Listening(&address, 1);
  out[0] = Connected(address);
  out[1] = accept(listener, nullptr, nullptr);
  CHECK(out[1] >= 0 && fcntl(out[1], F_SETFD, FD_CLOEXEC) == 0);
  close(listener);
  const int on = 1;
  for (int i = 0; i < 2; i++) setsockopt(out[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  // A reset at the end keeps the port numbers from running out in TIME_WAIT over many thousand pairs.
  const linger now = {1, 0};
  setsockopt(out[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

// Not out of /proc or /dev/fd: FreeBSD has neither unless it is mounted (fdescfs(5)).
int OpenDescriptors() {
  const long limit = std::min(sysconf(_SC_OPEN_MAX), 65'536L);
  int count = 0;
  for (int fd = 0; fd < limit; fd++) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

std::vector<int> TakeDescriptors() {
  std::vector<int> taken;
  for (int fd = dup(0); fd >= 0; fd = dup(0)) taken.push_back(fd);
  return taken;
}

}  // namespace cp::test
