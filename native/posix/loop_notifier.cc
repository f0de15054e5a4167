// See loop_notifier.h.
#include "posix/loop_notifier.h"

#include <cerrno>
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

}  // namespace cp::posix
