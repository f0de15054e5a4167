// See signal_descriptor.h. Facts: eventfd(2), pipe(2), pipe(7): a write to a full pipe that doesn't block fails with EAGAIN.
#include "posix/signal_descriptor.h"

#include "posix/platform.h"

#if CP_LINUX
#include <sys/eventfd.h>
#endif
#include <fcntl.h>
#include <unistd.h>
#include <cerrno>
#include <cstdint>

namespace cp::posix {

#if CP_LINUX

bool SignalDescriptor::Open() {
  read_ = write_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return read_ >= 0;
}

void SignalDescriptor::Raise() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(write_, &one, sizeof(one));
}

void SignalDescriptor::Clear() {
  uint64_t count;
  [[maybe_unused]] const ssize_t bytes = read(read_, &count, sizeof(count));
}

#else

bool SignalDescriptor::Open() {
  // pipe2(2) is in FreeBSD, not in macOS; a fork between the two calls would leave the child a descriptor that nobody writes to.
  int ends[2];
  if (pipe(ends) != 0) return false;
  read_ = ends[0];
  write_ = ends[1];
  for (const int fd : ends) {
    const int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
      const int error = errno;
      close(read_);
      close(write_);
      read_ = write_ = -1;
      errno = error;
      return false;
    }
  }
  return true;
}

void SignalDescriptor::Raise() {
  const char one = 1;
  while (write(write_, &one, 1) < 0 && errno == EINTR) {
  }
}

void SignalDescriptor::Clear() {
  char bytes[256];
  for (;;) {
    const ssize_t count = read(read_, bytes, sizeof(bytes));
    if (count < 0 && errno == EINTR) continue;
    if (count < static_cast<ssize_t>(sizeof(bytes))) return;
  }
}

#endif

SignalDescriptor::~SignalDescriptor() {
  if (read_ >= 0) close(read_);
  if (write_ >= 0 && write_ != read_) close(write_);
}

}  // namespace cp::posix
