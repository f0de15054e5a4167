// See files.h. Facts (learn.microsoft.com): CreateFileW, "Maximum Path Length Limitation" (the prefix \\?\), GetFileType, ReadFile and WriteFile (both
// offsets 0xFFFFFFFF write to the end), GetQueuedCompletionStatus (a valid event whose low-order bit is set "keeps the I/O completion from being
// queued to the completion port"). Flags, access and sharing are those of libuv's src/win/fs.c, fs__open.
#include "win/files.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "core/test_hooks.h"

namespace cp::win {

namespace {

// node:fs's constants on Windows: the C runtime's, and libuv's own (include/uv/win.h).
constexpr int kWriteOnly = 0x1, kReadWrite = 0x2, kAppend = 0x8, kCreate = 0x100, kTruncate = 0x200, kExclusive = 0x400;
constexpr int kDirect = 0x02000000, kDataSync = 0x04000000, kSync = 0x08000000;
constexpr uint32_t kOwnerWrites = 0200;
constexpr size_t kShortPathMax = 240;  // characters; CreateFileW takes 259, for directories less

// "Maximum Path Length Limitation" and "Naming Files": what a path and one of its components may have, in characters. CreateFileW says of a component
// that is too long that the name is invalid.
constexpr size_t kPathMax = 32'767, kComponentMax = 255, kUtf8BytesMax = 3;  // a character of UTF-16: up to three bytes of UTF-8

bool TooLong(const std::wstring& path) {
  if (path.size() > kPathMax) return true;
  size_t length = 0;
  for (const wchar_t each : path) {
    length = each == L'\\' || each == L'/' ? 0 : length + 1;
    if (length > kComponentMax) return true;
  }
  return false;
}

// False: not UTF-8, or it can't be resolved.
bool WidePath(const char* path, std::wstring* out) {
  const int count = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, nullptr, 0);
  if (count <= 0) return false;
  out->resize(static_cast<size_t>(count));
  MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, out->data(), count);
  out->pop_back();
  if (out->size() > kPathMax) return false;
  if (out->size() < kShortPathMax || out->starts_with(LR"(\\?\)") || out->starts_with(LR"(\\.\)")) return true;
  const DWORD needed = GetFullPathNameW(out->c_str(), 0, nullptr, nullptr);
  if (needed == 0) return false;
  std::wstring full(needed, L'\0');
  const DWORD written = GetFullPathNameW(out->c_str(), needed, full.data(), nullptr);
  if (written == 0 || written >= needed) return false;
  full.resize(written);
  *out = full.starts_with(LR"(\\)") ? LR"(\\?\UNC\)" + full.substr(2) : LR"(\\?\)" + full;
  return true;
}

// A path whose parent is a file: Windows says ERROR_PATH_NOT_FOUND, as for a parent that isn't there, where others say ENOTDIR.
bool HasFileAsParent(std::wstring path) {
  for (size_t cut = path.find_last_of(L"\\/"); cut != std::wstring::npos && cut > 0; cut = path.find_last_of(L"\\/")) {
    path.resize(cut);
    const DWORD attributes = GetFileAttributesW(path.c_str());
    if (attributes != INVALID_FILE_ATTRIBUTES) return (attributes & FILE_ATTRIBUTE_DIRECTORY) == 0;
  }
  return false;
}

bool IsDirectory(const std::wstring& path) {
  const DWORD attributes = GetFileAttributesW(path.c_str());
  return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
}

}  // namespace

bool Appends(int flags) { return (flags & kAppend) != 0; }

