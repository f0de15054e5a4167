// See loop_notifier.h.
#include "posix/loop_notifier.h"

namespace cp::posix {

std::shared_ptr<LoopNotifier> LoopNotifier::Create() {
  std::shared_ptr<LoopNotifier> notifier(new LoopNotifier);
  return notifier->signal_.Open() ? notifier : nullptr;
}

void LoopNotifier::Notify() {
  if (!notified_.exchange(true)) RaiseNotification();
}

void LoopNotifier::RaiseNotification() { signal_.Raise(); }

void LoopNotifier::ClearNotification() {
  // Whoever notifies from here on has published before it what the caller looks at next. Should its byte be taken by this Clear, the caller is
  // on its way to look all the same.
  notified_.store(false);
  signal_.Clear();
}

}  // namespace cp::posix
