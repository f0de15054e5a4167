// See iocp_port.h. Facts (learn.microsoft.com): CreateIoCompletionPort, GetQueuedCompletionStatusEx, PostQueuedCompletionStatus, CancelIoEx, AcceptEx,
// GetAcceptExSockaddrs, ConnectEx, WSARecv, WSASend, ReadFile, WriteFile, "I/O Completion Ports".
#include "win/iocp_port.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/test_hooks.h"
#include "win/errors.h"
#include "win/winsock.h"

namespace cp::win {

namespace {

constexpr uint64_t kSendBytesMax = 4u << 20;  // in one call: Windows locks its pages in memory
constexpr uint64_t kRecvBytesMax = 64u << 20;
constexpr uint64_t kFileBytesMax = 1u << 30;  // a DWORD, and some room
constexpr uint32_t kLooksMax = 64;            // requests that are looked at one by one
constexpr uint32_t kTakesMax = 64;            // calls of the kernel in a row, where each came back full
constexpr ULONGLONG kWineAnswersMs = 50;      // see CancelRequest
constexpr double kWaitMaxMs = 1e9;            // below INFINITE; whoever waits for longer waits again

SOCKET SocketOf(const Handle& handle) { return static_cast<SOCKET>(handle.os); }
HANDLE FileOf(OsHandle os) { return reinterpret_cast<HANDLE>(os); }

// Wine's FAQ for developers: this export is how a program tells it. Null on Windows.
FARPROC WineVersion() {
  static const FARPROC version = GetProcAddress(GetModuleHandleW(L"ntdll.dll"), "wine_get_version");
  return version;
}

// ERROR_NOT_FOUND: it has finished, and its packet is on its way. Wine 8.0 says so, too, of an operation that it is just waking to look at its
// socket again, and which then waits on for ever where that gave it nothing to end with (server/async.c: cancel_async passes over what
// async_terminate has alerted, async_set_result puts it back). There it is asked again while the status says pending, for as long as the thread
// that began it may need to answer its waking.
void CancelRequest(HANDLE file, OVERLAPPED* overlapped) {
  const ULONGLONG end = GetTickCount64() + kWineAnswersMs;
  while (CancelIoEx(file, overlapped) == FALSE && GetLastError() == ERROR_NOT_FOUND && WineVersion() != nullptr &&
         !HasOverlappedIoCompleted(overlapped) && GetTickCount64() < end)
    SwitchToThread();
}

}  // namespace

struct IocpPort::FileJob final : pool::Job {
  uint32_t slot = 0;
  uint32_t generation = 0;
  FileRequest request;
  Outcome outcome;
  HANDLE port = nullptr;

  void Run() override {
    outcome = Perform(request);
    // Its room in the kernel is from the nonpaged pool: where that is used up the packet waits here, it isn't lost.
    const HANDLE to = port;
    while (!PostQueuedCompletionStatus(to, 0, kKeyJob, reinterpret_cast<OVERLAPPED*>(this))) Sleep(1);
  }
};

// ---- making and ending ----------------------------------------------------------------------------------------------------

std::unique_ptr<IocpPort> IocpPort::Create(const PortOptions& options, CreateError* error) {
  if (IsDisabled(options.disable, "iocp")) {
    *error = {ERROR_ACCESS_DENIED, "iocp is switched off by COMPLETION_PORT_DISABLE"};
    return nullptr;
  }
  std::unique_ptr<IocpPort> port(new IocpPort(options));
  if (!port->Open(error)) return nullptr;
  if (options.shared) port->driver_thread_ = std::thread([raw = port.get()] { raw->Drive(); });
  return port;
}

bool IocpPort::Open(CreateError* error) {
  // One thread takes from it: the limit of running threads is the core's (core/waiters.h), for event loops and blocking gets alike.
  port_ = CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 1);
  if (port_ != nullptr) return true;
  *error = {static_cast<int32_t>(GetLastError()), "CreateIoCompletionPort failed: too many handles, or no memory"};
  return false;
}

IocpPort::~IocpPort() {
  JoinDriver();
  CP_ASSERT(jobs_ == 0 && kernel_ == 0);
  if (helper_.joinable()) {
    CallBack();
    {
      std::lock_guard lock(helper_mutex_);
      helper_ends_ = true;
    }
    helper_wanted_.notify_one();
    helper_.join();
  }
  while (free_ != nullptr) {
    const std::unique_ptr<Request> gone(free_);
    free_ = gone->next;
  }
  if (port_ != nullptr) ::CloseHandle(port_);
}