OsHandle Open(const char* path, int flags, uint32_t mode) {
  if (std::strlen(path) > kPathMax * kUtf8BytesMax) return -ERROR_FILENAME_EXCED_RANGE;
  std::wstring wide;
  if (!WidePath(path, &wide)) return TooLong(wide) ? -ERROR_FILENAME_EXCED_RANGE : -ERROR_INVALID_NAME;
  DWORD access = (flags & kReadWrite) != 0   ? FILE_GENERIC_READ | FILE_GENERIC_WRITE
                 : (flags & kWriteOnly) != 0 ? FILE_GENERIC_WRITE
                                             : FILE_GENERIC_READ;
  if (Appends(flags)) access = (access & ~static_cast<DWORD>(FILE_WRITE_DATA)) | FILE_APPEND_DATA;
  const bool truncates = (flags & kTruncate) != 0;
  const DWORD disposition = (flags & kCreate) == 0      ? (truncates ? TRUNCATE_EXISTING : OPEN_EXISTING)
                            : (flags & kExclusive) != 0 ? CREATE_NEW
                            : truncates                 ? CREATE_ALWAYS
                                                        : OPEN_ALWAYS;
  // With FILE_FLAG_BACKUP_SEMANTICS a directory can be opened, and so told from what may not be.
  DWORD attributes = FILE_FLAG_OVERLAPPED | FILE_FLAG_BACKUP_SEMANTICS;
  attributes |= (flags & kCreate) != 0 && (mode & kOwnerWrites) == 0 ? FILE_ATTRIBUTE_READONLY : FILE_ATTRIBUTE_NORMAL;
  if ((flags & (kSync | kDataSync)) != 0) attributes |= FILE_FLAG_WRITE_THROUGH;
  if ((flags & kDirect) != 0) attributes |= FILE_FLAG_NO_BUFFERING;
  // No security attributes: the handle isn't inherited.
  const HANDLE file =
      CreateFileW(wide.c_str(), access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr, disposition, attributes, nullptr);
  if (file == INVALID_HANDLE_VALUE) {
    const DWORD error = GetLastError();
    const bool exclusive = (flags & kCreate) != 0 && (flags & kExclusive) != 0;
    if (!exclusive && (error == ERROR_ACCESS_DENIED || error == ERROR_FILE_EXISTS || error == ERROR_ALREADY_EXISTS) && IsDirectory(wide))
      return os::kIsDirectory;
    if (TooLong(wide)) return -ERROR_FILENAME_EXCED_RANGE;
    if (error == ERROR_PIPE_BUSY) return os::kNotAFile;
    if (error == ERROR_PATH_NOT_FOUND && HasFileAsParent(wide)) return -ERROR_DIRECTORY;
    return -static_cast<OsHandle>(error);
  }
  OsHandle result = reinterpret_cast<OsHandle>(file);
  FILE_STANDARD_INFO info;
  if (GetFileType(file) != FILE_TYPE_DISK)
    result = os::kNotAFile;
  else if (!GetFileInformationByHandleEx(file, FileStandardInfo, &info, sizeof(info)))
    result = -static_cast<OsHandle>(GetLastError());
  else if (info.Directory)
    result = os::kIsDirectory;
  if (result < 0) CloseHandle(file);
  return result;
}

