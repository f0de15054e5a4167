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
  // Whoever notifies from here on has published before it what the caller looks at next.
  notified_.store(false);
  uint64_t count;
  [[maybe_unused]] const ssize_t bytes = read(fd_, &count, sizeof(count));
}

}  // namespace cp::posix
