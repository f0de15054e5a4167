// Opening files as Node.js does, for overlapped I/O; and the operations of a file that have no asynchronous form, as calls that block, for the
// pool of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/operation.h"
#include "core/os.h"
#include "win/windows.h"

namespace cp::win {

// Opens; may block on the disk. The handle, or a negative result of os::OpenFile. `flags` are node:fs's on Windows.
OsHandle Open(const char* path, int flags, uint32_t mode);
bool Appends(int flags);

// An operation of a file, for a pool thread: everything that its call needs, so that nothing of the port is looked at there.
struct FileRequest {
  Opcode kind = Opcode::kRead;
  HANDLE file = INVALID_HANDLE_VALUE;
  bool append = false;  // a write goes to the end
  uint64_t position = 0;
  std::byte* data = nullptr;  // what it points to is pinned by its operation
  uint64_t length = 0;
  uint64_t done = 0;  // bytes moved before
  Segment* segments = nullptr;
  size_t segment_count = 0;
  const char* path = nullptr;
  int open_flags = 0;
  uint32_t open_mode = 0;
};

// The whole operation: it may block. Of an open the result is Open's.
Outcome Perform(const FileRequest& request);

}  // namespace cp::win
