// See core/os.h: files, sockets, threads and errors of Windows, and its one backend. Facts: QueryPerformanceCounter ("is guaranteed to be
// monotonic"), GetModuleHandleExW (learn.microsoft.com).
#include "core/os.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "win/errors.h"
#include "win/files.h"
#include "win/iocp_port.h"
#include "win/windows.h"
#include "win/winsock.h"

#include <tlhelp32.h>
#include <winternl.h>

namespace cp {

double MonotonicMs() {
  static const double per_ms = [] {
    LARGE_INTEGER frequency;
    QueryPerformanceFrequency(&frequency);
    return static_cast<double>(frequency.QuadPart) / 1e3;
  }();
  LARGE_INTEGER now;
  QueryPerformanceCounter(&now);
  return static_cast<double>(now.QuadPart) / per_ms;
}

}  // namespace cp

namespace cp::os {

// ---- backends ---------------------------------------------------------------------------------------------------------------

std::span<const Backend> Backends() {
  static constexpr Backend kAll[] = {
      {"io_uring", "io_uring is a facility of Linux"},
      {"epoll", "epoll is a facility of Linux"},
      {"kqueue", "kqueue is a facility of macOS and the BSDs"},
      {"iocp", nullptr},
  };
  return kAll;
}

std::unique_ptr<Port> MakePort(const std::string& backend, const PortOptions& options, CreateError* error) {
  if (backend == "iocp") return win::IocpPort::Create(options, error);
  for (const Backend& each : Backends())
    if (backend == each.name && each.foreign != nullptr) {
      *error = {0, each.foreign};
      return nullptr;
    }
  *error = {0, "this version of completion-port has no backend '" + backend + "' for this system"};
  return nullptr;
}

// ---- threads ----------------------------------------------------------------------------------------------------------------

namespace {

struct Start {
  void (*run)();
};
DWORD WINAPI Run(void* given) {
  void (*run)() = static_cast<Start*>(given)->run;
  delete static_cast<Start*>(given);
  run();
  return 0;
}

class LoopNotifier final : public ThreadNotifier {
 public:
  void Notify() override {
    // Whoever finds the flag set has published before that what the loop looks at next: both do it under the port's mutex.
    if (!notified_.exchange(true)) RaiseNotification();
  }
  int notification_fd() const override { return -1; }
  void SetWaker(std::function<void()> wake) override {
    std::lock_guard lock(mutex_);
    waker_ = std::move(wake);
    // A call that came while nobody could hear it.
    if (waker_ && notified_.load()) waker_();
  }
  void ClearNotification() override { notified_.store(false); }
  void RaiseNotification() override {
    std::lock_guard lock(mutex_);
    if (waker_) waker_();
  }

