// See files.h. Facts: open(2), fcntl(2), inode(7).
#include "posix/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <cerrno>

namespace cp::posix {

namespace {

// Devices of memory that answer at once (Documentation/admin-guide/devices.txt, character devices of major 1): null, zero, full, random,
// urandom. Others of that major don't: a read of kmsg waits for the kernel's next message.
bool IsMemoryDevice(const struct stat& info) {
  if (!S_ISCHR(info.st_mode) || major(info.st_rdev) != 1) return false;
  const unsigned number = minor(info.st_rdev);
  return number == 3 || number == 5 || (number >= 7 && number <= 9);
}

}  // namespace

int OpenFlags(int flags) { return flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK; }

int Classify(int fd) {
  struct stat info;
  if (fstat(fd, &info) != 0) return -errno;
  if (S_ISDIR(info.st_mode)) return kIsDirectory;
  if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode) && !IsMemoryDevice(info)) return kNotAFile;
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0) return -errno;
  return 0;
}

int OpenError(int number) { return number == ENXIO ? kNotAFile : -number; }

int Open(const char* path, int flags, uint32_t mode) {
  int fd;
  do {
    fd = open(path, OpenFlags(flags), mode);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return OpenError(errno);
  const int kind = Classify(fd);
  if (kind == 0) return fd;
  close(fd);
  return kind;
}

}  // namespace cp::posix