namespace {

constexpr uint64_t kCallBytesMax = kLengthMax;  // fits a DWORD, so an operation is one call

// Wine 8 asks for the size and writes there, in two steps (dlls/ntdll/unix/file.c, NtWriteFile), so that of two appends at once one lies over the other.
// There they take turns; on Windows the file system sees to it.
std::unique_lock<std::mutex> AppendTurn() {
  static const bool wine = GetProcAddress(GetModuleHandleW(L"ntdll.dll"), "wine_get_version") != nullptr;
  static std::mutex turn;
  return wine ? std::unique_lock(turn) : std::unique_lock<std::mutex>();
}

// One call on a handle that is bound to a port, without a packet. 0 or an error; *moved says how much.
DWORD Move(bool writes, HANDLE file, std::byte* data, uint64_t length, bool append, uint64_t position, uint64_t* moved) {
  *moved = 0;
  const HANDLE event = CreateEventW(nullptr, TRUE, FALSE, nullptr);
  if (event == nullptr) return GetLastError();
  DWORD error = 0;
  const std::unique_lock<std::mutex> turn = writes && append ? AppendTurn() : std::unique_lock<std::mutex>();
  do {
    OVERLAPPED overlapped{};
    const uint64_t offset = append ? ~uint64_t{0} : position + *moved;
    overlapped.Offset = static_cast<DWORD>(offset);
    overlapped.OffsetHigh = static_cast<DWORD>(offset >> 32);
    overlapped.hEvent = reinterpret_cast<HANDLE>(reinterpret_cast<uintptr_t>(event) | 1);
    const auto bytes = static_cast<DWORD>(std::min(length - *moved, kCallBytesMax));
    const BOOL called =
        writes ? WriteFile(file, data + *moved, bytes, nullptr, &overlapped) : ReadFile(file, data + *moved, bytes, nullptr, &overlapped);
    DWORD got = 0;
    if (!called && GetLastError() != ERROR_IO_PENDING) {
      error = GetLastError();
    } else {
      // The event with its bit would be waited for as another handle: it is waited for here, and the result is there then.
      WaitForSingleObject(event, INFINITE);
      if (!GetOverlappedResult(file, &overlapped, &got, FALSE)) error = GetLastError();
    }
    *moved += got;
    if (error != 0 || got == 0) break;
  } while (*moved < length);
  CloseHandle(event);
  return error;
}

// An append of several parts as one call: between two, others could append theirs. What one call takes, if there is more.
Outcome AppendAll(const FileRequest& request) {
  uint64_t length = 0, skip = request.done;
  for (size_t i = 0; i < request.segment_count; i++) length += request.segments[i].length;
  length = std::min(length - skip, kCallBytesMax);
  const std::unique_ptr<std::byte[]> all(new (std::nothrow) std::byte[length]);
  if (!all) return {0, ERROR_NOT_ENOUGH_MEMORY};
  uint64_t copied = 0;
  for (size_t i = 0; i < request.segment_count && copied < length; i++) {
    const Segment& segment = request.segments[i];
    if (skip >= segment.length) {
      skip -= segment.length;
      continue;
    }
    const uint64_t count = std::min(segment.length - skip, length - copied);
    std::memcpy(all.get() + copied, segment.data + skip, count);
    copied += count;
    skip = 0;
  }
  uint64_t moved = 0;
  const DWORD error = Move(true, request.file, all.get(), length, true, 0, &moved);
  return {static_cast<int64_t>(moved), static_cast<int32_t>(moved > 0 ? 0 : error)};
}

Outcome MoveAll(const FileRequest& request) {
  const bool writes = request.kind == Opcode::kWrite || request.kind == Opcode::kWritev;
  if (request.append && request.kind == Opcode::kWritev) return AppendAll(request);
  uint64_t total = 0, skip = request.done;
  DWORD error = 0;
  const auto move = [&](std::byte* data, uint64_t length) {
    uint64_t moved = 0;
    error = Move(writes, request.file, data, length, request.append && writes, request.position + total, &moved);
    total += moved;
    return error == 0 && moved == length;
  };
  if (request.segments == nullptr) {
    move(request.data, request.length);
  } else {
    bool any = false;
    for (size_t i = 0; i < request.segment_count; i++) {
      const Segment& segment = request.segments[i];
      if (skip >= segment.length) {
        skip -= segment.length;
        continue;
      }
      any = true;
      if (!move(segment.data + skip, segment.length - skip)) break;
      skip = 0;
    }
    if (!any) move(nullptr, 0);  // of nothing: whether the handle is open for it
  }
  if (error == ERROR_HANDLE_EOF) error = 0;
  // What was moved counts; the next call meets the error again.
  if (total > 0) error = 0;
  return {static_cast<int64_t>(total), static_cast<int32_t>(error)};
}

}  // namespace

Outcome Perform(const FileRequest& request) {
  const auto told = [](BOOL done, int64_t result = 0) {
    return done ? Outcome{result, 0} : Outcome{0, static_cast<int32_t>(GetLastError())};
  };
  switch (request.kind) {
    case Opcode::kRead:
    case Opcode::kReadv:
    case Opcode::kWrite:
    case Opcode::kWritev:
      return MoveAll(request);
    case Opcode::kSync:
      if (StallMs() > 0) Sleep(StallMs());  // a sync that hangs, for the tests: see test_hooks.h
      return told(FlushFileBuffers(request.file));
    case Opcode::kDatasync:
      return told(FlushFileBuffers(request.file));
    case Opcode::kTruncate: {
      FILE_END_OF_FILE_INFO info;
      info.EndOfFile.QuadPart = static_cast<LONGLONG>(request.position);
      return told(SetFileInformationByHandle(request.file, FileEndOfFileInfo, &info, sizeof(info)));
    }
    case Opcode::kSize: {
      LARGE_INTEGER size{};
      const BOOL done = GetFileSizeEx(request.file, &size);
      return told(done, size.QuadPart);
    }
    case Opcode::kOpen:
      return {Open(request.path, request.open_flags, request.open_mode), 0};
    default:
      CP_ASSERT(!"not an operation of a file");
  }
  return {};
}

}  // namespace cp::win
