// See loop_notifier.h.
#include "posix/loop_notifier.h"

#include "posix/platform.h"

#if CP_LINUX
#include <sys/epoll.h>
#endif
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <new>

namespace cp::posix {

std::shared_ptr<LoopNotifier> LoopNotifier::Create(int* error) {
  std::unique_ptr<LoopNotifier> notifier(new (std::nothrow) LoopNotifier);
  if (notifier && notifier->signal_.Open()) return notifier;
  *error = notifier ? errno : ENOMEM;
  return nullptr;
}

void LoopNotifier::Notify() {
  if (!notified_.exchange(true)) RaiseNotification();
}

void LoopNotifier::RaiseNotification() { signal_.Raise(); }

void LoopNotifier::ClearNotification() {
  // Invariant: while `notified_` is set, the descriptor is readable, or is about to be, or the loop is on its way to look. So the flag goes last: cleared
  // first, a Notify between the two would set it again and have its wake-up read here, and with the flag set over an empty descriptor nobody
  // wakes the loop any more (seen: gets of a shared port that waited for ever). Whoever finds the flag set before it goes has published before that
  // what the caller looks at next: both do it under the port's mutex.
  signal_.Clear();
  notified_.store(false);
}

LoopNotifier::~LoopNotifier() {
  if (doze_epoll_ >= 0) close(doze_epoll_);
}

#if CP_LINUX

// The event loop's descriptor is an epoll itself (libuv's), readable while it has events, which is for as long as its thread is here. Each further one
// is an edge all the same: whoever makes a descriptor ready in it wakes those that watch it (epoll(7); Linux, fs/eventpoll.c, ep_poll_callback).
// Linux alone: how a kqueue, which is what libuv waits in elsewhere, tells of that could not be tried.
bool LoopNotifier::CanDoze(int loop_descriptor) {
  if (doze_epoll_ >= 0) return true;
  if (doze_.descriptor() < 0 && !doze_.Open()) return false;
  const int made = epoll_create1(EPOLL_CLOEXEC);
  if (made < 0) return false;
  epoll_event own{}, loop{};
  own.events = EPOLLIN;
  loop.events = EPOLLIN | EPOLLET;
  loop.data.u32 = 1;
  if (epoll_ctl(made, EPOLL_CTL_ADD, doze_.descriptor(), &own) != 0 || epoll_ctl(made, EPOLL_CTL_ADD, loop_descriptor, &loop) != 0) {
    close(made);
    return false;
  }
  doze_epoll_ = made;
  return true;
}

bool LoopNotifier::Doze(double timeout_ms) {
  epoll_event events[2];
  const int count = epoll_wait(doze_epoll_, events, 2, static_cast<int>(std::clamp(std::ceil(timeout_ms), 0.0, 1e9)));
  bool quiet = true;
  for (int i = 0; i < count; i++) {
    if (events[i].data.u32 == 1)
      quiet = false;
    else
      doze_.Clear();
  }
  return quiet;
}

#else

bool LoopNotifier::CanDoze(int loop_descriptor) { return Wake::CanDoze(loop_descriptor); }
bool LoopNotifier::Doze(double timeout_ms) { return Wake::Doze(timeout_ms); }

#endif

}  // namespace cp::posix