std::vector<std::pair<std::string, bool>> IocpPort::features() const {
  const FARPROC version = WineVersion();
  std::vector<std::pair<std::string, bool>> list = {
      {"accept_ex", true}, {"connect_ex", true}, {"cancel_io_ex", true}, {"wine", version != nullptr}};
  if (version != nullptr)
    list.emplace_back(std::string("wine_") + reinterpret_cast<const char*(CDECL*)()>(reinterpret_cast<void*>(version))(), true);
  return list;
}

void IocpPort::Drive() {
  driver_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  OVERLAPPED_ENTRY entries[kTakenMax];
  ULONG count = 0;
  for (;;) {
    double wait;
    {
      Lock lock(*this);
      EndDriverWait();
      for (ULONG i = 0; i < count; i++) OnEntry(entries[i]);
      if (!backlog_.empty()) Pump();
      wait = DriverTurn();
      if (wait < 0) return;
      // What timers have begun goes at once, and DriverTurn says anew how long to wait.
      if (!backlog_.empty()) wait = 0;
      kick_wanted_ = false;
      enters_++;
      BeginDriverWait();
    }
    count = Take(entries, wait);
  }
}

void IocpPort::JoinDriver() {
  if (driver_thread_.joinable()) driver_thread_.join();
}

// Packets of the kernel's queue, waiting for the first up to timeout_ms.
ULONG IocpPort::Take(OVERLAPPED_ENTRY* entries, double timeout_ms) {
  ULONG count = 0;
  const DWORD ms = timeout_ms <= 0           ? 0
                   : timeout_ms < kWaitMaxMs ? static_cast<DWORD>(std::ceil(timeout_ms))
                   : std::isinf(timeout_ms)  ? INFINITE
                                             : static_cast<DWORD>(kWaitMaxMs);
  if (GetQueuedCompletionStatusEx(port_, entries, kTakenMax, &count, ms, FALSE)) return count;
  const DWORD error = GetLastError();
  if (error != WAIT_TIMEOUT) last_error_ = -static_cast<int>(error);
  return 0;
}

// ---- turns ----------------------------------------------------------------------------------------------------------------

void IocpPort::Begin(Operation& op) {
  CP_DEBUG_ASSERT(op.state == OperationState::kWaiting);
  op.backlogged = true;
  backlog_.Push(op);
  kick_wanted_ = true;
}

void IocpPort::Withdraw(Operation& op) {
  backlog_.Remove(op);
  op.backlogged = false;
}

// Starts what was begun. What that begins (the next of a line, the rest of a send) goes behind the others.
void IocpPort::Pump() {
  while (!backlog_.empty()) {
    Operation& op = *backlog_.head();
    Withdraw(op);
    Try(op);
  }
}

// Takes what the kernel has, and what the helper has taken from it; waits for the first up to timeout_ms. Of a private port only.
void IocpPort::Reap(double timeout_ms) {
  CP_ASSERT(!shared_);
  CallBack();
  std::vector<OVERLAPPED_ENTRY> taken;
  {
    std::lock_guard lock(helper_mutex_);
    taken.swap(taken_);
  }
  bool any = !taken.empty();
  for (const OVERLAPPED_ENTRY& entry : taken) OnEntry(entry);
  if (any) timeout_ms = 0;
  OVERLAPPED_ENTRY entries[kTakenMax];
  for (uint32_t takes = 0; takes < kTakesMax; takes++) {
    enters_++;
    const ULONG count = Take(entries, timeout_ms);
    for (ULONG i = 0; i < count; i++) OnEntry(entries[i]);
    any = any || count > 0;
    if (count < kTakenMax) break;
    timeout_ms = 0;
  }
  if (!notifying_) return;
  // The event loop had been told that there was nothing.
  if (any || has_wanted())
    RaiseNotification();
  else
    Arm();
}

// The end of one begins the next of its line (an accept while connections wait), which may end at once, too.
void IocpPort::ReapAll() {
  for (uint32_t rounds = 0; rounds < kTakesMax; rounds++) {
    Reap(0);
    if (backlog_.empty()) return;
    Pump();
    if (!SomethingFinished()) return;
  }
}

