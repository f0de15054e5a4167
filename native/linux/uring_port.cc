// Starting, cancelling and reaping SQEs. How the ring is set up stands in uring_setup.cc.
#include "linux/uring_port.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstring>

#include "core/file_pool.h"
#include "core/test_hooks.h"
#include "posix/errors.h"
#include "posix/files.h"
#include "posix/sockets.h"

namespace cp {

namespace {

// User data: the tag of what it is, the slot's generation, the slot.
enum Tag : uint8_t { kTagOperation, kTagCancel, kTagLoop, kTagPool, kTagKick, kTagTimeout };
// What only wakes the driver of a shared port: a call, or the time that it set itself.
bool IsDrivers(uint64_t user_data) {
  const auto tag = static_cast<Tag>(user_data >> 56);
  return tag == kTagKick || tag == kTagTimeout;
}
uint64_t UserData(Tag tag, uint32_t generation, uint32_t slot) {
  return uint64_t{tag} << 56 | uint64_t{generation & 0xff'ffff} << 32 | slot;
}

struct AcceptAddress {
  sockaddr_storage storage;
  socklen_t length;
};
static_assert(sizeof(AcceptAddress) <= sizeof(OperationExtra::os));
static_assert(sizeof(struct statx) <= sizeof(OperationExtra::os));

// A copy of so many bytes takes some 0.3 ms; to hand it to a worker of the kernel costs a tenth of that.
constexpr unsigned kInlineFileBytesMax = 1u << 20;

}  // namespace

UringPort::PoolChannel::~PoolChannel() {
  if (event_fd >= 0) close(event_fd);
}

UringPort::~UringPort() {
  JoinDriver();
  if (ring_open_) io_uring_queue_exit(&ring_);
  for (const int fd : close_later_) close(fd);
  if (event_fd_ >= 0) close(event_fd_);
}

// ---- submitting -----------------------------------------------------------------------------------------------------------

io_uring_sqe* UringPort::TakeSqe() {
  if (shared_) {
    kick_wanted_ = true;
    // The kernel has read the entries that it says it took: their memory may be written again (paired with its release of the head).
    (void)io_uring_smp_load_acquire(ring_.sq.khead);
    return io_uring_get_sqe(&ring_);
  }
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (sqe != nullptr) return sqe;
  Submit(false);
  return io_uring_get_sqe(&ring_);
}

// One io_uring_enter with what is prepared. False: the kernel took nothing now (no memory, or it wants completions to be reaped first);
// the entries stay in the ring and go with the next call.
bool UringPort::Submit(bool reap) {
  enters_++;
  const bool refused = Races() && submits_++ % 2 == 0;  // as where the kernel lacks memory for a request
  const int result = refused ? -EAGAIN : reap ? io_uring_submit_and_get_events(&ring_) : io_uring_submit(&ring_);
  if (!close_later_.empty() && io_uring_sq_ready(&ring_) == 0) {
    for (const int fd : close_later_) close(fd);
    close_later_.clear();
  }
  if (result >= 0) return true;
  if (result != -EAGAIN && result != -EBUSY && result != -EINTR) last_error_ = result;
  return false;
}

// What waited for room in the ring, cancels first.
void UringPort::Pump() {
  while (!cancels_.empty()) {
    const auto [slot, generation] = cancels_.front();
    Operation* op = FindOperation(slot, generation);
    if (op != nullptr && op->state == OperationState::kKernel) {
      io_uring_sqe* sqe = TakeSqe();
      if (sqe == nullptr) return;
      // With the hook each second one is of something that isn't there.
      const Tag of = Races() && cancels_asked_++ % 2 == 0 ? kTagCancel : kTagOperation;
      io_uring_prep_cancel64(sqe, UserData(of, generation, slot), 0);
      io_uring_sqe_set_data64(sqe, UserData(kTagCancel, generation, slot));
      // One that finds its operation has nothing to say beyond that operation's own end.
      if ((ring_.features & IORING_FEAT_CQE_SKIP) != 0) sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    }
    cancels_.pop_front();
  }
  while (!backlog_.empty()) {
    Operation& op = *backlog_.head();
    // Taken out first: what is begun may end at once.
    Withdraw(op);
    if (Begun(op)) continue;
    backlog_.PushFront(op);
    op.backlogged = true;
    return;
  }
}

void UringPort::Begin(Operation& op) {
  CP_DEBUG_ASSERT(op.state == OperationState::kWaiting);
  if (!backlog_.empty() || !Begun(op)) {
    op.backlogged = true;
    backlog_.Push(op);
  }
}

void UringPort::Withdraw(Operation& op) {
  backlog_.Remove(op);
  op.backlogged = false;
}

// False: the ring has no room now.
bool UringPort::Begun(Operation& op) {
  if ((op.kind == Opcode::kTruncate && !features_.ftruncate) || (op.kind == Opcode::kSize && !features_.statx) ||
      (op.kind == Opcode::kSync && StallMs() > 0))
    return BeginOnPool(op);
  if (!MakeRoom(op)) {
    MarkInKernel(op, Route::kKernel);
    Report(op, {0, ENOMEM});
    return true;
  }
  io_uring_sqe* sqe = TakeSqe();
  if (sqe == nullptr) return false;
  if (op.handle != nullptr && op.handle->kind != HandleKind::kFile)
    PrepareSocket(op, sqe);
  else
    PrepareFile(op, sqe);
  io_uring_sqe_set_data64(sqe, UserData(kTagOperation, op.generation, SlotOf(op)));
  MarkInKernel(op, Route::kKernel);
  return true;
}

// The memory that the kernel reads or fills beside the buffer. False: there is none.
bool UringPort::MakeRoom(Operation& op) {
  switch (op.kind) {
    case Opcode::kSize:
    case Opcode::kAccept:
      if (!op.extra) op.extra = MakeExtra();
      return op.extra != nullptr;
    case Opcode::kReadv:
    case Opcode::kWritev:
    case Opcode::kSendv:
      return MakeVectorRoom(op);
    default:
      return true;
  }
}

void UringPort::PrepareFile(Operation& op, io_uring_sqe* sqe) {
  const int fd = op.handle != nullptr ? static_cast<int>(op.handle->os) : -1;
  const auto left = static_cast<unsigned>(op.length - op.done);
  const uint64_t at = FilePosition(op);
  switch (op.kind) {
    case Opcode::kRead:
      io_uring_prep_read(sqe, fd, op.data + op.done, left, at);
      break;
    case Opcode::kWrite:
      io_uring_prep_write(sqe, fd, op.data + op.done, left, at);
      break;
    case Opcode::kReadv:
    case Opcode::kWritev: {
      const uint32_t count = FillVector(op);
      const iovec* vector = VectorOf(op);
      if (op.kind == Opcode::kReadv)
        io_uring_prep_readv(sqe, fd, vector, count, at);
      else
        io_uring_prep_writev(sqe, fd, vector, count, at);
      break;
    }
    case Opcode::kSync:
      io_uring_prep_fsync(sqe, fd, 0);
      break;
    case Opcode::kDatasync:
      io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
      break;
    case Opcode::kTruncate:
      io_uring_prep_ftruncate(sqe, fd, op.position);
      break;
    case Opcode::kSize:
      io_uring_prep_statx(sqe, fd, "", AT_EMPTY_PATH, STATX_SIZE, reinterpret_cast<struct statx*>(op.extra->os));
      break;
    case Opcode::kOpen:
      io_uring_prep_openat(sqe, AT_FDCWD, op.extra->path.data(), posix::OpenFlags(op.extra->open_flags), op.extra->open_mode);
      break;
    default:
      CP_ASSERT(!"not an operation of a file");
  }
  // Begun inline, a large uncached read is copied by this thread as its pages arrive (seen on 6.18: 192 MiB held it for up to
  // 200 ms): the kernel's own workers move what is large (FILE-09). No other operation of a file has a length.
  if (left > kInlineFileBytesMax) io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
}

void UringPort::PrepareSocket(Operation& op, io_uring_sqe* sqe) {
  const int fd = static_cast<int>(op.handle->os);
  switch (op.kind) {
    case Opcode::kAccept: {
      auto* address = reinterpret_cast<AcceptAddress*>(op.extra->os);
      address->length = sizeof(address->storage);
      io_uring_prep_accept(sqe, fd, reinterpret_cast<sockaddr*>(&address->storage), &address->length, SOCK_CLOEXEC);
      break;
    }
    case Opcode::kConnect: {
      auto* address = reinterpret_cast<sockaddr_storage*>(op.extra->os);
      const socklen_t length = posix::ToSockaddr(op.extra->address, address);
      io_uring_prep_connect(sqe, fd, reinterpret_cast<sockaddr*>(address), length);
      break;
    }
    case Opcode::kRecv:
      op.polled = op.length == 0;
      if (op.polled)
        io_uring_prep_poll_add(sqe, fd, POLLIN | POLLRDHUP);
      else
        io_uring_prep_recv(sqe, fd, op.data, op.length, 0);
      break;
    case Opcode::kSend:
      // MSG_WAITALL makes the kernel go on after a short send (io_uring_prep_send(3), since 5.19); what it doesn't do, Report does.
      io_uring_prep_send(sqe, fd, op.data + op.done, op.length - op.done, MSG_NOSIGNAL | MSG_WAITALL);
      break;
    case Opcode::kSendv: {
      auto* message = reinterpret_cast<msghdr*>(op.extra->os);
      *message = {};
      message->msg_iovlen = FillVector(op);
      message->msg_iov = VectorOf(op);
      io_uring_prep_sendmsg(sqe, fd, message, MSG_NOSIGNAL | MSG_WAITALL);
      break;
    }
    default:
      CP_ASSERT(!"not an operation of a socket");
  }
}

// On a pool thread, with a descriptor of the job's own: the handle may be closed, and its number reused, meanwhile.
bool UringPort::BeginOnPool(Operation& op) {
  int error = 0;
  if (!pool_) {
    // Kept only if it is whole: the next job tries again.
    auto channel = std::make_shared<PoolChannel>();
    channel->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (channel->event_fd < 0)
      error = errno;
    else
      pool_ = std::move(channel);
  }
  const int fd = error != 0 ? -1 : fcntl(static_cast<int>(op.handle->os), F_DUPFD_CLOEXEC, 0);
  if (fd < 0 && error == 0) error = errno;
  MarkInKernel(op, Route::kPool);
  if (error != 0) {
    Report(op, {0, error});
    return true;
  }
  posix::FileRequest request;
  request.kind = op.kind;
  request.fd = fd;
  request.position = op.position;
  const uint64_t user_data = UserData(kTagOperation, op.generation, SlotOf(op));
  const bool queued = pool_share_.Run([channel = pool_, request, user_data] {
    const Outcome outcome = posix::Perform(request);
    close(request.fd);
    std::lock_guard lock(channel->mutex);
    channel->done.emplace_back(user_data, outcome);
    const uint64_t one = 1;
    // The counter can't overflow, and a wake that is already there is as good.
    [[maybe_unused]] const ssize_t written = write(channel->event_fd, &one, sizeof(one));
  });
  if (!queued) {
    close(fd);
    Report(op, {0, ENOMEM});  // what a thread lacks; not its EAGAIN, which would have Report begin the operation again, and again
    return true;
  }
  pool_jobs_++;
  if (!pool_watched_) {
    io_uring_sqe* sqe = TakeSqe();
    // Without room now, the watch is set by the next Reap.
    if (sqe != nullptr) {
      io_uring_prep_poll_add(sqe, pool_->event_fd, POLLIN);
      io_uring_sqe_set_data64(sqe, UserData(kTagPool, 0, 0));
      pool_watched_ = true;
    }
  }
  return true;
}

void UringPort::DrainPool() {
  uint64_t count;
  [[maybe_unused]] const ssize_t read_bytes = read(pool_->event_fd, &count, sizeof(count));
  std::vector<std::pair<uint64_t, Outcome>> done;
  {
    std::lock_guard lock(pool_->mutex);
    done.swap(pool_->done);
  }
  for (const auto& [user_data, outcome] : done) {
    pool_jobs_--;
    Operation* op = FindOperation(static_cast<uint32_t>(user_data), static_cast<uint32_t>(user_data >> 32 & 0xff'ffff));
    if (op != nullptr && op->state == OperationState::kKernel && op->route == Route::kPool) Report(*op, outcome);
  }
  // Nothing is out: the descriptor goes, the next job brings its own.
  if (pool_jobs_ == 0 && !pool_watched_) pool_.reset();
  if (pool_jobs_ > 0 && !pool_watched_) {
    io_uring_sqe* sqe = TakeSqe();
    if (sqe == nullptr) return;
    io_uring_prep_poll_add(sqe, pool_->event_fd, POLLIN);
    io_uring_sqe_set_data64(sqe, UserData(kTagPool, 0, 0));
    pool_watched_ = true;
  }
}

void UringPort::RequestCancel(Operation& op) {
  if (op.route == Route::kPool) return;  // can't be stopped; its own result comes
  cancels_.emplace_back(SlotOf(op), op.generation);
  Pump();
}

// ---- reaping --------------------------------------------------------------------------------------------------------------

// The kernel may have more for us than is in the CQ: an enter that asks for events brings it. Only a hint: a thread that adds task work sets
// the flag after it has added it, and where we have run that work in between, the flag stays with nothing behind it until the next time
// (Linux, io_req_local_work_add; commit 9ffa13ff78a0 says that the work may run that early). Nobody may wait for it to go away.
bool UringPort::Hinted() const { return (IO_URING_READ_ONCE(*ring_.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0; }

void UringPort::Reap() {
  // Bounded by what is visible now: an operation that is begun here and ends inline is for the next call.
  unsigned visible = io_uring_cq_ready(&ring_);
  while (visible-- > 0) {
    io_uring_cqe* slot;
    unsigned head;
    head = *ring_.cq.khead;
    slot = &ring_.cq.cqes[head & ring_.cq.ring_mask];
    const uint64_t user_data = slot->user_data;
    const int32_t result = slot->res;
    // The driver's own call, or timer, is left to it: where another thread took it before the driver's wait has begun, the driver would sleep
    // over it, and nobody calls twice (seen: a close that waited for ever; core/model/driver.pml).
    if (shared_ && IsDrivers(user_data) && !on_driver()) break;
    io_uring_cq_advance(&ring_, 1);
    if (user_data == LIBURING_UDATA_TIMEOUT) continue;  // liburing's own wait where EXT_ARG is missing
    const auto generation = static_cast<uint32_t>(user_data >> 32 & 0xff'ffff);
    switch (static_cast<Tag>(user_data >> 56)) {
      case kTagOperation: {
        Operation* op = FindOperation(static_cast<uint32_t>(user_data), generation);
        CP_ASSERT(op != nullptr && op->state == OperationState::kKernel);
        Ended(*op, result);
        break;
      }
      case kTagCancel: {
        // ENOENT with the operation still there: its own completion is under way, or it was between two tries; ask again. EALREADY: it is
        // running in the kernel's pool and ends by itself.
        Operation* op = FindOperation(static_cast<uint32_t>(user_data), generation);
        if (result == -ENOENT && op != nullptr && op->state == OperationState::kKernel && op->route == Route::kKernel)
          cancels_.emplace_back(SlotOf(*op), op->generation);
        break;
      }
      case kTagLoop:
        loop_watched_ = false;
        break;
      case kTagPool:
        pool_watched_ = false;
        break;
      case kTagKick:
        kick_watched_ = false;
        break;
      case kTagTimeout:
        break;
    }
  }
  if (pool_jobs_ > 0 && !pool_watched_) DrainPool();
  // A cancel to be asked again is the driver's work, whoever has found that out: the completion that told it may be gone from the CQ before the
  // driver's wait begins.
  if (shared_ && !cancels_.empty()) kick_wanted_ = true;
}

void UringPort::Ended(Operation& op, int32_t result) {
  if (op.kind == Opcode::kOpen) return EndedOpen(op, result, false);
  if (op.kind == Opcode::kAccept) return EndedAccept(op, result);
  Outcome outcome;
  if (result < 0) {
    outcome.native_code = -result;
  } else if (op.polled) {
    op.polled = false;
    if ((result & (POLLERR | POLLHUP)) != 0 && op.handle->os != kOsHandleNone) {
      // A look that takes nothing tells an end from an error. An error is told once (SO_ERROR), so Report keeps it.
      char byte;
      const ssize_t peeked = recv(static_cast<int>(op.handle->os), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
      if (peeked < 0 && errno != EAGAIN) outcome.native_code = errno;
    }
  } else if (op.kind == Opcode::kSize) {
    outcome.result = static_cast<int64_t>(reinterpret_cast<const struct statx*>(op.extra->os)->stx_size);
  } else {
    outcome.result = result;
  }
  Report(op, outcome);
}

void UringPort::EndedAccept(Operation& op, int32_t result) {
  if (result < 0) return Report(op, {0, -result});
  op.state = OperationState::kWaiting;
  AddressEntry peer{};
  const bool known = posix::FromSockaddr(reinterpret_cast<const AcceptAddress*>(op.extra->os)->storage, &peer);
  CompleteWithHandle(op, HandleKind::kSocket, result, known ? &peer : nullptr, false);
}

// ---- driving --------------------------------------------------------------------------------------------------------------

int UringPort::Flush(bool reap) {
  last_error_ = 0;
  if (shared_) {
    if (io_uring_sq_ready(&ring_) > 0 || !cancels_.empty() || !backlog_.empty()) kick_wanted_ = true;
    if (reap) Reap();
    return 0;
  }
  if (!cancels_.empty() || !backlog_.empty()) Pump();
  const bool prepared = io_uring_sq_ready(&ring_) > 0;
  if (!reap) {
    if (prepared) Submit(false);
    // What the kernel had no memory for, or the ring no room, is tried again by the event loop, which would sleep over it.
    if (io_uring_sq_ready(&ring_) > 0 || !cancels_.empty() || !backlog_.empty()) RaiseNotification();
    return last_error_;
  }
  if (prepared || Hinted()) Submit(true);
  Reap();
  return last_error_;
}

int UringPort::Wait(double timeout_ms) {
  last_error_ = 0;
  if (!cancels_.empty() || !backlog_.empty()) Pump();
  // What waits for room in the ring isn't slept over: there is some after a call (the kernel lacked memory at the last one).
  if (io_uring_cq_ready(&ring_) > 0 || !cancels_.empty() || !backlog_.empty()) return Flush(true);
  __kernel_timespec timeout;
  const bool finite = timeout_ms < 9e12;  // beyond 285 years a timespec's arithmetic isn't worth it
  if (finite) {
    timeout.tv_sec = static_cast<int64_t>(timeout_ms / 1e3);
    timeout.tv_nsec = static_cast<int64_t>(std::ceil((timeout_ms - static_cast<double>(timeout.tv_sec) * 1e3) * 1e6));
    if (timeout.tv_nsec >= 1'000'000'000) {
      timeout.tv_sec++;
      timeout.tv_nsec -= 1'000'000'000;
    }
  }
  io_uring_cqe* unused;
  enters_++;
  const int result = io_uring_submit_and_wait_timeout(&ring_, &unused, 1, finite ? &timeout : nullptr, nullptr);
  if (result < 0 && result != -ETIME && result != -EINTR && result != -EAGAIN && result != -EBUSY) last_error_ = result;
  Reap();
  return last_error_;
}

bool UringPort::Notify(bool on) {
  if (event_fd_ < 0) return false;
  io_uring_cq_eventfd_toggle(&ring_, on);
  if (!on) return false;
  // The kernel reads the flag after it has published a completion; we read its completions after we have set the flag.
  __sync_synchronize();  // not std::atomic_thread_fence, which TSan can't follow; the other side is the kernel anyway
  if (LateTaskrun()) __atomic_or_fetch(ring_.sq.kflags, IORING_SQ_TASKRUN, __ATOMIC_RELAXED);
#if !defined(__x86_64__) && !defined(__i386__)
  // The kernel adds task work, then sets the hint, then reads the flag; between the last two it has no barrier, and only where locked
  // instructions are barriers by themselves is the hint there by now. The work itself is: it was added behind one (io_req_local_work_add).
  if (in_kernel_ > 0 && features_.defer_taskrun) Submit(true);
#endif
  // What was added before the flag was set is brought by an enter, which runs at least kRunAtOnce pieces of task work (there is at most one
  // a request); what is added after it finds the list empty, and that signals. So after so many enters a hint that is left has nothing behind it.
  constexpr uint32_t kRunAtOnce = 16;  // Linux: IO_LOCAL_TW_DEFAULT_MAX is 20
  for (uint32_t left = in_kernel_ / kRunAtOnce + 2; left > 0 && io_uring_cq_ready(&ring_) == 0 && Hinted(); left--) Submit(true);
  return io_uring_cq_ready(&ring_) > 0;
}

void UringPort::ClearNotification() {
  uint64_t count;
  wakeups_.fetch_add(1, std::memory_order_relaxed);
  [[maybe_unused]] const ssize_t bytes = read(event_fd_, &count, sizeof(count));
}

void UringPort::RaiseNotification() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof(one));
}

bool UringPort::WatchLoop(int fd) {
  if (loop_watched_) return true;
  io_uring_sqe* sqe = TakeSqe();
  if (sqe == nullptr) return false;
  io_uring_prep_poll_add(sqe, fd, POLLIN);
  io_uring_sqe_set_data64(sqe, UserData(kTagLoop, 0, 0));
  loop_watched_ = true;
  return true;
}

bool UringPort::Settle() {
  if (shared_) {
    // What else there is are the driver's own calls: a kick is task work, too, for which each post of a flood would wait.
    if (in_kernel_ == 0) return true;
    if (io_uring_cq_ready(&ring_) > 0) Reap();
    // Deferred task work, or completions beyond the CQ: the driver has been woken for it, or is on its way. Its own call that is left to it is
    // nothing that has finished; what stands behind that is.
    const unsigned left = io_uring_cq_ready(&ring_);
    const bool settled = left == 0 || (left == 1 && IsDrivers(ring_.cq.cqes[*ring_.cq.khead & ring_.cq.ring_mask].user_data));
    return on_driver() || (settled && !Hinted());
  }
  // An operation that has finished is in the queue before the post: task work that waits for us to enter is run first.
  if (Hinted()) Submit(true);
  if (io_uring_cq_ready(&ring_) > 0) Reap();
  return true;
}

// A job has a descriptor of its own and works in no memory of the operation's.
bool UringPort::Abandon(Operation& op) {
  Report(op, {0, CanceledCode()});
  return true;
}

void UringPort::Finish() {
  while (in_kernel_ > 0) Wait(50);
}

// ---- handles --------------------------------------------------------------------------------------------------------------

int UringPort::BindHandle(Handle&) { return 0; }

void UringPort::ReleaseHandle(Handle& handle, bool busy, bool reset) {
  const int fd = static_cast<int>(handle.os);
  if (handle.kind == HandleKind::kSocket && reset) LingerNot(fd);
  // A request that is still with the kernel holds the file, and close alone would send nothing (seen on 6.18).
  if (busy && handle.kind != HandleKind::kFile) shutdown(fd, SHUT_RDWR);
  // An entry that the kernel didn't take yet (it lacked memory) names the descriptor's number, which must not become somebody else's.
  if (busy && io_uring_sq_ready(&ring_) > 0)
    close_later_.push_back(fd);
  else
    close(fd);
}

// ---- figures --------------------------------------------------------------------------------------------------------------

void UringPort::BackendStats(Control& control) {
  control.stats[kStatEnters] = static_cast<double>(enters_);
  control.stats[kStatWakeups] = static_cast<double>(wakeups_.load(std::memory_order_relaxed));
  control.stats[kStatArenaRegistered] = 0;
  control.stats[kStatRingEntries] = ring_.sq.ring_entries;
  control.stats[kStatCqEntries] = ring_.cq.ring_entries;
  control.stats[kStatBacklog] = static_cast<double>(backlog_.size());
}

std::vector<std::pair<std::string, bool>> UringPort::features() const {
  return {{"single_issuer", features_.single_issuer},
          {"defer_taskrun", features_.defer_taskrun},
          {"taskrun_flag", features_.taskrun_flag},
          {"submit_all", features_.submit_all},
          {"ext_arg", features_.ext_arg},
          {"statx", features_.statx},
          {"ftruncate", features_.ftruncate}};
}

}  // namespace cp
