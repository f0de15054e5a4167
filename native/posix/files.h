// Opening files and telling whether a descriptor is one that the package serves as a file.
#pragma once

#include <cstdint>

namespace cp::posix {

// Results of Classify beyond 0 and negative errnos.
inline constexpr int kNotAFile = -100000;
inline constexpr int kIsDirectory = -100001;

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

}  // namespace cp::posix