 private:
  std::atomic<bool> notified_{false};
  std::mutex mutex_;
  std::function<void()> waker_;
};

}  // namespace

bool StartThread(const char*, void (*run)()) {
  auto* start = new Start{run};
  const HANDLE thread = CreateThread(nullptr, 0, &Run, start, 0, nullptr);
  if (thread == nullptr) {
    delete start;
    return false;
  }
  CloseHandle(thread);
  return true;
}

uint64_t CurrentThread() { return GetCurrentThreadId(); }

std::shared_ptr<ThreadNotifier> MakeNotifier(CreateError*) { return std::make_shared<LoopNotifier>(); }

namespace {

// Of all processes: ntdll's, by numbers that are no part of winternl.h but have been the same since Windows XP.
struct SystemHandle {
  void* object;
  ULONG_PTR process;
  ULONG_PTR handle;
  ULONG access;
  USHORT trace;
  USHORT type;
  ULONG attributes;
  ULONG reserved;
};
static_assert(sizeof(SystemHandle) == 40);
constexpr auto kSystemExtendedHandleInformation = static_cast<SYSTEM_INFORMATION_CLASS>(64);
constexpr auto kObjectTypeInformation = static_cast<OBJECT_INFORMATION_CLASS>(2);
constexpr auto kStatusInfoLengthMismatch = static_cast<NTSTATUS>(0xC0000004);

// Whether it is what has a descriptor elsewhere: files, sockets and pipes are all of type File, completion ports of one of their own.
bool IsDescriptor(HANDLE handle) {
  alignas(UNICODE_STRING) std::byte room[1024];
  ULONG length = 0;
  if (NtQueryObject(handle, kObjectTypeInformation, room, sizeof(room), &length) < 0) return false;  // closed meanwhile
  const auto* name = reinterpret_cast<const UNICODE_STRING*>(room);  // the first member of PUBLIC_OBJECT_TYPE_INFORMATION
  const std::wstring_view type(name->Buffer, name->Length / sizeof(wchar_t));
  return type == L"File" || type == L"IoCompletion";
}

ProcessCounts CountHandles() {
  std::vector<std::byte> room(1 << 16);
  for (;;) {
    ULONG needed = 0;
    const NTSTATUS status =
        NtQuerySystemInformation(kSystemExtendedHandleInformation, room.data(), static_cast<ULONG>(room.size()), &needed);
    if (status == kStatusInfoLengthMismatch) {
      room.resize(std::max<size_t>(room.size() * 2, needed));
      continue;
    }
    if (status < 0) return {};
    ULONG_PTR count;
    std::memcpy(&count, room.data(), sizeof(count));
    const auto* all = reinterpret_cast<const SystemHandle*>(room.data() + 2 * sizeof(ULONG_PTR));
    ProcessCounts counts{0, 0, -1};
    for (const SystemHandle& one : std::span(all, count)) {
      if (one.process != GetCurrentProcessId()) continue;
      counts.handles++;
      if (IsDescriptor(reinterpret_cast<HANDLE>(one.handle))) counts.descriptors++;
    }
    // Wine 8 answers with 0 (dlls/ntdll/unix/process.c, ProcessHandleCount), but lists them.
    DWORD handles = 0;
    if (GetProcessHandleCount(GetCurrentProcess(), &handles) && handles != 0) counts.handles = handles;
    return counts;
  }
}

int64_t CountThreads() {
  const HANDLE snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0);
  if (snapshot == INVALID_HANDLE_VALUE) return -1;
  int64_t count = 0;
  THREADENTRY32 entry{};
  entry.dwSize = sizeof(entry);
  for (BOOL more = Thread32First(snapshot, &entry); more; more = Thread32Next(snapshot, &entry))
    if (entry.th32OwnerProcessID == GetCurrentProcessId()) count++;
  CloseHandle(snapshot);
  return count;
}

}  // namespace

ProcessCounts CountProcess() {
  ProcessCounts counts = CountHandles();
  counts.threads = CountThreads();
  return counts;
}

void StayLoaded() {
  HMODULE own;
  GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, reinterpret_cast<LPCWSTR>(&StayLoaded), &own);
}

// ---- handles ----------------------------------------------------------------------------------------------------------------

OsHandle OpenFile(const char* path, int flags, uint32_t mode) { return win::Open(path, flags, mode); }
bool Appends(int flags) { return win::Appends(flags); }
OsHandle Listen(const AddressEntry& address, int backlog, bool reuse_port, bool ipv6_only) {
  return win::Listen(address, backlog, reuse_port, ipv6_only);
}
OsHandle Socket(int family, const AddressEntry* local) { return win::Socket(family, local); }

void Close(HandleKind kind, OsHandle os, bool reset) {
  if (kind == HandleKind::kFile) {
    CloseHandle(reinterpret_cast<HANDLE>(os));
    return;
  }
  if (reset && kind == HandleKind::kSocket) win::LingerNot(static_cast<SOCKET>(os));
  closesocket(static_cast<SOCKET>(os));
}

int Address(OsHandle os, bool peer, AddressEntry* out) { return win::Address(static_cast<SOCKET>(os), peer, out); }
int SetOption(OsHandle os, SocketOption option, int value) { return win::SetOption(static_cast<SOCKET>(os), option, value); }
int GetOption(OsHandle os, SocketOption option) { return win::GetOption(static_cast<SOCKET>(os), option); }
int ParseAddress(const std::string& text, AddressEntry* out) { return win::ParseAddress(text, out); }
std::string FormatAddress(const AddressEntry& address) { return win::FormatAddress(address); }

// ---- errors -----------------------------------------------------------------------------------------------------------------

Status MapError(int32_t code) { return win::MapWin32(static_cast<uint32_t>(code)); }
int32_t InvalidCode() { return ERROR_INVALID_PARAMETER; }
int32_t BadHandleCode() { return ERROR_INVALID_HANDLE; }
int32_t TooManyFilesCode() { return ERROR_TOO_MANY_OPEN_FILES; }
int32_t DirectoryCode() { return win::kDirectoryCode; }

}  // namespace cp::os
