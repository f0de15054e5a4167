// Numbers of Windows to portable errors (core/errors.h): Win32's and Winsock's share one space, so one table serves both.
#pragma once

#include <cstdint>

#include "core/errors.h"

namespace cp::win {

// ERROR_DIRECTORY_NOT_SUPPORTED, "an operation is not supported on a directory", which the headers of mingw-w64 lack.
inline constexpr int32_t kDirectoryCode = 336;

Status MapWin32(uint32_t code);
// The Win32 number of an NTSTATUS; 0 for one that says success.
uint32_t CodeOfStatus(uint64_t ntstatus);
// A warning: the call fails, and the packet is queued nevertheless.
bool IsWarning(uint64_t ntstatus);
bool IsStreamFatal(uint32_t code);

}  // namespace cp::win