void IocpPort::OnEntry(const OVERLAPPED_ENTRY& entry) {
  if (entry.lpCompletionKey == kKeyKick) return;
  if (entry.lpCompletionKey == kKeyJob) return OnJob(*reinterpret_cast<FileJob*>(entry.lpOverlapped));
  auto& request = *CONTAINING_RECORD(entry.lpOverlapped, Request, overlapped);
  if (request.op == nullptr) return;  // of a call that had failed at once; Wine only, if at all
  Operation& op = *request.op;
  CP_ASSERT(op.state == OperationState::kKernel && op.job == &request);
  const DWORD error = CodeOfStatus(request.overlapped.Internal);
  const uint64_t bytes = entry.dwNumberOfBytesTransferred;
  kernel_--;
  op.job = nullptr;
  if (op.kind == Opcode::kAccept) {
    const SOCKET accepted = request.accepted;
    EndedAccept(op, accepted, request, error);
    return;
  }
  FreeRequest(request);
  if (error != 0 && bytes > 0 && op.kind != Opcode::kConnect) op.done += bytes;  // a cancelled send has sent them all the same
  if (op.kind == Opcode::kRead || op.kind == Opcode::kWrite)
    return EndedFile(op, {static_cast<int64_t>(bytes), static_cast<int32_t>(error)});
  if (op.kind == Opcode::kConnect && error == 0 && op.handle != nullptr && !op.handle->closed) {
    // getpeername, shutdown and the rest work from here on (ConnectEx, Remarks).
    setsockopt(SocketOf(*op.handle), SOL_SOCKET, SO_UPDATE_CONNECT_CONTEXT, nullptr, 0);
  }
  Ended(op, {op.kind == Opcode::kConnect ? 0 : static_cast<int64_t>(bytes), static_cast<int32_t>(error)});
}

// Whether the kernel or the pool has something that isn't in the queue: true where it can't be told cheaply.
bool IocpPort::SomethingFinished() const {
  {
    std::lock_guard lock(helper_mutex_);
    if (!taken_.empty()) return true;
  }
  if (jobs_ > 0 || kernel_ > kLooksMax) return true;
  for (const Request* request = issued_; request != nullptr; request = request->next)
    if (HasOverlappedIoCompleted(&request->overlapped)) return true;
  return false;
}

// ---- requests -------------------------------------------------------------------------------------------------------------

IocpPort::Request* IocpPort::NewRequest(Operation& op) {
  Request* request = free_;
  if (request != nullptr) {
    free_ = request->next;
    if (free_ == nullptr) free_last_ = nullptr;
  } else {
    request = new (std::nothrow) Request;
    if (request == nullptr) return nullptr;
  }
  request->overlapped = {};
  // As the kernel sets it: a call that fails before it gets there must not look finished, nor like a warning.
  request->overlapped.Internal = 0x103;  // STATUS_PENDING
  request->op = &op;
  request->accepted = INVALID_SOCKET;
  request->previous = nullptr;
  request->next = issued_;
  if (issued_ != nullptr) issued_->previous = request;
  issued_ = request;
  return request;
}

void IocpPort::FreeRequest(Request& request) {
  (request.previous != nullptr ? request.previous->next : issued_) = request.next;
  if (request.next != nullptr) request.next->previous = request.previous;
  request.op = nullptr;
  request.next = nullptr;
  (free_last_ != nullptr ? free_last_->next : free_) = &request;
  free_last_ = &request;
}

// A call has returned: the operation is with the kernel, whose packet comes, or it ends here.
void IocpPort::Issued(Operation& op, Request& request, bool done, DWORD error) {
  if (done || error == ERROR_IO_PENDING || IsWarning(request.overlapped.Internal)) {
    MarkInKernel(op, Route::kKernel);
    op.job = &request;
    kernel_++;
    return;
  }
  if (op.kind == Opcode::kAccept) return EndedAccept(op, request.accepted, request, error);
  FreeRequest(request);
  if (op.kind == Opcode::kRead || op.kind == Opcode::kWrite) return EndedFile(op, {0, static_cast<int32_t>(error)});
  Ended(op, {0, static_cast<int32_t>(error)});
}

