// See loop_notifier.h.
#include "posix/loop_notifier.h"

#include <poll.h>
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <new>

#include "posix/platform.h"

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

// Linux alone: whether poll(2) tells of a kqueue, which is what libuv waits in elsewhere, could not be tried.
bool LoopNotifier::CanDoze() { return CP_LINUX && (doze_.descriptor() >= 0 || doze_.Open()); }

// Facts: poll(2); a descriptor of epoll(7) is itself readable while one of its descriptors is ready.
bool LoopNotifier::Doze(int loop_descriptor, double timeout_ms) {
  pollfd fds[] = {{doze_.descriptor(), POLLIN, 0}, {loop_descriptor, POLLIN, 0}};
  if (poll(fds, 2, static_cast<int>(std::clamp(std::ceil(timeout_ms), 0.0, 1e9))) <= 0) return true;
  if (fds[0].revents != 0) doze_.Clear();
  return fds[1].revents == 0;
}

}  // namespace cp::posix
