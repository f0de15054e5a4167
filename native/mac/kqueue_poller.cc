// See kqueue_poller.h and posix/poller.h. Facts, unless another page is named: kqueue(2) of FreeBSD and of macOS. Of what is used here POSIX has
// only poll(2) and fcntl(2); kqueue, kevent, struct kevent, EV_SET, EVFILT_READ, EVFILT_WRITE, EV_ADD, EV_ONESHOT, EV_DELETE, EV_CLEAR, EV_EOF and
// EV_ERROR are on both pages; EVFILT_USER with NOTE_TRIGGER, and EV_RECEIPT, too (FreeBSD since 8.1, macOS since 10.6).
//
// Where the two differ, what is done here is right on both:
// - FreeBSD forgets a NOTE_TRIGGER that comes with EV_ADD: the event for Wake is added first, and triggered by calls of its own.
// - EPIPE at the registration of a write filter (FreeBSD) says that the other end is gone: the call itself is to tell.
// - A call that reports an error of its changes brings no events: the events are asked for by another.
// - An interrupted call has applied its changes (FreeBSD's page, EINTR; macOS's kernel handles the changes before it sleeps, too).
// - close(2) of a descriptor deletes what is registered for it, whoever else holds the open file.
// - A close of the queue wakes its waiters on macOS only: nobody waits when it is closed.
#include "mac/kqueue_poller.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/event.h>
#include <sys/time.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstring>
#include <new>

#include "posix/errors.h"
#include "posix/sockets.h"

namespace cp {

namespace {

using posix::Poller;
using posix::Readiness;
using posix::ReadyEvent;

constexpr size_t kEventsMax = 256;
constexpr double kTimeoutMaxMs = INT_MAX;  // a clamp, as of poll(2): who waits for longer asks again

// A token travels in the event's pointer.
static_assert(sizeof(void*) == sizeof(uint64_t), "64-bit systems only");

timespec Timespec(double timeout_ms) {
  timespec span{};  // a negative one would be EINVAL
  if (!(timeout_ms > 0)) return span;
  const double ms = std::min(timeout_ms, kTimeoutMaxMs);
  span.tv_sec = static_cast<time_t>(ms / 1e3);
  // Rounded up: never early.
  const auto ns = static_cast<long>(std::ceil((ms - static_cast<double>(span.tv_sec) * 1e3) * 1e6));
  span.tv_sec += ns >= 1'000'000'000 ? 1 : 0;
  span.tv_nsec = ns >= 1'000'000'000 ? 0 : std::max(ns, 0L);
  return span;
}

class KqueuePoller final : public Poller {
 public:
  ~KqueuePoller() override {
    if (queue_ >= 0) close(queue_);
  }

  // 0 or an errno, with the call that failed.
  int Open(const char** call) {
    *call = "kqueue";
    queue_ = kqueue();
    if (queue_ < 0) return errno;
    // kqueue1(2) with O_CLOEXEC is in newer FreeBSDs only. A queue isn't inherited by fork(2) in any case.
    *call = "fcntl";
    if (fcntl(queue_, F_SETFD, FD_CLOEXEC) != 0) return errno;
    *call = "kevent";
    changes_.reserve(kEventsMax);
    const struct kevent wake = Change(kWakeIdent, EVFILT_USER, EV_ADD | EV_CLEAR, kTokenWake);
    return -Register(wake);
  }

  const char* name() const override { return "kqueue"; }
  std::vector<std::pair<std::string, bool>> features() const override { return {{"one_shot", true}}; }
  // A queue can be waited for in poll(2) and in another queue; libuv knows that ioctl(2) says ENOTTY to it.
  int descriptor() const override { return queue_; }

  int Add(int fd, uint64_t) override {
    // MSG_DONTWAIT is no flag of POSIX, and send(2) of macOS doesn't have it: a send must not block by itself.
    return posix::SetNonBlocking(fd);
  }

  int Arm(int fd, uint64_t token, Readiness direction) override {
    const int16_t filter = direction == posix::kReadable ? EVFILT_READ : EVFILT_WRITE;
    // What is asked for twice takes the newer token: of the same descriptor only the same handle can ask, since Remove has forgotten what an
    // older one gathered.
    changes_.push_back(Change(static_cast<uintptr_t>(fd), filter, EV_ADD | EV_ONESHOT, token));
    return 0;
  }