void IocpPort::Try(Operation& op) {
  switch (op.kind) {
    case Opcode::kRecv:
      return TryRecv(op);
    case Opcode::kSend:
    case Opcode::kSendv:
      return TrySend(op);
    case Opcode::kAccept:
      return TryAccept(op);
    case Opcode::kConnect:
      return TryConnect(op);
    default:
      return TryFile(op);
  }
}

// ---- sockets --------------------------------------------------------------------------------------------------------------

void IocpPort::TryRecv(Operation& op) {
  Request* request = NewRequest(op);
  if (request == nullptr) return Ended(op, {0, ERROR_NOT_ENOUGH_MEMORY});
  WSABUF buffer = {static_cast<ULONG>(std::min(op.length, kRecvBytesMax)), reinterpret_cast<char*>(op.data)};
  DWORD flags = 0;
  const bool done = WSARecv(SocketOf(*op.handle), &buffer, 1, nullptr, &flags, &request->overlapped, nullptr) == 0;
  Issued(op, *request, done, done ? 0 : static_cast<DWORD>(WSAGetLastError()));
}

void IocpPort::TrySend(Operation& op) {
  WSABUF one = {static_cast<ULONG>(std::min(op.length - op.done, kSendBytesMax)), reinterpret_cast<char*>(op.data + op.done)};
  WSABUF* vector = &one;
  DWORD count = 1;
  if (op.kind == Opcode::kSendv) {
    auto& room = op.extra->os_vector;
    if (room.size() == 0 && !room.Reset(op.extra->segments.size() * sizeof(WSABUF))) return Ended(op, {0, ERROR_NOT_ENOUGH_MEMORY});
    vector = reinterpret_cast<WSABUF*>(room.data());
    count = 0;
    uint64_t skip = op.done, left = kSendBytesMax;
    for (const Segment& segment : op.extra->segments) {
      if (left == 0) break;
      if (skip >= segment.length) {
        skip -= segment.length;
        continue;
      }
      const uint64_t length = std::min<uint64_t>(segment.length - skip, left);
      vector[count++] = {static_cast<ULONG>(length), reinterpret_cast<char*>(segment.data + skip)};
      left -= length;
      skip = 0;
    }
    if (count == 0) vector = &(one = {0, nullptr}), count = 1;
  }
  Request* request = NewRequest(op);
  if (request == nullptr) return Ended(op, {0, ERROR_NOT_ENOUGH_MEMORY});
  const bool done = WSASend(SocketOf(*op.handle), vector, count, nullptr, 0, &request->overlapped, nullptr) == 0;
  Issued(op, *request, done, done ? 0 : static_cast<DWORD>(WSAGetLastError()));
}

void IocpPort::TryAccept(Operation& op) {
  const SOCKET listener = SocketOf(*op.handle);
  const int family = FamilyOf(listener);
  const Extensions* extensions = ExtensionsOf(family, listener);
  if (extensions == nullptr) return Ended(op, {0, WSAEOPNOTSUPP});
  Request* request = NewRequest(op);
  if (request == nullptr) return Ended(op, {0, ERROR_NOT_ENOUGH_MEMORY});
  int error = 0;
  request->accepted = NewSocket(family, &error);
  if (request->accepted == INVALID_SOCKET) return EndedAccept(op, INVALID_SOCKET, *request, static_cast<DWORD>(error));
  // No data is waited for: a peer that connects and says nothing would hold the accept up.
  constexpr DWORD kAddressBytes = sizeof(sockaddr_storage) + 16;
  DWORD bytes = 0;
  const bool done = extensions->accept_ex(listener, request->accepted, request->addresses, 0, kAddressBytes, kAddressBytes, &bytes,
                                          &request->overlapped) != FALSE;
  Issued(op, *request, done, done ? 0 : static_cast<DWORD>(WSAGetLastError()));
}

