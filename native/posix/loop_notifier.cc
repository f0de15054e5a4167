// An eventfd(2), so this file is Linux's; a pipe does the same elsewhere.
#include "posix/loop_notifier.h"

#include <sys/eventfd.h>
#include <unistd.h>

namespace cp::posix {

std::shared_ptr<LoopNotifier> LoopNotifier::Create() {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return fd < 0 ? nullptr : std::shared_ptr<LoopNotifier>(new LoopNotifier(fd));
}

LoopNotifier::~LoopNotifier() { close(fd_); }

void LoopNotifier::Notify() {
  if (!notified_.exchange(true)) RaiseNotification();
}

void LoopNotifier::RaiseNotification() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(fd_, &one, sizeof(one));
}

void LoopNotifier::ClearNotification() {
  // Invariant: while `notified_` is set, the descriptor is readable, or is about to be, or the loop is on its way to look. So the flag goes last: cleared
  // first, a Notify between the two would set it again and have its wake-up read here, and with the flag set over an empty descriptor nobody
  // wakes the loop any more (seen: gets of a shared port that waited for ever). Whoever finds the flag set before it goes has published before that
  // what the caller looks at next: both do it under the port's mutex.
  uint64_t count;
  [[maybe_unused]] const ssize_t bytes = read(fd_, &count, sizeof(count));
  notified_.store(false);
}

}  // namespace cp::posix
