// See reactor_port.h. Facts: recv(2), send(2), accept(2), connect(2), tcp(7), epoll(7) (questions 9 and 10: a call that moved less than it was
// asked to has found a stream exhausted).
#include "posix/reactor_port.h"

#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <new>
#include <utility>

#include "core/test_hooks.h"
#include "posix/errors.h"
#include "posix/sockets.h"

namespace cp::posix {

namespace {

constexpr size_t kEventsMax = 256;               // that one call takes
constexpr uint32_t kSettleTakesMax = 4096;       // such calls before a post: more than there can be descriptors with something new
constexpr uint32_t kTriesMax = 512;              // operations of the backlog in a turn, or all that are there when it begins
constexpr uint64_t kTurnBytesMax = 4u << 20;     // moved in a turn: a copy of so many takes about a millisecond
constexpr uint64_t kSendBytesMax = 1u << 20;     // in one call, which a reader on another processor could keep going for long
constexpr uint64_t kRecvBytesMax = 8u << 20;     // more than a socket holds, so that a recv isn't cut short by it
constexpr uint64_t kReadNowBytesMax = 1u << 20;  // of a file, on the caller's own thread; the pool moves what is larger
constexpr uint64_t kCopyBytesMax = 1u << 20;     // what a pool thread moves at once: a copy of so many takes some 0.1 ms
constexpr std::align_val_t kCopyAlignment{4096};
constexpr uint8_t kToldOnce = kEnded | kUrgent;  // with these a short call says nothing about the next

uint64_t TokenOf(const Handle& handle) { return uint64_t{handle.last_generation} << 32 | handle.index; }

Readiness DirectionOf(const Operation& op) { return op.kind == Opcode::kRecv || op.kind == Opcode::kAccept ? kReadable : kWritable; }

bool WouldBlock(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

bool Reads(Opcode kind) { return kind == Opcode::kRead || kind == Opcode::kReadv; }
bool Writes(Opcode kind) { return kind == Opcode::kWrite || kind == Opcode::kWritev; }

uint64_t Length(const FileRequest& request) {
  if (request.vector == nullptr) return request.length;
  uint64_t sum = 0;
  for (int i = 0; i < request.segments; i++) sum += request.vector[i].iov_len;
  return sum;
}

// Between the request's memory, from its byte `at` on, and `own`: into it for a read, out of it for a write.
void CopyBytes(const FileRequest& request, uint64_t at, std::byte* own, size_t bytes) {
  const iovec one = {request.data, request.length};
  const iovec* segment = request.vector != nullptr ? request.vector : &one;
  while (bytes > 0) {
    if (at >= segment->iov_len) {
      at -= segment++->iov_len;
      continue;
    }
    auto* const memory = static_cast<std::byte*>(segment->iov_base) + at;
    const size_t count = std::min<size_t>(segment->iov_len - at, bytes);
    Reads(request.kind) ? std::memcpy(memory, own, count) : std::memcpy(own, memory, count);
    own += count;
    bytes -= count;
    at += count;
  }
}

// What a pool thread copies through. O_DIRECT wants aligned memory; what is given to the port is (open(2), NOTES).
class CopyMemory {
 public:
  CopyMemory() = default;
  ~CopyMemory() { ::operator delete(data_, kCopyAlignment); }
  CopyMemory(const CopyMemory&) = delete;
  CopyMemory& operator=(const CopyMemory&) = delete;

  std::byte* data() const { return data_; }
  // So many bytes, with anything in them. False: no memory.
  bool Provide(size_t bytes) {
    if (data_ != nullptr && bytes <= size_) return true;
    ::operator delete(data_, kCopyAlignment);
    data_ = static_cast<std::byte*>(::operator new(bytes, kCopyAlignment, std::nothrow));
    size_ = data_ != nullptr ? bytes : 0;
    return data_ != nullptr;
  }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};
// Of this pool thread, for one job after the other, kCopyBytesMax at most: memory that is new to the process for each costs a page fault for every
// page of it, five to ten times as much as the write.
thread_local CopyMemory own_memory;

// The descriptor of a file whose port has ended before the last of the jobs that use it.
struct Descriptor {
  explicit Descriptor(int fd_) : fd(fd_) {}
  ~Descriptor() { close(fd); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  const int fd;
};

}  // namespace

struct ReactorPort::Channel {
  explicit Channel(Poller& poller_) : poller(poller_) {}
  Poller& poller;  // used under the mutex, for a job that the port has not let go of: the port is there
  std::mutex mutex;
  std::condition_variable copied;
  std::vector<FileJob*> done;
};

struct ReactorPort::FileJob final : pool::Job {
  uint32_t slot = 0;
  uint32_t generation = 0;
  Handle* handle = nullptr;  // the port's business; null: an open
  FileRequest request;
  uint64_t length = 0;           // of all its segments: their list is the operation's
  std::unique_ptr<char[]> path;  // what request.path points to
  std::shared_ptr<Channel> channel;
  FileJob* previous_abandoned = nullptr;
  FileJob* next_abandoned = nullptr;
  Outcome outcome;
  // Under the channel's mutex.
  bool copying = false;    // the operation's memory is in use
  bool abandoned = false;  // … and isn't the job's any more: the operation has ended
  bool alone = false;      // the port has let go of it: it ends by itself
  bool finished = false;   // in Channel::done
  uint64_t moved = 0;      // bytes so far
  std::shared_ptr<Descriptor> descriptor;

  void Run() override {
    const std::shared_ptr<Channel> kept = channel;
    outcome = Work();
    std::shared_ptr<Descriptor> last;  // closed without the mutex
    {
      std::lock_guard lock(kept->mutex);
      if (!alone) {
        finished = true;
        const bool first = kept->done.empty();
        kept->done.push_back(this);
        if (first) kept->poller.Wake();
        return;
      }
      last = std::move(descriptor);
    }
    CloseOpened();
    delete this;
  }

  // What an open has made that nobody wants.
  void CloseOpened() const {
    if (request.kind == Opcode::kOpen && outcome.native_code == 0 && outcome.result >= 0) close(static_cast<int>(outcome.result));
  }

 private:
  Outcome Work() {
    const bool reads = Reads(request.kind);
    if (!reads && !Writes(request.kind)) return Copy(0, nullptr, 0) ? Perform(request) : Lost();
    // An append is one write, or others' bytes could come in between.
    const uint64_t room = !reads && request.append ? length : std::min(length, kCopyBytesMax);
    CopyMemory large;
    CopyMemory& memory = room > kCopyBytesMax ? large : own_memory;
    if (!memory.Provide(static_cast<size_t>(room))) return {0, ENOMEM};
    FileRequest part = request;
    part.kind = reads ? Opcode::kRead : Opcode::kWrite;
    part.data = memory.data();
    for (uint64_t done = 0;;) {
      part.length = static_cast<size_t>(std::min(room, length - done));
      part.position = request.position + static_cast<int64_t>(done);
      if (!Copy(done, part.data, reads ? 0 : part.length)) return Lost();
      const Outcome one = Perform(part);
      // What was moved before an error counts; the next try meets the error again.
      if (one.native_code != 0) return done > 0 ? Outcome{static_cast<int64_t>(done), 0} : one;
      const auto bytes = static_cast<size_t>(one.result);
      if (reads && !Copy(done, part.data, bytes)) return Lost();
      done += bytes;
      {
        std::lock_guard lock(channel->mutex);
        moved = done;
      }
      if (bytes < part.length || done >= length) return {static_cast<int64_t>(done), 0};
    }
  }

  // Copies between the operation's memory from its byte `at` on and memory of the job's own, by kCopyBytesMax: for so long Abandon waits. False:
  // the operation's memory isn't the job's any more.
  bool Copy(uint64_t at, std::byte* own, size_t bytes) {
    std::unique_lock lock(channel->mutex);
    for (size_t count; bytes > 0 && !abandoned; at += count, own += count, bytes -= count) {
      count = static_cast<size_t>(std::min<uint64_t>(bytes, kCopyBytesMax));
      copying = true;
      lock.unlock();
      CopyBytes(request, at, own, count);
      lock.lock();
      copying = false;
    }
    if (abandoned) channel->copied.notify_all();
    return !abandoned;
  }

  static Outcome Lost() { return {0, ECANCELED}; }
};

// ---- making and ending ----------------------------------------------------------------------------------------------------

std::unique_ptr<ReactorPort> ReactorPort::Create(const PortOptions& options, const char* name, MakePoller make, CreateError* error) {
  if (IsDisabled(options.disable, name)) {
    *error = {EPERM, std::string(name) + " is switched off by COMPLETION_PORT_DISABLE"};
    return nullptr;
  }
  std::unique_ptr<ReactorPort> port(new (std::nothrow) ReactorPort(options, name, make));
  if (!port) *error = {ENOMEM, ExplainShortage(ENOMEM)};
  if (!port || !port->Start(error)) return nullptr;
  return port;
}

bool ReactorPort::Open(CreateError* error) {
  poller_ = make_(error);
  if (!poller_) return false;
  channel_.reset(new (std::nothrow) Channel(*poller_));
  if (!channel_) {
    *error = {ENOMEM, ExplainShortage(ENOMEM)};
    return false;
  }
  reads_now_ = HasReadNow() && !IsDisabled(options_.disable, "read_nowait");
  return true;
}

ReactorPort::~ReactorPort() {
  JoinDriver();
  CP_ASSERT(jobs_ == 0 && armed_ == 0);
}

std::vector<std::pair<std::string, bool>> ReactorPort::features() const {
  auto all = poller_->features();
  all.emplace_back("read_nowait", reads_now_);
  return all;
}

// The driver of a shared port. What it waits for it doesn't take: that is done under the mutex, by whoever comes first.
void ReactorPort::Drive() {
  for (;;) {
    double wait;
    {
      Lock lock(*this);
      EndDriverWait();
      if (!backlog_.empty()) Pump();
      Reap(0);
      wait = DriverTurn();
      if (wait < 0) return;
      // What timers have begun is tried before DriverTurn says anew how long to wait: a try may arm a timer (a listener's pause).
      if (!backlog_.empty()) wait = 0;
      poller_->Submit();
      kick_wanted_ = false;
      enters_++;
      BeginDriverWait();
    }
    if (wait > 0) poller_->WaitReady(wait);
  }
}

// ---- turns ----------------------------------------------------------------------------------------------------------------

void ReactorPort::Begin(Operation& op) {
  CP_DEBUG_ASSERT(op.state == OperationState::kWaiting);
  if (op.kind == Opcode::kRecv || op.kind == Opcode::kAccept || op.kind == Opcode::kSend || op.kind == Opcode::kSendv) {
    const Readiness direction = DirectionOf(op);
    Handle& handle = *op.handle;
    if ((handle.ready & direction) == 0) {
      if (poller_->Arm(static_cast<int>(handle.os), TokenOf(handle), direction) == 0) {
        MarkInKernel(op, Route::kKernel);
        armed_++;
        return;
      }
      handle.ready |= direction;  // its try tells, and if it has to wait, fails with what Arm says then
    }
  }
  op.backlogged = true;
  backlog_.Push(op);
}

void ReactorPort::Withdraw(Operation& op) {
  backlog_.Remove(op);
  op.backlogged = false;
}

// Tries what was begun. What that begins (the next of a line, the rest of a send) goes behind the others.
void ReactorPort::Pump() {
  turn_bytes_ = 0;
  for (uint32_t left = std::max(backlog_.size(), kTriesMax); left > 0 && !backlog_.empty() && turn_bytes_ < kTurnBytesMax; left--) {
    Operation& op = *backlog_.head();
    Withdraw(op);
    Try(op);
  }
}

// Takes what the poller has, and what pool threads have done; waits for the first up to timeout_ms.
void ReactorPort::Reap(double timeout_ms, uint32_t takes_max) {
  ReadyEvent events[kEventsMax];
  skipped_ = false;
  for (uint32_t takes = 0; takes < takes_max; takes++) {
    if (!shared_) enters_++;
    const int count = poller_->Take(events, timeout_ms);
    if (count < 0) {
      last_error_ = count;
      break;
    }
    for (int i = 0; i < count; i++) OnEvent(events[i]);
    if (static_cast<size_t>(count) < kEventsMax) break;
    timeout_ms = 0;
  }
  if (jobs_ > 0) DrainJobs();
}

void ReactorPort::OnEvent(const ReadyEvent& event) {
  if (event.token == Poller::kTokenLoop) return;
  if (event.token == Poller::kTokenWake) {
    // The driver's call, taken out of its hands: where it isn't waiting yet, it would sleep over it, and nobody calls twice.
    if (shared_ && !on_driver()) poller_->Wake();
    return;
  }
  Handle* found = HandleTable::Process().Find(static_cast<uint32_t>(event.token), static_cast<uint32_t>(event.token >> 32));
  if (found == nullptr || found->port.load(std::memory_order_relaxed) != this) return;  // closed since
  Handle& handle = *found;
  if (event.error != 0) {
    const Outcome refused = {0, -event.error};
    Operation* writer = handle.connecting != nullptr ? handle.connecting : handle.sending.head();
    Operation* reader = handle.receiving.head();
    if ((event.ready & kReadable) != 0 && reader != nullptr && reader->state == OperationState::kKernel) Ended(*reader, refused);
    if ((event.ready & kWritable) != 0 && writer != nullptr && writer->state == OperationState::kKernel) Ended(*writer, refused);
    return;
  }
  // Before it is connected a socket looks hung up (epoll_ctl(2), EPOLLHUP): what it was then says nothing of what it is later.
  if (handle.connecting != nullptr) {
    TryConnect(*handle.connecting);
    if (handle.connecting != nullptr) return;
  }
  handle.ready |= event.ready;
  Operation* reader = handle.receiving.head();
  if ((handle.ready & kReadable) != 0 && reader != nullptr && reader->state == OperationState::kKernel) Try(*reader);
  Operation* writer = handle.sending.head();
  if ((handle.ready & kWritable) != 0 && writer != nullptr && writer->state == OperationState::kKernel) Try(*writer);
}

// Something came where the event loop had been told that there was nothing, or a call for it was taken out of the poller by a turn that isn't
// the event loop's: it looks again. Of a private port, at the end of whatever may have taken from the poller.
void ReactorPort::RaiseIfWanted() {
  if (!shared_ && (raised_ || (notifying_ && (has_wanted() || !backlog_.empty())))) poller_->Wake();
}

// ---- sockets --------------------------------------------------------------------------------------------------------------

// One call of an operation in the backlog or armed. It ends, goes on behind the others, or waits for the poller.
void ReactorPort::Try(Operation& op) {
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

void ReactorPort::TryRecv(Operation& op) {
  Handle& handle = *op.handle;
  const int fd = static_cast<int>(handle.os);
  // A zero-length recv waits for data or the end and takes none: a look tells which it is. An error is told once (SO_ERROR), so Report keeps it.
  std::byte byte;
  const bool looks = op.length == 0;
  const size_t wanted = looks ? 1 : static_cast<size_t>(std::min(op.length, kRecvBytesMax));
  ssize_t result;
  do {
    result = recv(fd, looks ? &byte : op.data, wanted, looks ? MSG_PEEK | MSG_DONTWAIT : MSG_DONTWAIT);
  } while (result < 0 && errno == EINTR);
  if (result < 0) {
    if (WouldBlock(errno)) return Exhausted(op);
    return Ended(op, {0, errno});
  }
  if (looks) return Ended(op, {0, 0});
  turn_bytes_ += static_cast<uint64_t>(result);
  // The end (0) stays: it is what every later recv finds.
  if (result > 0 && static_cast<size_t>(result) < wanted && (handle.ready & kToldOnce) == 0) handle.ready &= ~kReadable;
  Ended(op, {result, 0});
}

void ReactorPort::TrySend(Operation& op) {
  Handle& handle = *op.handle;
  const int fd = static_cast<int>(handle.os);
  const uint64_t wanted = std::min(op.length - op.done, kSendBytesMax);
  if (op.kind == Opcode::kSendv && !MakeVectorRoom(op)) return Ended(op, {0, ENOMEM});
  ssize_t result;
  do {
    if (op.kind == Opcode::kSend) {
      result = send(fd, op.data + op.done, static_cast<size_t>(wanted), kNoSignal | MSG_DONTWAIT);
    } else {
      msghdr message{};
      message.msg_iovlen = static_cast<decltype(message.msg_iovlen)>(FillVector(op, wanted));
      message.msg_iov = VectorOf(op);
      result = sendmsg(fd, &message, kNoSignal | MSG_DONTWAIT);
    }
  } while (result < 0 && errno == EINTR);
  if (result < 0) {
    if (WouldBlock(errno)) return Exhausted(op);
    return Ended(op, {0, errno});
  }
  turn_bytes_ += static_cast<uint64_t>(result);
  if (static_cast<uint64_t>(result) < wanted && (handle.ready & kToldOnce) == 0) handle.ready &= ~kWritable;
  Ended(op, {result, 0});
}

Outcome ReactorPort::MoveNow(Handle& handle, bool sending, std::byte* data, size_t bytes) {
  const Outcome outcome = PosixPort::MoveNow(handle, sending, data, bytes);
  if (outcome.result > 0 && static_cast<size_t>(outcome.result) < bytes && (handle.ready & kToldOnce) == 0)
    handle.ready &= ~(sending ? kWritable : kReadable);
  return outcome;
}

void ReactorPort::TryAccept(Operation& op) {
  AddressEntry peer{};
  int fd;
  do {
    fd = Accept(static_cast<int>(op.handle->os), &peer);
  } while (fd == -EINTR);
  if (WouldBlock(-fd)) return Exhausted(op);
  if (fd < 0) return Ended(op, {0, -fd});
  if (op.state == OperationState::kKernel) armed_--;
  op.state = OperationState::kWaiting;
  CompleteWithHandle(op, HandleKind::kSocket, fd, peer.family != 0 ? &peer : nullptr, false);
}

void ReactorPort::TryConnect(Operation& op) {
  Handle& handle = *op.handle;
  const int fd = static_cast<int>(handle.os);
  int error = 0;
  if (op.state == OperationState::kKernel) {
    error = ConnectResult(fd);
  } else if (handle.connecting != nullptr) {
    // Not asked of the kernel: a second connect(2) takes the error of the first away, or success where its own address wasn't reached.
    error = EALREADY;
  } else if (handle.connection == Connection::kConnected) {
    // Linux says 0 to the first connect of a socket whose connection was made in the background (connect(2), EINPROGRESS).
    error = EISCONN;
  } else {
    sockaddr_storage address;
    const socklen_t length = ToSockaddr(op.extra->address, &address);
    // Interrupted it goes on by itself (connect(2), EINTR), as where it would block.
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), length) != 0) error = errno == EINTR ? EINPROGRESS : errno;
  }
  if (error == EINPROGRESS) return Exhausted(op);
  // What was seen of the socket before it was connected is over.
  if (error == 0) handle.ready = kReadable | kWritable;
  Ended(op, {0, error});
}

// The operation has to wait for the poller.
void ReactorPort::Exhausted(Operation& op) {
  Handle& handle = *op.handle;
  const Readiness direction = DirectionOf(op);
  handle.ready &= ~direction;
  const int error = poller_->Arm(static_cast<int>(handle.os), TokenOf(handle), direction);
  if (error != 0) return Ended(op, {0, -error});
  if (op.state == OperationState::kKernel) return;
  MarkInKernel(op, Route::kKernel);
  armed_++;
  if (op.kind == Opcode::kConnect) {
    CP_ASSERT(handle.connecting == nullptr);  // TryConnect has refused a second one
    handle.connecting = &op;
  }
}

void ReactorPort::Ended(Operation& op, const Outcome& outcome) {
  if (op.state == OperationState::kKernel) armed_--;
  if (op.kind == Opcode::kConnect && op.handle->connecting == &op) op.handle->connecting = nullptr;
  Report(op, outcome);
}

// ---- files ----------------------------------------------------------------------------------------------------------------

// What is in memory is read at once; all else is the pool's.
void ReactorPort::TryFile(Operation& op) {
  const bool reads = Reads(op.kind);
  FileRequest request;
  if (!Describe(op, &request)) {
    MarkInKernel(op, Route::kPool);
    return Report(op, {0, ENOMEM});
  }
  if (reads && reads_now_ && !op.handle->reads_wait && op.length - op.done <= kReadNowBytesMax && op.length > op.done) {
    const int64_t result = ReadNow(request);
    if (result > 0) {
      turn_bytes_ += static_cast<uint64_t>(result);
      MarkInKernel(op, Route::kKernel);
      return Report(op, {result, 0});
    }
    if (result == -ENOTSUP) op.handle->reads_wait = true;
  }
  StartJob(op);
}

// False: no memory.
bool ReactorPort::Describe(Operation& op, FileRequest* request) {
  request->kind = op.kind;
  if (op.kind == Opcode::kOpen) {
    request->path = op.extra->path.data();
    request->open_flags = op.extra->open_flags;
    request->open_mode = op.extra->open_mode;
    return true;
  }
  request->fd = static_cast<int>(op.handle->os);
  request->append = op.handle->append;
  request->position = op.kind == Opcode::kTruncate ? op.position : static_cast<int64_t>(FilePosition(op));
  if (op.kind == Opcode::kReadv || op.kind == Opcode::kWritev) {
    if (!MakeVectorRoom(op)) return false;
    request->segments = static_cast<int>(FillVector(op));
    request->vector = VectorOf(op);
  } else if (op.data != nullptr) {
    request->data = op.data + op.done;
    request->length = static_cast<size_t>(op.length - op.done);
  }
  return true;
}

void ReactorPort::StartJob(Operation& op) {
  std::unique_ptr<FileJob> job(new (std::nothrow) FileJob);
  MarkInKernel(op, Route::kPool);
  if (!job || !Describe(op, &job->request)) return Report(op, {0, ENOMEM});
  job->length = Length(job->request);
  if (op.kind == Opcode::kOpen) {
    const size_t bytes = op.extra->path.size();
    job->path.reset(new (std::nothrow) char[bytes]);
    if (!job->path) return Report(op, {0, ENOMEM});
    std::memcpy(job->path.get(), op.extra->path.data(), bytes);
    job->request.path = job->path.get();
  }
  job->slot = SlotOf(op);
  job->generation = op.generation;
  job->handle = op.handle;
  job->channel = channel_;
  if (!pool_.Submit(*job))
    return Report(op, {0, ENOMEM});  // what a thread lacks; not its EAGAIN, which would have Report begin it again, and again
  op.job = job.release();
  jobs_++;
  if (op.handle != nullptr) op.handle->pool_jobs++;
}

// The pool has done with it, and with its descriptor.
void ReactorPort::LetGo(FileJob& job) {
  jobs_--;
  Handle* handle = job.handle;
  if (handle == nullptr) return;
  CP_ASSERT(handle->pool_jobs > 0);
  if (--handle->pool_jobs > 0) return;
  // Where the handle was closed meanwhile, and its descriptor left to the last of its jobs.
  if (handle->os == kOsHandleNone && !job.descriptor) close(job.request.fd);
}

void ReactorPort::DrainJobs() {
  std::vector<FileJob*> done;
  {
    std::lock_guard lock(channel_->mutex);
    done.swap(channel_->done);
  }
  for (FileJob* each : done) {
    const std::unique_ptr<FileJob> job(each);
    LetGo(*job);
    if (job->abandoned) {
      Unlist(*job);
      job->CloseOpened();
      if (job->handle != nullptr) FreeIfIdle(*job->handle);
      continue;
    }
    Operation* op = FindOperation(job->slot, job->generation);
    CP_ASSERT(op != nullptr && op->state == OperationState::kKernel && op->job == each);
    op->job = nullptr;
    if (op->kind == Opcode::kOpen)
      EndedOpen(*op, static_cast<int>(job->outcome.result), true);
    else
      Report(*op, job->outcome);
  }
}

// ---- jobs that outlive their operations -----------------------------------------------------------------------------------

bool ReactorPort::Abandon(Operation& op) {
  auto& job = *static_cast<FileJob*>(op.job);
  uint64_t moved = 0;
  {
    std::unique_lock lock(channel_->mutex);
    if (job.finished) {
      lock.unlock();
      DrainJobs();
      return true;
    }
    job.abandoned = true;
    channel_->copied.wait(lock, [&] { return !job.copying; });
    moved = job.moved;
  }
  job.next_abandoned = abandoned_;
  if (abandoned_ != nullptr) abandoned_->previous_abandoned = &job;
  abandoned_ = &job;
  op.job = nullptr;
  Report(op, moved > 0 ? Outcome{static_cast<int64_t>(moved), 0} : Outcome{0, CanceledCode()});
  return true;
}

void ReactorPort::Unlist(FileJob& job) {
  (job.previous_abandoned != nullptr ? job.previous_abandoned->next_abandoned : abandoned_) = job.next_abandoned;
  if (job.next_abandoned != nullptr) job.next_abandoned->previous_abandoned = job.previous_abandoned;
}

void ReactorPort::LetGoOfJobs() {
  if (jobs_ > 0) DrainJobs();
  std::vector<Handle*> left;
  {
    std::lock_guard lock(channel_->mutex);
    // The last job that uses a descriptor closes it, whether the port still sees its end or not.
    for (FileJob* job = abandoned_; job != nullptr; job = job->next_abandoned) {
      if (job->finished || job->handle == nullptr || job->descriptor) continue;
      const auto descriptor = std::make_shared<Descriptor>(job->request.fd);
      for (FileJob* other = abandoned_; other != nullptr; other = other->next_abandoned)
        if (other->handle == job->handle) other->descriptor = descriptor;
      left.push_back(job->handle);
    }
    for (FileJob* job = abandoned_; job != nullptr;) {
      FileJob& each = *job;
      job = job->next_abandoned;
      if (each.finished) continue;
      each.alone = true;
      jobs_--;
      if (each.handle != nullptr) each.handle->pool_jobs--;
      Unlist(each);
    }
  }
  for (Handle* handle : left) {
    handle->os = kOsHandleNone;
    FreeIfIdle(*handle);  // where it was closed before
  }
  if (jobs_ > 0) DrainJobs();
}

// ---- cancels --------------------------------------------------------------------------------------------------------------

void ReactorPort::RequestCancel(Operation& op) {
  if (op.route == Route::kPool) {
    auto* job = static_cast<FileJob*>(op.job);
    if (StallMs() > 0 && op.kind == Opcode::kSync) return;  // the test's operation that can't be cancelled
    if (!pool::Withdraw(*job)) return;                      // it runs, and can't be stopped; its own result comes
    const std::unique_ptr<FileJob> taken(job);
    op.job = nullptr;
    LetGo(*job);
    return Report(op, {0, CanceledCode()});
  }
  // Time may have run out, or the cancel come, while nobody looked: what was there by then counts, as where a kernel completes operations by
  // itself.
  if (op.ended_by != EndedBy::kClose && !closing_) {
    Try(op);
    if (op.state != OperationState::kKernel) return;
  }
  Ended(op, {0, CanceledCode()});
}

// ---- driving --------------------------------------------------------------------------------------------------------------

int ReactorPort::Flush(bool reap) {
  last_error_ = 0;
  const uint32_t before = in_kernel_;
  if (!backlog_.empty()) Pump();
  if (reap && (armed_ > 0 || jobs_ > 0)) {
    // Only where that leaves a get something to take: one that doesn't wait must find what has been there for long.
    const bool queued = has_queued(kEnterWantUser);
    if (queued && !looked_ && in_kernel_ != before && !skipped_)
      skipped_ = true;
    else if (!queued || !looked_)
      Reap(0);
    looked_ = false;
  }
  if (shared_ && !backlog_.empty()) kick_wanted_ = true;
  poller_->Submit();
  RaiseIfWanted();
  return last_error_;
}

int ReactorPort::Wait(double timeout_ms) {
  last_error_ = 0;
  const uint32_t before = in_kernel_;
  if (!backlog_.empty()) Pump();
  looked_ = false;
  if (in_kernel_ != before && !skipped_) {
    skipped_ = true;
    return 0;
  }
  if (in_kernel_ != before || !backlog_.empty()) timeout_ms = 0;
  Reap(timeout_ms);
  return last_error_;
}

// The poller's own descriptor tells the event loop of everything but what is left in the backlog.
bool ReactorPort::Notify(bool on) {
  notifying_ = on;
  if (!on) return false;
  poller_->Submit();
  if (!backlog_.empty()) poller_->Wake();
  return false;
}

// On the port's own thread, when its event loop has seen the descriptor: it stays readable until its events are taken, whether anybody waits
// for packets or not.
void ReactorPort::Look() {
  wakeups_.fetch_add(1, std::memory_order_relaxed);
  raised_ = false;
  Reap(0);
  looked_ = true;
  poller_->Submit();
}

// What can be known to have finished is in the queue before the post: the poller and the pool are looked at.
bool ReactorPort::Settle() {
  if (armed_ > 0 || jobs_ > 0) {
    Reap(0, kSettleTakesMax);
    if (shared_ && !backlog_.empty()) kick_wanted_ = true;
    poller_->Submit();
    RaiseIfWanted();
  }
  return true;
}

void ReactorPort::Finish() {
  while (in_kernel_ > 0) Wait(50);
}

// ---- handles --------------------------------------------------------------------------------------------------------------

int ReactorPort::BindHandle(Handle& handle) {
  if (handle.kind == HandleKind::kFile) return 0;
  const int fd = static_cast<int>(handle.os);
  // For accept and connect, which have no flag for it. Others aren't changed: the calls of a connected socket say for themselves that they
  // don't wait.
  if (handle.kind == HandleKind::kListener || handle.connection != Connection::kConnected) {
    if (const int error = SetNonBlocking(fd); error != 0) return error;
  }
#if defined(SO_NOSIGPIPE)
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
#endif
  handle.ready = kReadable | kWritable;  // nobody knows: the first call tells
  return poller_->Add(fd, TokenOf(handle));
}

void ReactorPort::ReleaseHandle(Handle& handle, bool, bool reset) {
  const int fd = static_cast<int>(handle.os);
  if (handle.kind == HandleKind::kFile) {
    if (handle.pool_jobs == 0) close(fd);  // else behind the last of them
    return;
  }
  // No operation of a socket is left: a cancel ends it at once.
  CP_ASSERT(handle.operations == nullptr);
  poller_->Remove(fd);
  if (handle.kind == HandleKind::kSocket && reset) LingerNot(fd);
  close(fd);
}

// ---- figures --------------------------------------------------------------------------------------------------------------

void ReactorPort::BackendStats(Control& control) {
  control.stats[kStatEnters] = static_cast<double>(enters_);
  control.stats[kStatArenaRegistered] = 0;
  control.stats[kStatRingEntries] = 0;
  control.stats[kStatCqEntries] = 0;
  control.stats[kStatBacklog] = static_cast<double>(backlog_.size());
}

}  // namespace cp::posix