void IocpPort::EndedAccept(Operation& op, SOCKET accepted, Request& request, DWORD error) {
  AddressEntry peer{};
  Handle* listener = op.handle;
  if (error == 0 && listener != nullptr && !listener->closed) {
    const SOCKET from = SocketOf(*listener);
    if (setsockopt(accepted, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT, reinterpret_cast<const char*>(&from), sizeof(from)) != 0)
      error = static_cast<DWORD>(WSAGetLastError());
    if (const Extensions* extensions = ExtensionsOf(FamilyOf(from), from); error == 0 && extensions != nullptr) {
      constexpr DWORD kAddressBytes = sizeof(sockaddr_storage) + 16;
      sockaddr *local = nullptr, *remote = nullptr;
      int local_bytes = 0, remote_bytes = 0;
      extensions->get_accept_ex_sockaddrs(request.addresses, 0, kAddressBytes, kAddressBytes, &local, &local_bytes, &remote, &remote_bytes);
      if (remote == nullptr || !FromSockaddr(remote, &peer)) peer = {};
    }
  } else if (error == 0) {
    error = ERROR_OPERATION_ABORTED;  // the listener is closed: the connection goes with it
  }
  FreeRequest(request);
  op.state = OperationState::kWaiting;
  if (error == 0)
    return CompleteWithHandle(op, HandleKind::kSocket, static_cast<OsHandle>(accepted), peer.family != 0 ? &peer : nullptr, false);
  if (accepted != INVALID_SOCKET) closesocket(accepted);
  Ended(op, {0, static_cast<int32_t>(error)});
}

void IocpPort::TryConnect(Operation& op) {
  Handle& handle = *op.handle;
  const SOCKET socket = SocketOf(handle);
  if (handle.connecting != nullptr) return Ended(op, {0, WSAEALREADY});
  if (handle.connection == Connection::kConnected) return Ended(op, {0, WSAEISCONN});
  if (const int error = BindAny(socket); error != 0) return Ended(op, {0, error});
  const Extensions* extensions = ExtensionsOf(FamilyOf(socket), socket);
  if (extensions == nullptr) return Ended(op, {0, WSAEOPNOTSUPP});
  Request* request = NewRequest(op);
  if (request == nullptr) return Ended(op, {0, ERROR_NOT_ENOUGH_MEMORY});
  sockaddr_storage address;
  const int length = ToSockaddr(op.extra->address, &address);
  handle.connecting = &op;
  const bool done =
      extensions->connect_ex(socket, reinterpret_cast<sockaddr*>(&address), length, nullptr, 0, nullptr, &request->overlapped) != FALSE;
  Issued(op, *request, done, done ? 0 : static_cast<DWORD>(WSAGetLastError()));
}

void IocpPort::Ended(Operation& op, const Outcome& outcome) {
  if (op.kind == Opcode::kConnect && op.handle != nullptr && op.handle->connecting == &op) op.handle->connecting = nullptr;
  Report(op, outcome);
}

// ---- files ----------------------------------------------------------------------------------------------------------------

// Reads, and writes that don't lengthen the file, are the kernel's; the rest has no form that doesn't block, and is the pool's ("Asynchronous
// Disk I/O Appears as Synchronous on Windows": writes that extend a file, opening, flushing).
void IocpPort::TryFile(Operation& op) {
  const bool reads = op.kind == Opcode::kRead;
  if (!reads && op.kind != Opcode::kWrite) return StartJob(op);
  Handle& handle = *op.handle;
  const uint64_t position = op.position < 0 ? 0 : static_cast<uint64_t>(op.position) + op.done;
  if (!reads) {
    LARGE_INTEGER size;
    if (handle.append || !GetFileSizeEx(FileOf(handle.os), &size) ||
        position + (op.length - op.done) > static_cast<uint64_t>(size.QuadPart))
      return StartJob(op);
  }
  Request* request = NewRequest(op);
  if (request == nullptr) return Ended(op, {0, ERROR_NOT_ENOUGH_MEMORY});
  request->overlapped.Offset = static_cast<DWORD>(position);
  request->overlapped.OffsetHigh = static_cast<DWORD>(position >> 32);
  const auto bytes = static_cast<DWORD>(std::min(op.length - op.done, kFileBytesMax));
  std::byte* data = op.data + op.done;
  const BOOL done = reads ? ReadFile(FileOf(handle.os), data, bytes, nullptr, &request->overlapped)
                          : WriteFile(FileOf(handle.os), data, bytes, nullptr, &request->overlapped);
  Issued(op, *request, done != FALSE, done ? 0 : GetLastError());
}