  void Remove(int fd) override {
    // What is gathered for the descriptor would be registered for the next one of this number.
    std::erase_if(changes_, [fd](const struct kevent& change) { return change.ident == static_cast<uintptr_t>(fd); });
    std::erase_if(refused_, [fd](const Refused& refused) { return refused.fd == fd; });
    // The close that follows deletes what is registered. Deleted here, it is gone also where this process holds the open file by another
    // number, and before anything else can happen. ENOENT, there was nothing, is as good.
    const struct kevent deletions[2] = {Change(static_cast<uintptr_t>(fd), EVFILT_READ, EV_DELETE | EV_RECEIPT, 0),
                                        Change(static_cast<uintptr_t>(fd), EVFILT_WRITE, EV_DELETE | EV_RECEIPT, 0)};
    struct kevent receipts[2];
    const timespec now{};
    while (kevent(queue_, deletions, 2, receipts, 2, &now) < 0 && errno == EINTR) {
    }
  }

  void Submit() override {
    while (!changes_.empty() && Hand(changes_.size()) >= 0) {
    }
  }

  int Take(std::span<ReadyEvent> out, double timeout_ms) override {
    if (out.empty()) return 0;
    struct kevent events[kEventsMax];
    const size_t room = std::min(out.size(), kEventsMax);
    // Each change may come back as an error, and without room for it the changes behind it would be left out.
    while (changes_.size() > room) {
      if (const int error = Hand(changes_.size() - room); error < 0) return error;
    }
    size_t count = TakeRefused(out);
    const double deadline = timeout_ms > 0 && count == 0 ? MonotonicMs() + timeout_ms : 0;
    for (;;) {
      const double left = deadline > 0 ? std::max(deadline - MonotonicMs(), 0.0) : 0;
      const timespec wait = Timespec(left);
      if (count == room) return static_cast<int>(count);
      const int result = kevent(queue_, changes_.data(), static_cast<int>(changes_.size()), events, static_cast<int>(room - count),
                                left > 9e12 ? nullptr : &wait);
      if (result < 0 && errno != EINTR) return count > 0 ? static_cast<int>(count) : -errno;
      changes_.clear();
      if (result < 0) return static_cast<int>(count);
      bool errors = false;
      for (int i = 0; i < result; i++) {
        if ((events[i].flags & EV_ERROR) != 0) {
          errors = true;
          Refuse(events[i]);
        } else {
          out[count++] = EventOf(events[i]);
        }
      }
      if (!errors) return static_cast<int>(count);
      // The errors of the changes came alone: what is ready comes with another call, which waits only where none of them is an event itself.
      count += TakeRefused(out.subspan(count));
      if (!refused_.empty()) Wake();  // there was no room for all
      if (count > 0) return static_cast<int>(count) + TakeMore(out.subspan(count));
    }
  }

  void WaitReady(double timeout_ms) override {
    // Without room for events kevent wouldn't wait; poll(2) takes none.
    pollfd watched = {queue_, POLLIN, 0};
    const double ms = std::min(std::ceil(timeout_ms), kTimeoutMaxMs);
    poll(&watched, 1, timeout_ms > 9e12 ? -1 : static_cast<int>(std::max(ms, 0.0)));
  }

  void Wake() override {
    const struct kevent trigger = Trigger();
    const timespec now{};
    while (kevent(queue_, &trigger, 1, nullptr, 0, &now) < 0 && errno == EINTR) {
    }
  }

  int WatchLoop(int fd) override {
    if (fd == loop_) return 0;
    const int result = Register(Change(static_cast<uintptr_t>(fd), EVFILT_READ, EV_ADD, kTokenLoop));
    if (result == 0) loop_ = fd;
    return result;
  }

 private:
  // A registration that the kernel refused, to be told as an event.
  struct Refused {
    int fd;
    ReadyEvent event;
  };

  static constexpr uintptr_t kWakeIdent = 0;  // of EVFILT_USER, whose numbers are nobody else's

