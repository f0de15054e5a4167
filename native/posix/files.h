// Opening files, telling whether a descriptor is one that the package serves as a file, and the operations of a file as calls that may block.
#pragma once

#include <sys/uio.h>
#include <cstddef>
#include <cstdint>

#include "core/os.h"
#include "core/port.h"

namespace cp::posix {

// Results of Classify beyond 0 and negative errnos.
inline constexpr int kNotAFile = static_cast<int>(os::kNotAFile);
inline constexpr int kIsDirectory = static_cast<int>(os::kIsDirectory);

// Flags for open(2): never a controlling terminal, not inherited, and not blocking, so that a FIFO can't hold the caller (open(2):
// O_NONBLOCK on a FIFO opens for reading at once and for writing fails with ENXIO).
int OpenFlags(int flags);

// Looks at what was opened: 0 for a regular file, a block device or a memory device that never waits (/dev/zero), else kNotAFile, kIsDirectory or a
// negative errno. On 0 the descriptor is made blocking again.
int Classify(int fd);

// An open that fails with ENXIO met a FIFO without reader or a socket.
int OpenError(int number);

// Opens; may block on the disk. The descriptor, or a negative result as above.
int Open(const char* path, int flags, uint32_t mode);

// An operation of a file, for a pool thread: everything that its call needs, so that nothing of the port is looked at there.
struct FileRequest {
  Opcode kind = Opcode::kRead;
  int fd = -1;
  bool append = false;  // a write goes to the end
  int64_t position = 0;
  std::byte* data = nullptr;  // what it points to is pinned by its operation
  size_t length = 0;
  const iovec* vector = nullptr;
  int segments = 0;
  const char* path = nullptr;
  int open_flags = 0;
  uint32_t open_mode = 0;
};

// One call; it may block, and be short. Of an open the result is Open's. Not of a vectored operation.
Outcome Perform(const FileRequest& request);

// A read that takes what is in memory and waits for nothing: bytes, or a negative errno: EAGAIN: it would have to wait, or this can't be told;
// ENOTSUP: this file or this system has no such call. Never 0 for the end of the file.
int64_t ReadNow(const FileRequest& request);
// False: this system has no such call for any file.
bool HasReadNow();

}  // namespace cp::posix