void IocpPort::StartJob(Operation& op) {
  std::unique_ptr<FileJob> job(new (std::nothrow) FileJob);
  MarkInKernel(op, Route::kPool);
  if (!job) return Report(op, {0, ERROR_NOT_ENOUGH_MEMORY});
  FileRequest& request = job->request;
  request.kind = op.kind;
  if (op.kind == Opcode::kOpen) {
    request.path = op.extra->path.data();
    request.open_flags = op.extra->open_flags;
    request.open_mode = op.extra->open_mode;
  } else {
    request.file = FileOf(op.handle->os);
    request.append = op.handle->append;
    request.position = op.position < 0 ? 0 : static_cast<uint64_t>(op.position) + (op.kind == Opcode::kTruncate ? 0 : op.done);
    if (op.kind == Opcode::kReadv || op.kind == Opcode::kWritev) {
      request.segments = op.extra->segments.data();
      request.segment_count = op.extra->segments.size();
      request.done = op.done;
    } else if (op.data != nullptr) {
      request.data = op.data + op.done;
      request.length = op.length - op.done;
    }
  }
  job->slot = SlotOf(op);
  job->generation = op.generation;
  job->port = port_;
  if (!pool_.Submit(*job)) return Report(op, {0, ERROR_NOT_ENOUGH_MEMORY});
  op.job = job.release();
  jobs_++;
  if (op.handle != nullptr) op.handle->pool_jobs++;
}

void IocpPort::OnJob(FileJob& done) {
  const std::unique_ptr<FileJob> job(&done);
  Operation* op = FindOperation(job->slot, job->generation);
  CP_ASSERT(op != nullptr && op->state == OperationState::kKernel && op->job == job.get());
  op->job = nullptr;
  jobs_--;
  if (Handle* handle = op->handle) {
    CP_ASSERT(handle->pool_jobs > 0);
    // Where the handle was closed meanwhile, and left to the last of its jobs.
    if (--handle->pool_jobs == 0 && handle->os == kOsHandleNone) ::CloseHandle(job->request.file);
  }
  if (op->kind == Opcode::kOpen) return EndedOpen(*op, static_cast<OsHandle>(job->outcome.result));
  EndedFile(*op, job->outcome);
}

void IocpPort::EndedFile(Operation& op, const Outcome& outcome) {
  const bool moves = op.kind == Opcode::kRead || op.kind == Opcode::kWrite || op.kind == Opcode::kReadv || op.kind == Opcode::kWritev;
  if (outcome.native_code == ERROR_HANDLE_EOF) return Ended(op, {0, 0});
  // The handle isn't open for this direction: the file's own permissions were asked when it was opened. "The file handle must have the GENERIC_WRITE
  // access right" for FlushFileBuffers, too.
  const bool flushes = op.kind == Opcode::kSync || op.kind == Opcode::kDatasync;
  if ((moves || flushes) && outcome.native_code == ERROR_ACCESS_DENIED && op.ended_by != EndedBy::kClose) {
    op.state = OperationState::kWaiting;
    op.ended_by = EndedBy::kNone;
    return Complete(op, Status::kEBADF, ERROR_ACCESS_DENIED);
  }
  Ended(op, outcome);
}

void IocpPort::EndedOpen(Operation& op, OsHandle result) {
  op.state = OperationState::kWaiting;
  if (result >= 0) return CompleteWithHandle(op, HandleKind::kFile, result, nullptr, Appends(op.extra->open_flags));
  if (result == os::kNotAFile) return Complete(op, Status::kERR_NOT_A_FILE, 0);
  if (result == os::kIsDirectory) return Complete(op, Status::kEISDIR, kDirectoryCode);
  Report(op, {0, static_cast<int32_t>(-result)});
}

// ---- cancels --------------------------------------------------------------------------------------------------------------

void IocpPort::RequestCancel(Operation& op) {
  if (op.route == Route::kPool) {
    auto* job = static_cast<FileJob*>(op.job);
    if (StallMs() > 0 && op.kind == Opcode::kSync) return;  // the test's operation that can't be cancelled
    if (job == nullptr || !pool::Withdraw(*job)) return;    // it runs, and can't be stopped; its own result comes
    const std::unique_ptr<FileJob> taken(job);
    op.job = nullptr;
    jobs_--;
    if (op.handle != nullptr) op.handle->pool_jobs--;
    return Ended(op, {0, CanceledCode()});
  }
  auto* request = static_cast<Request*>(op.job);
  if (request == nullptr || op.handle == nullptr || op.handle->os == kOsHandleNone) return;
  CancelRequest(FileOf(op.handle->os), &request->overlapped);
}