  static struct kevent Change(uintptr_t ident, int16_t filter, uint16_t flags, uint64_t token) {
    struct kevent change {};
    EV_SET(&change, ident, filter, flags, 0, 0, reinterpret_cast<void*>(token));
    return change;
  }
  // The token again: a change without EV_ADD replaces it, too.
  static struct kevent Trigger() {
    struct kevent trigger = Change(kWakeIdent, EVFILT_USER, 0, kTokenWake);
    trigger.fflags = NOTE_TRIGGER;
    return trigger;
  }

  static ReadyEvent EventOf(const struct kevent& event) {
    const auto token = reinterpret_cast<uint64_t>(event.udata);
    uint8_t ready = event.filter == EVFILT_WRITE ? posix::kWritable : posix::kReadable;
    if ((event.flags & EV_EOF) != 0) ready |= posix::kEnded;
    return {token, ready, 0};
  }

  // One change by itself, at once: 0 or a negative errno.
  int Register(const struct kevent& change) {
    const timespec now{};
    // Without room for it the error is the call's own.
    while (kevent(queue_, &change, 1, nullptr, 0, &now) < 0) {
      if (errno != EINTR) return -errno;
    }
    return 0;
  }

  // Hands the first `wanted` changes over, or as many as go in a call, and takes no events: with EV_RECEIPT each change is answered, and answers
  // keep events out. Refusals are kept until Take. 0 or a negative errno, with the changes still there.
  int Hand(size_t wanted) {
    struct kevent receipts[kEventsMax];
    const size_t count = std::min(wanted, kEventsMax);
    for (size_t i = 0; i < count; i++) changes_[i].flags |= EV_RECEIPT;
    const timespec now{};
    const int result = kevent(queue_, changes_.data(), static_cast<int>(count), receipts, static_cast<int>(count), &now);
    if (result < 0 && errno != EINTR) return -errno;
    changes_.erase(changes_.begin(), changes_.begin() + static_cast<ptrdiff_t>(count));
    for (int i = 0; i < result; i++)
      if ((receipts[i].flags & EV_ERROR) != 0 && receipts[i].data != 0) Refuse(receipts[i]);
    // Whoever waits for the descriptor has to come for the refusals.
    if (!refused_.empty()) Wake();
    return 0;
  }

  // What a refused registration says. EPIPE: the other end is gone; ENOENT: the kernel lost sight of what was there between two of its steps:
  // both are the descriptor's state, which the next call tells. Else what waits fails with it.
  void Refuse(const struct kevent& change) {
    const auto error = static_cast<int32_t>(change.data);
    ReadyEvent event = EventOf(change);
    event.ready &= ~uint8_t{posix::kEnded};
    if (error == EPIPE)
      event.ready |= posix::kEnded;
    else if (error != ENOENT)
      event.error = -error;
    refused_.push_back({static_cast<int>(change.ident), event});
  }

  size_t TakeRefused(std::span<ReadyEvent> out) {
    const size_t count = std::min(out.size(), refused_.size());
    for (size_t i = 0; i < count; i++) out[i] = refused_[i].event;
    refused_.erase(refused_.begin(), refused_.begin() + static_cast<ptrdiff_t>(count));
    return count;
  }

  // Events that are there now.
  int TakeMore(std::span<ReadyEvent> out) {
    struct kevent events[kEventsMax];
    const size_t room = std::min(out.size(), kEventsMax);
    if (room == 0) return 0;
    const timespec now{};
    const int result = kevent(queue_, nullptr, 0, events, static_cast<int>(room), &now);
    for (int i = 0; i < result; i++) out[static_cast<size_t>(i)] = EventOf(events[i]);
    return std::max(result, 0);
  }

  int queue_ = -1;
  int loop_ = -1;
  std::vector<struct kevent> changes_;  // gathered by Arm
  std::vector<Refused> refused_;
};

std::string Explain(int error, const char* call) {
  const std::string what = std::string(call) + " failed (" + strerror(error) + "): ";
  if (const char* shortage = posix::ExplainShortage(error)) return what + shortage;
  return what + "kqueue can't be used";
}

}  // namespace

std::unique_ptr<posix::Poller> MakeKqueuePoller(CreateError* error) {
  std::unique_ptr<KqueuePoller> poller(new (std::nothrow) KqueuePoller);
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
