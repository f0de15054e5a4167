// See epoll_poller.h and posix/poller.h. Facts: epoll(7), epoll_ctl(2), epoll_wait(2), eventfd(2).
#include "linux/epoll_poller.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstring>
#include <new>

#include "posix/errors.h"

namespace cp {

namespace {

using posix::Poller;
using posix::Readiness;
using posix::ReadyEvent;

constexpr int kEventsMax = 256;

// Whole milliseconds, rounded up: never early. -1: for ever.
int Milliseconds(double timeout_ms) {
  if (timeout_ms <= 0) return 0;
  if (!(timeout_ms < INT_MAX)) return timeout_ms > 9e12 ? -1 : INT_MAX;
  return static_cast<int>(std::ceil(timeout_ms));
}

class EpollPoller final : public Poller {
 public:
  ~EpollPoller() override {
    if (wake_fd_ >= 0) close(wake_fd_);
    if (epoll_fd_ >= 0) close(epoll_fd_);
  }

  // 0 or an errno, with the call that failed.
  int Open(const char** call) {
    *call = "epoll_create1";
    epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd_ < 0) return errno;
    *call = "eventfd";
    wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd_ < 0) return errno;
    *call = "epoll_ctl";
    // Edge-triggered: every write is an edge, so the counter needn't be read. It would take 2^64 calls to fill it.
    return -Control(EPOLL_CTL_ADD, wake_fd_, EPOLLIN | EPOLLET, kTokenWake);
  }

  const char* name() const override { return "epoll"; }
  std::vector<std::pair<std::string, bool>> features() const override { return {{"edge_triggered", true}}; }
  int descriptor() const override { return epoll_fd_; }

  int Add(int fd, uint64_t token) override {
    return Control(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET, token);
  }

  // Registered with Add already: the kernel reports every change to readiness.
  int Arm(int, uint64_t, Readiness) override { return 0; }

  void Remove(int fd) override { Control(EPOLL_CTL_DEL, fd, 0, 0); }

  void Submit() override {}

  int Take(std::span<ReadyEvent> out, double timeout_ms) override {
    epoll_event events[kEventsMax];
    const int room = static_cast<int>(std::min<size_t>(out.size(), kEventsMax));
    const int count = epoll_wait(epoll_fd_, events, room, Milliseconds(timeout_ms));
    if (count < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
      const uint32_t said = events[i].events;
      uint8_t ready = 0;
      if ((said & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) ready |= posix::kReadable;
      if ((said & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) ready |= posix::kWritable;
      if ((said & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) ready |= posix::kEnded;
      if ((said & EPOLLPRI) != 0) ready |= posix::kUrgent;
      out[static_cast<size_t>(i)] = {events[i].data.u64, ready, 0};
    }
    return count;
  }

  void WaitReady(double timeout_ms) override {
    // An epoll's descriptor is readable while it has events (epoll(7), question 3).
    pollfd watched = {epoll_fd_, POLLIN, 0};
    poll(&watched, 1, Milliseconds(timeout_ms));
  }

  void Wake() override {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof(one));
  }

  int WatchLoop(int fd) override {
    if (fd == loop_fd_) return 0;
    const int result = Control(EPOLL_CTL_ADD, fd, EPOLLIN, kTokenLoop);
    if (result == 0) loop_fd_ = fd;
    return result;
  }

 private:
  int Control(int operation, int fd, uint32_t events, uint64_t token) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = token;
    return epoll_ctl(epoll_fd_, operation, fd, &event) == 0 ? 0 : -errno;
  }

  int epoll_fd_ = -1;
  int wake_fd_ = -1;
  int loop_fd_ = -1;
};

std::string Explain(int error, const char* call) {
  const std::string what = std::string(call) + " failed (" + strerror(error) + "): ";
  if (const char* shortage = posix::ExplainShortage(error)) return what + shortage;
  switch (error) {
    case ENOSPC:
      return what + "too many watched descriptors: raise the sysctl fs.epoll.max_user_watches";
    case EPERM:
    case EACCES:
    case ENOSYS:
      return what + "a seccomp profile denies it; allow epoll_create1, epoll_ctl, epoll_wait and eventfd2";
    default:
      return what + "epoll can't be used";
  }
}

}  // namespace

std::unique_ptr<posix::Poller> MakeEpollPoller(CreateError* error) {
  std::unique_ptr<EpollPoller> poller(new (std::nothrow) EpollPoller);
  if (!poller) {
    *error = {ENOMEM, posix::ExplainShortage(ENOMEM)};
    return nullptr;
  }
  const char* call = "";
  const int result = poller->Open(&call);
  if (result == 0) return poller;
  *error = {result, Explain(result, call)};
  return nullptr;
}

}  // namespace cp