// ---- driving --------------------------------------------------------------------------------------------------------------

int IocpPort::Flush(bool reap) {
  if (shared_) {
    if (!backlog_.empty()) kick_wanted_ = true;
    return 0;
  }
  last_error_ = 0;
  if (!backlog_.empty()) Pump();
  if (reap && (kernel_ > 0 || jobs_ > 0)) {
    ReapAll();
  }
  return last_error_;
}

int IocpPort::Wait(double timeout_ms) {
  last_error_ = 0;
  const uint32_t before = in_kernel_;
  if (!backlog_.empty()) Pump();
  if (in_kernel_ != before) timeout_ms = 0;
  Reap(timeout_ms);
  if (!backlog_.empty()) Pump();
  return last_error_;
}

bool IocpPort::Notify(bool on) {
  notifying_ = on;
  if (on)
    Arm();
  else
    CallBack();
  return false;
}

// What has finished is in the queue before the post. Of a shared port only the driver takes from the kernel.
bool IocpPort::Settle() {
  if (kernel_ == 0 && jobs_ == 0) return true;
  if (!SomethingFinished()) return true;
  if (shared_) return on_driver();
  ReapAll();
  return true;
}

void IocpPort::Kick() {
  while (!PostQueuedCompletionStatus(port_, 0, kKeyKick, nullptr)) Sleep(1);
}

void IocpPort::Finish() {
  while (in_kernel_ > 0) Wait(50);
}

// ---- the event loop -------------------------------------------------------------------------------------------------------

void IocpPort::SetWaker(std::function<void()> wake) {
  std::lock_guard lock(helper_mutex_);
  waker_ = std::move(wake);
}

void IocpPort::RaiseNotification() {
  std::lock_guard lock(helper_mutex_);
  if (waker_) waker_();
}

void IocpPort::HelperMain() {
  OVERLAPPED_ENTRY entries[kTakenMax];
  std::unique_lock lock(helper_mutex_);
  for (;;) {
    helper_wanted_.wait(lock, [this] { return armed_ || helper_ends_; });
    if (helper_ends_) return;
    taking_ = true;
    lock.unlock();
    ULONG count = 0;
    if (!GetQueuedCompletionStatusEx(port_, entries, kTakenMax, &count, INFINITE, FALSE)) count = 0;
    lock.lock();
    taking_ = false;
    const size_t before = taken_.size();
    for (ULONG i = 0; i < count; i++)
      if (entries[i].lpCompletionKey != kKeyKick) taken_.push_back(entries[i]);
    const bool any = taken_.size() > before;
    // A call back that came late finds nobody in the kernel; the next one who takes passes over its packet.
    if (any || called_back_) armed_ = false;
    if (any) {
      wakeups_.fetch_add(1, std::memory_order_relaxed);
      if (waker_) waker_();
    }
    helper_back_.notify_all();
  }
}

void IocpPort::Arm() {
  std::lock_guard lock(helper_mutex_);
  if (!helper_.joinable()) helper_ = std::thread([this] { HelperMain(); });
  armed_ = true;
  helper_wanted_.notify_one();
}

// Nobody but the caller takes packets from here on.
void IocpPort::CallBack() {
  std::unique_lock lock(helper_mutex_);
  if (taking_) {
    called_back_ = true;
    Kick();
    helper_back_.wait(lock, [this] { return !taking_; });
    called_back_ = false;
  }
  armed_ = false;
}

// ---- threads --------------------------------------------------------------------------------------------------------------

namespace {

uint64_t CyclesOf(HANDLE thread) {
  ULONG64 cycles = 0;
  return QueryThreadCycleTime(thread, &cycles) ? cycles : 0;
}

// Whether this system counts the cycles of another thread that computes: Wine 8 answers, and doesn't.
bool CyclesCount() {
  static const bool counts = [] {
    std::atomic<DWORD> id{0};
    std::atomic<bool> ends{false};
    std::thread busy([&] {
      id.store(GetCurrentThreadId());
      while (!ends.load()) {
      }
    });
    while (id.load() == 0) SwitchToThread();
    bool grows = false;
    if (const HANDLE handle = OpenThread(THREAD_QUERY_LIMITED_INFORMATION, FALSE, id.load())) {
      const uint64_t before = CyclesOf(handle);
      for (int tries = 0; tries < 5 && !grows; tries++) {
        Sleep(1);
        grows = before != 0 && CyclesOf(handle) > before;
      }
      CloseHandle(handle);
    }
    ends.store(true);
    busy.join();
    return grows;
  }();
  return counts;
}

}  // namespace

