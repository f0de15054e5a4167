// See files.h. Facts: open(2), fcntl(2), inode(7), pread(2), readv(2), fsync(2). preadv(2) and pwritev(2) are in FreeBSD since 6.0 and in macOS
// since 11.0, fdatasync(2) in FreeBSD since 11.1.
#include "posix/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cerrno>

#include "core/test_hooks.h"
#include "posix/platform.h"

#if CP_LINUX
#include <sys/sysmacros.h>
#endif

namespace cp::posix {

namespace {

#if CP_LINUX
// Devices of memory that answer at once (Documentation/admin-guide/devices.txt, character devices of major 1): null, zero, full, random,
// urandom. Others of that major don't: a read of kmsg waits for the kernel's next message.
bool IsMemoryDevice(const struct stat& info) {
  if (!S_ISCHR(info.st_mode) || major(info.st_rdev) != 1) return false;
  const unsigned number = minor(info.st_rdev);
  return number == 3 || number == 5 || (number >= 7 && number <= 9);
}
#else
// The same devices by their names: macOS has numbers of its own for them, FreeBSD gives numbers out as drivers come (devfs(5)).
bool IsMemoryDevice(const struct stat& info) {
  if (!S_ISCHR(info.st_mode)) return false;
  for (const char* name : {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}) {
    struct stat known;
    if (stat(name, &known) == 0 && S_ISCHR(known.st_mode) && known.st_rdev == info.st_rdev) return true;
  }
  return false;
}
#endif

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

int OpenError(int number) {
#if !CP_LINUX
  // The path is a socket's (open(2) of FreeBSD and macOS, EOPNOTSUPP).
  if (number == EOPNOTSUPP) return kNotAFile;
#endif
  return number == ENXIO ? kNotAFile : -number;
}

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

namespace {

int Sync(int fd, bool data_only) {
#if defined(__APPLE__)
  // fsync(2) of macOS leaves the data in the drive's own cache; F_FULLFSYNC doesn't (fcntl(2)). A file system that lacks it (one of a network)
  // has fsync; any other failure is the answer, which a second call might not give again. macOS declares no fdatasync.
  (void)data_only;
  if (fcntl(fd, F_FULLFSYNC) != -1) return 0;
  return errno == ENOTSUP || errno == ENOTTY || errno == EINVAL ? fsync(fd) : -1;
#else
  return data_only ? fdatasync(fd) : fsync(fd);
#endif
}

// A sync that hangs, for the tests: see test_hooks.h.
void Stall() {
  if (StallMs() == 0) return;
  const timespec stall = {StallMs() / 1000, static_cast<long>(StallMs() % 1000) * 1'000'000};
  nanosleep(&stall, nullptr);
}

}  // namespace

Outcome Perform(const FileRequest& request) {
  const int fd = request.fd;
  int64_t result = -1;
  AwaitDisk();
  switch (request.kind) {
    case Opcode::kRead:
      result = pread(fd, request.data, request.length, request.position);
      break;
    case Opcode::kWrite:
      // pwrite(2) of POSIX would write at the position in append mode, too; Linux's doesn't (its "BUGS").
      result = request.append ? write(fd, request.data, request.length) : pwrite(fd, request.data, request.length, request.position);
      break;
    case Opcode::kSync:
      Stall();
      result = Sync(fd, false);
      break;
    case Opcode::kDatasync:
      result = Sync(fd, true);
      break;
    case Opcode::kTruncate:
      result = ftruncate(fd, request.position);
      break;
    case Opcode::kSize: {
      struct stat info;
      result = fstat(fd, &info);
      if (result == 0) result = info.st_size;
      break;
    }
    case Opcode::kOpen:
      return {Open(request.path, request.open_flags, request.open_mode), 0};
    default:
      CP_ASSERT(!"not an operation of a file");
  }
  return result < 0 ? Outcome{0, errno} : Outcome{result, 0};
}

#if CP_LINUX && defined(RWF_NOWAIT)
int64_t ReadNow(const FileRequest& request) {
  const iovec one = {request.data, request.length};
  const bool vectored = request.kind == Opcode::kReadv;
  const ssize_t result =
      preadv2(request.fd, vectored ? request.vector : &one, vectored ? request.segments : 1, request.position, RWF_NOWAIT);
  if (result > 0) return result;
  // 0 isn't taken for the end: Linux 5.9 and 5.10 say it elsewhere, too (readv(2), BUGS).
  if (result == 0) return -EAGAIN;
  return errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL ? -ENOTSUP : -errno;
}

bool HasReadNow() { return preadv2(-1, nullptr, 0, 0, RWF_NOWAIT) < 0 && errno == EBADF; }
#else
int64_t ReadNow(const FileRequest&) { return -ENOTSUP; }
bool HasReadNow() { return false; }
#endif

}  // namespace cp::posix