// A thread that has used no cycle between two samples is blocked, or kept from running by others: either way the port's packets don't run on it.
ThreadSample IocpPort::SampleThread(uint64_t thread) {
  if (!CyclesCount()) return {};
  const HANDLE handle = OpenThread(THREAD_QUERY_LIMITED_INFORMATION, FALSE, static_cast<DWORD>(thread));
  if (handle == nullptr) return {};
  const uint64_t cycles = CyclesOf(handle);
  ::CloseHandle(handle);
  return {cycles != 0, true, cycles};
}

// ---- handles --------------------------------------------------------------------------------------------------------------

int IocpPort::BindHandle(Handle& handle) {
  if (CreateIoCompletionPort(FileOf(handle.os), port_, kKeyRequest, 0) == port_) return 0;
  return -static_cast<int>(GetLastError());
}

void IocpPort::ReleaseHandle(Handle& handle, bool, bool reset) {
  if (handle.kind == HandleKind::kFile) {
    if (handle.pool_jobs == 0) ::CloseHandle(FileOf(handle.os));  // else behind the last of them
    return;
  }
  if (handle.kind == HandleKind::kSocket && reset) LingerNot(SocketOf(handle));
  closesocket(SocketOf(handle));
}

void IocpPort::CloseOs(HandleKind kind, OsHandle os) {
  if (kind == HandleKind::kFile)
    ::CloseHandle(FileOf(os));
  else
    closesocket(static_cast<SOCKET>(os));
}

void IocpPort::ShutdownDirection(Handle& handle, int how, Outcome& outcome) {
  const int direction = how == 0 ? SD_SEND : how == 1 ? SD_RECEIVE : SD_BOTH;
  if (shutdown(SocketOf(handle), direction) != 0) {
    outcome.native_code = WSAGetLastError();
    return;
  }
  // A recv that waits doesn't hear of it: its end is asked for, and read as 0 bytes (core, Handle::read_shut).
  Operation* reader = how == 0 ? nullptr : handle.receiving.head();
  if (reader != nullptr && reader->state == OperationState::kKernel && reader->job != nullptr)
    CancelRequest(FileOf(handle.os), &static_cast<Request*>(reader->job)->overlapped);
}

// ---- errors ---------------------------------------------------------------------------------------------------------------

Status IocpPort::MapError(int32_t code) const { return MapWin32(static_cast<uint32_t>(code)); }
bool IocpPort::Transient(int32_t) const { return false; }
bool IocpPort::IsCanceled(int32_t code) const { return code == ERROR_OPERATION_ABORTED; }
bool IocpPort::IsReset(int32_t code) const { return MapError(code) == Status::kECONNRESET; }
bool IocpPort::IsStreamFatal(int32_t code) const { return win::IsStreamFatal(static_cast<uint32_t>(code)); }
bool IocpPort::IsOutOfDescriptors(int32_t code) const {
  const Status status = MapError(code);
  return status == Status::kEMFILE || status == Status::kENOBUFS || status == Status::kENOMEM;
}
// An AcceptEx whose peer has left in the backlog ends with "the specified network name is no longer available"; Wine 8 says "an unexpected network
// error occurred" (seen).
bool IocpPort::IsAborted(int32_t code) const {
  if (code == ERROR_UNEXP_NET_ERR) return true;
  const Status status = MapError(code);
  return status == Status::kECONNRESET || status == Status::kECONNABORTED;
}

// ---- figures --------------------------------------------------------------------------------------------------------------

void IocpPort::BackendStats(Control& control) {
  control.stats[kStatEnters] = static_cast<double>(enters_);
  control.stats[kStatArenaRegistered] = 0;
  control.stats[kStatRingEntries] = 0;
  control.stats[kStatCqEntries] = 0;
  control.stats[kStatBacklog] = static_cast<double>(backlog_.size());
}

}  // namespace cp::win
