// What all backends share: checking submissions, the turns of streams, timers, cancels, closes, and the making of packets.
#include "core/port.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "core/test_hooks.h"

namespace cp {

namespace {

constexpr double kForever = std::numeric_limits<double>::infinity();
constexpr uint32_t kWants = kEnterWantUser | kEnterWantInternal;
constexpr uint64_t kAcceptPauseMs = 100;  // between two accepts of a listener that fail for want of descriptors (TCP-12)

uint64_t NowTick() { return static_cast<uint64_t>(MonotonicMs()); }

// The first tick that is not before now + timeout.
uint64_t DeadlineTick(double timeout_ms) {
  const double span = std::min(timeout_ms, static_cast<double>(TimerWheel::kSpanMax));
  return static_cast<uint64_t>(std::ceil(MonotonicMs() + span));
}

// By conversion: std::floor is a call where SSE4.1 isn't assumed. All bounds lie within 2^53.
bool IsInteger(double value, double min, double max) {
  return value >= min && value <= max && static_cast<double>(static_cast<int64_t>(value)) == value;
}

bool IsReceiving(Opcode kind) { return kind == Opcode::kRecv || kind == Opcode::kAccept; }
bool IsSending(Opcode kind) { return kind == Opcode::kSend || kind == Opcode::kSendv || kind == Opcode::kShutdown; }
bool IsVectored(Opcode kind) { return kind == Opcode::kReadv || kind == Opcode::kWritev || kind == Opcode::kSendv; }
bool IsWriting(Opcode kind) { return kind == Opcode::kWrite || kind == Opcode::kWritev || kind == Opcode::kSend || kind == Opcode::kSendv; }

// Which kind of handle an operation is for.
bool Fits(Opcode opcode, HandleKind kind) {
  switch (opcode) {
    case Opcode::kRead:
    case Opcode::kWrite:
    case Opcode::kReadv:
    case Opcode::kWritev:
    case Opcode::kSync:
    case Opcode::kDatasync:
    case Opcode::kTruncate:
    case Opcode::kSize:
      return kind == HandleKind::kFile;
    case Opcode::kAccept:
      return kind == HandleKind::kListener;
    case Opcode::kConnect:
    case Opcode::kRecv:
    case Opcode::kSend:
    case Opcode::kSendv:
    case Opcode::kShutdown:
      return kind == HandleKind::kSocket;
    default:
      return false;
  }
}

enum TimerKind : uint8_t { kTimerOperation, kTimerAccept };

}  // namespace

bool IsDisabled(std::string_view list, std::string_view name) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    std::string_view item = list.substr(0, comma);
    while (!item.empty() && item.front() == ' ') item.remove_prefix(1);
    while (!item.empty() && item.back() == ' ') item.remove_suffix(1);
    if (item == name) return true;
    if (comma == std::string_view::npos) break;
    list.remove_prefix(comma + 1);
  }
  return false;
}

Port::Port(const PortOptions& options)
    : shared_(options.shared), options_(options), arena_(options.arena), timers_(NowTick()), waiters_(queue_, options.concurrency) {
  memory_.push_back({options.arena.data(), options.arena.size(), 0, true, nullptr});
  if (shared_) return;
  CP_ASSERT(options.block.size() >= kBlockBytes);
  attachments_.push_back(std::make_unique<Attachment>(0, options.owner, options.block, options.max_operations));
  attached_ = 1;
}

Port::~Port() {
  CP_ASSERT(in_kernel_ == 0);
  while (handles_ != nullptr) {
    Handle& handle = *handles_;
    if (handle.accept_timer.armed()) timers_.Drop(handle.accept_timer);
    Detach(handle);
  }
}

// ---- submission -----------------------------------------------------------------------------------------------------------

uint32_t Port::EnterPrivate(Attachment& a) {
  Control& c = *a.control;
  const uint32_t flags = c.enter_flags;
  const double timeout = c.timeout_ms;
  const bool wait = c.min_complete > 0 && timeout > 0;
  const uint32_t max = std::min(c.max_packets, kCompletionsMax);
  c.completions = 0;
  c.enter_error = 0;
  if ((flags & kEnterArm) != 0) wanted_ = flags & kWants;
  if (closing_) c.submit_count = 0;
  if (a.notifying) {
    Notify(false);
    a.notifying = false;
  }
  if (c.submit_count != 0) Ingest(a);
  if ((flags & kEnterSubmitOnly) != 0) {
    c.enter_error = Flush(false);
  } else {
    if (!timers_.empty()) RunTimers();
    // Someone who waits and has nothing yet submits and waits in one call of the kernel.
    if (wait && !has_queued(flags) && !closing_) {
      const double deadline = MonotonicMs() + timeout;
      double left = timeout;
      do {
        const double timer = NextTimeoutMs();
        c.enter_error = Wait(timer >= 0 ? std::min(timer, left) : left);
        if (!timers_.empty()) RunTimers();
        if (c.enter_error != 0 || has_queued(flags)) break;
        left = deadline - MonotonicMs();
      } while (left > 0 && !closing_);
    } else {
      c.enter_error = Flush(true);
    }
    c.completions = Fill(a, max, flags);
    // Nobody sleeps over what is queued and wanted, even where this call takes none of it (max_packets 0).
    if ((flags & kEnterArm) != 0 && c.completions == 0 && !has_queued(flags) && !closing_) {
      while (Notify(true)) {
        Notify(false);
        c.enter_error = Flush(true);
        c.completions = Fill(a, max, flags);
        if (c.completions != 0 || has_queued(flags)) break;
      }
      a.notifying = c.completions == 0 && !has_queued(flags);
    }
    // What reaping began (the next send of a stream, the rest of a short one) doesn't wait for the next get.
    const int error = Flush(false);
    if (c.enter_error == 0) c.enter_error = error;
  }
  c.in_kernel = in_kernel_;
  WriteControl(a);
  const double next = NextTimeoutMs();
  c.next_deadline_ms = next < 0 ? kForever : MonotonicMs() + next;
  return c.completions;
}

void Port::WriteControl(Attachment& a) {
  Control& c = *a.control;
  c.queued = queue_.size();
  c.queued_internal = a.internal.size();
  c.rejected = a.rejected;
  c.flags = closing_ ? static_cast<uint32_t>(kControlClosing) | (in_kernel_ == 0 ? static_cast<uint32_t>(kControlClosed) : 0u) : 0u;
}

void Port::DriveLoop(double timeout_ms) {
  Attachment& a = first();
  Control& c = *a.control;
  if (closing_) c.submit_count = 0;
  if (c.submit_count != 0) {
    wanted_ = c.enter_flags & kWants;
    Ingest(a);
  }
  if (!timers_.empty()) RunTimers();
  if (has_wanted()) timeout_ms = 0;
  const double timer = NextTimeoutMs();
  if (timer >= 0) timeout_ms = std::min(timeout_ms, timer);
  if (timeout_ms > 0)
    Wait(timeout_ms);
  else
    Flush(true);
  if (!timers_.empty()) RunTimers();
  Flush(false);
}

// What a thread of a shared port hands over with another call is under way as well.
void Port::IngestStaged(Attachment& a) {
  if (a.control->submit_count == 0) return;
  Ingest(a);
  if (shared_) Flush(false);
}

void Port::Ingest(Attachment& a) {
  const uint32_t count = std::min(a.control->submit_count, kSubmissionsMax);
  a.control->submit_count = 0;
  const auto* entries = reinterpret_cast<const SubmissionEntry*>(a.block + kControlBytes);
  for (uint32_t i = 0; i < count;) {
    // One copy, then checks: the block is ours alone, but hostile code in this thread could write to it.
    SubmissionEntry entry;
    std::memcpy(&entry, &entries[i], sizeof(entry));
    i++;
    const auto opcode = static_cast<Opcode>(entry.opcode);
    uint32_t rest = 0;
    if (opcode == Opcode::kConnect)
      rest = 1;
    else if (entry.opcode < static_cast<uint8_t>(Opcode::kCount) && IsVectored(opcode))
      rest = (std::min<uint32_t>(entry.segments, kSegmentsMax) + kSegmentsPerEntry - 1) / kSegmentsPerEntry;
    if (i + rest > count) {
      a.rejected++;
      break;
    }
    const SubmissionEntry* following = &entries[i];
    i += rest;
    if (shared_ && (entry.flags & kSubmissionDeferred) == 0) {
      // The start itself hears of these, and throws.
      if (in_flight_ >= options_.max_operations)
        a.control->refusal = kRefusalFull;
      else if (FindHandle(entry.handle_index, entry.handle_generation) == nullptr)
        a.control->refusal = kRefusalHandle;
      if (a.control->refusal != kRefusalNone) break;
    }
    Operation* op = Claim(a, entry.slot, entry.slot_generation, opcode, entry.flags, entry.operation_id);
    if (op != nullptr) Prepare(*op, entry, following);
  }
}

// Takes a free slot and the room for its packet. Null: nothing has happened but the count of rejected entries.
Operation* Port::Claim(Attachment& a, uint32_t slot, uint32_t generation, Opcode kind, uint32_t flags, double operation_id) {
  const bool internal = (flags & kSubmissionInternal) != 0;
  Operation* op = a.operations.At(slot);
  if (op == nullptr || op->state != OperationState::kFree || op->generation != generation) {
    a.rejected++;
    return nullptr;
  }
  if (!(internal ? a.internal : queue_).Reserve()) {
    a.rejected++;
    return nullptr;
  }
  if (shared_) {
    if ((flags & kSubmissionDeferred) != 0 && a.deferred > 0)
      a.deferred--;
    else
      in_flight_++;
    a.live++;
    a.in_kernel++;
  }
  op->home = &a;
  op->kind = kind;
  op->state = OperationState::kWaiting;
  op->route = Route::kNone;
  op->ended_by = EndedBy::kNone;
  op->internal = internal;
  op->pinned = op->backlogged = op->polled = false;
  op->handle = nullptr;
  op->memory_id = kMemoryNone;
  op->data = nullptr;
  op->offset = op->length = op->done = 0;
  op->position = 0;
  op->operation_id = IsInteger(operation_id, 0, kSafeIntegerMax) ? operation_id : 0;
  op->key = op->handle_id = op->result = 0;
  in_kernel_++;
  started_++;
  return op;
}

bool Port::Resolve(const Operation& op, uint32_t memory_id, double offset, double length, std::byte** data) {
  if (memory_id >= memory_.size() || !memory_[memory_id].registered) return false;
  const Memory& memory = memory_[memory_id];
  if (memory.owner != nullptr && memory.owner != op.home) return false;  // another thread's
  const auto bytes = static_cast<double>(memory.bytes);
  if (!IsInteger(offset, 0, bytes) || !IsInteger(length, 0, static_cast<double>(kLengthMax))) return false;
  if (offset + length > bytes) return false;  // both below 2^54: exact
  *data = memory.data + static_cast<uint64_t>(offset);
  return true;
}

void Port::Prepare(Operation& op, const SubmissionEntry& entry, const SubmissionEntry* rest) {
  const auto refuse = [&](int32_t native_code) { Complete(op, MapError(native_code), native_code); };
  if (entry.opcode == 0 || entry.opcode >= static_cast<uint8_t>(Opcode::kCount)) {
    op.kind = Opcode::kRead;
    return refuse(InvalidCode());
  }
  Handle* handle = FindHandle(entry.handle_index, entry.handle_generation);
  if (handle == nullptr && shared_) {
    // Another thread closed it after a deferred start.
    op.ended_by = EndedBy::kClose;
    op.handle_id = HandleId(entry.handle_index, entry.handle_generation);
    return Complete(op, Status::kECANCELED, CanceledCode());
  }
  if (handle == nullptr || !Fits(op.kind, handle->kind)) return refuse(BadHandleCode());
  op.handle = handle;
  op.key = handle->key;
  op.handle_id = handle->id();
  op.list_previous = nullptr;
  op.list_next = handle->operations;
  if (op.list_next != nullptr) op.list_next->list_previous = &op;
  handle->operations = &op;
  handle->operation_count++;
  if ((entry.flags & kSubmissionAborted) != 0) {
    op.ended_by = EndedBy::kSignal;
    return Complete(op, Status::kECANCELED, CanceledCode());
  }

  switch (op.kind) {
    case Opcode::kRead:
    case Opcode::kWrite:
    case Opcode::kRecv:
    case Opcode::kSend:
      if (!Resolve(op, entry.memory_id, entry.offset, entry.length, &op.data)) return refuse(InvalidCode());
      op.memory_id = entry.memory_id;
      op.offset = static_cast<uint64_t>(entry.offset);
      op.length = static_cast<uint64_t>(entry.length);
      break;
    case Opcode::kReadv:
    case Opcode::kWritev:
    case Opcode::kSendv: {
      if (entry.segments > kSegmentsMax) return refuse(InvalidCode());
      op.extra = MakeExtra();
      if (!op.extra || !op.extra->segments.Reset(entry.segments)) return Complete(op, Status::kENOMEM, 0);
      for (uint32_t i = 0; i < entry.segments; i++) {
        SegmentEntry segment;
        std::memcpy(&segment, reinterpret_cast<const std::byte*>(rest) + i * sizeof(SegmentEntry), sizeof(segment));
        std::byte* data;
        if (!Resolve(op, segment.memory_id, segment.offset, segment.length, &data)) return refuse(InvalidCode());
        op.extra->segments[i] = {data, segment.length, segment.memory_id, static_cast<uint64_t>(segment.offset), nullptr};
        op.length += segment.length;
      }
      if (op.length > kLengthMax) return refuse(InvalidCode());
      break;
    }
    case Opcode::kConnect: {
      op.extra = MakeExtra();
      if (!op.extra) return Complete(op, Status::kENOMEM, 0);
      std::memcpy(&op.extra->address, rest, sizeof(AddressEntry));
      if (op.extra->address.family != 4 && op.extra->address.family != 6) return refuse(InvalidCode());
      break;
    }
    default:
      break;
  }
  const bool at_position = op.kind == Opcode::kRead || op.kind == Opcode::kWrite || op.kind == Opcode::kReadv || op.kind == Opcode::kWritev;
  if (at_position || op.kind == Opcode::kTruncate || op.kind == Opcode::kShutdown) {
    const double min = at_position ? -1 : 0;
    const double max = op.kind == Opcode::kShutdown ? 2 : kSafeIntegerMax;
    if (!IsInteger(entry.position, min, max)) return refuse(InvalidCode());
    op.position = static_cast<int64_t>(entry.position);
    if (op.position < 0 && !handle->append) return refuse(InvalidCode());
  }
  PinMemory(op);
  if ((entry.flags & kSubmissionHasTimeout) != 0 && entry.timeout_ms >= 0 && entry.timeout_ms < kForever) {
    op.timer.owner = &op;
    op.timer.kind = kTimerOperation;
    timers_.Arm(op.timer, DeadlineTick(entry.timeout_ms));
    kick_wanted_ = true;
  }
  Dispatch(op);
}

void Port::PinMemory(Operation& op) {
  op.pinned = true;
  const auto pin = [this](uint32_t id, uint64_t offset, uint64_t length) -> Arena::Block* {
    if (id == kMemoryArena) return length > 0 ? arena_.Pin(offset, length) : nullptr;
    memory_[id].uses++;
    return nullptr;
  };
  if (op.memory_id != kMemoryNone) op.block = pin(op.memory_id, op.offset, op.length);
  if (op.extra)
    for (Segment& segment : op.extra->segments) segment.block = pin(segment.memory_id, segment.offset, segment.length);
}

void Port::UnpinMemory(Operation& op) {
  if (!op.pinned) return;
  op.pinned = false;
  const auto unpin = [this](uint32_t id, uint64_t offset, uint64_t length, Arena::Block* block) {
    if (id != kMemoryArena)
      DropUse(id);
    else if (length > 0)
      arena_.Unpin(offset, length, block);
  };
  if (op.memory_id != kMemoryNone) unpin(op.memory_id, op.offset, op.length, op.block);
  if (op.extra)
    for (const Segment& segment : op.extra->segments) unpin(segment.memory_id, segment.offset, segment.length, segment.block);
}

uint32_t Port::RegisterMemory(Attachment& a, std::span<std::byte> memory) {
  Lock lock(*this);
  uint32_t id;
  if (!free_memory_.empty()) {
    id = free_memory_.back();
    free_memory_.pop_back();
  } else {
    if (memory_.size() >= 1u << 20) return 0;
    id = static_cast<uint32_t>(memory_.size());
    memory_.emplace_back();
  }
  memory_[id] = {memory.data(), memory.size(), 0, true, &a};
  return id;
}

bool Port::UnregisterMemory(Attachment& a, uint32_t id) {
  Lock lock(*this);
  if (id == kMemoryArena || id >= memory_.size() || !memory_[id].registered || memory_[id].owner != &a) return false;
  memory_[id].registered = false;
  memory_[id].uses++;
  DropUse(id);
  return true;
}

void Port::DropUse(uint32_t id) {
  Memory& memory = memory_[id];
  CP_ASSERT(memory.uses > 0);
  if (--memory.uses > 0 || memory.registered) return;
  memory.owner->freed_memory.push_back(id);
  memory = {};
  free_memory_.push_back(id);
}

bool Port::Open(Attachment& a, uint32_t slot, uint32_t generation, std::string_view path, int flags, uint32_t mode, double key,
                double timeout_ms, double operation_id, uint32_t entry_flags) {
  Lock lock(*this);
  if (closing_) return false;
  IngestStaged(a);
  a.control->refusal = kRefusalNone;
  if (shared_ && in_flight_ >= options_.max_operations) {
    a.control->refusal = kRefusalFull;
    return false;
  }
  auto extra = MakeExtra();
  if (!extra || !extra->path.Reset(path.size() + 1)) return false;
  std::memcpy(extra->path.data(), path.data(), path.size());
  Operation* op = Claim(a, slot, generation, Opcode::kOpen, entry_flags, operation_id);
  if (op == nullptr) return false;
  op->extra = std::move(extra);
  op->extra->open_flags = flags;
  op->extra->open_mode = mode;
  op->key = key;
  if ((entry_flags & kSubmissionAborted) != 0) {
    op->ended_by = EndedBy::kSignal;
    Complete(*op, Status::kECANCELED, CanceledCode());
    return true;
  }
  if (timeout_ms >= 0 && timeout_ms < kForever) {
    op->timer.owner = op;
    op->timer.kind = kTimerOperation;
    timers_.Arm(op->timer, DeadlineTick(timeout_ms));
    kick_wanted_ = true;
  }
  Begin(*op);
  if (shared_) Flush(false);
  return true;
}

// ---- turns ----------------------------------------------------------------------------------------------------------------

StreamQueue* Port::QueueOf(Operation& op) {
  if (op.handle == nullptr) return nullptr;
  if (IsReceiving(op.kind)) return &op.handle->receiving;
  if (IsSending(op.kind)) return &op.handle->sending;
  return nullptr;
}

void Port::Dispatch(Operation& op) {
  Handle& handle = *op.handle;
  if (StreamQueue* queue = QueueOf(op)) {
    const bool first = queue->empty();
    queue->Push(op);
    if (first) StartNext(handle, *queue);
    return;
  }
  // A second connect fails and leaves the connection as it is.
  if (op.kind == Opcode::kConnect && handle.connection == Connection::kNone) handle.connection = Connection::kConnecting;
  Begin(op);
}

// Begins the head of the queue; goes on with the next while heads end at once.
void Port::StartNext(Handle& handle, StreamQueue& queue) {
  while (Operation* head = queue.head()) {
    if (head->state != OperationState::kWaiting || head->backlogged) return;
    Status status = Status::kOk;
    int32_t native_code = 0;
    bool ended = false;
    switch (head->kind) {
      case Opcode::kAccept: {
        const uint64_t now = NowTick();
        if (handle.accept_not_before > now) {
          if (!handle.accept_timer.armed()) {
            handle.accept_timer.owner = &handle;
            handle.accept_timer.kind = kTimerAccept;
            timers_.Arm(handle.accept_timer, handle.accept_not_before);
            kick_wanted_ = true;
          }
          return;
        }
        break;
      }
      case Opcode::kRecv:
        ended = true;
        if (handle.connection != Connection::kConnected)
          native_code = NotConnectedCode();
        else if (handle.receive_error != 0)
          native_code = handle.receive_error;
        else if (!handle.read_shut)
          ended = false;
        break;
      case Opcode::kSend:
      case Opcode::kSendv:
        ended = true;
        if (handle.connection != Connection::kConnected)
          native_code = NotConnectedCode();
        else if (handle.send_error != 0)
          native_code = handle.send_error;
        else if (head->length != 0 || handle.write_shut)
          ended = false;
        break;
      case Opcode::kShutdown: {
        ended = true;
        Outcome outcome;
        ShutdownDirection(handle, static_cast<int>(head->position), outcome);
        native_code = outcome.native_code;
        if (native_code == 0) {
          if (head->position != 0) handle.read_shut = true;
          if (head->position != 1) handle.write_shut = true;
        }
        break;
      }
      default:
        CP_ASSERT(!"not an operation of a stream");
    }
    if (!ended) {
      Begin(*head);
      return;
    }
    if (native_code != 0) status = MapError(native_code);
    Operation& op = *head;
    queue.Remove(op);
    Complete(op, status, native_code);
  }
}

// A connection's error is told by the OS once (SO_ERROR): what it was goes to every later operation of the direction.
int32_t Port::KeepReceiveError(Handle& handle, int32_t native_code) {
  // Linux gives EPIPE to a recv whose peer sent its end and then a reset; Windows says reset (TCP-04).
  if (MapError(native_code) == Status::kEPIPE) native_code = ResetCode();
  return handle.receive_error = native_code;
}

void Port::KeepSendError(Handle& handle, int32_t native_code) {
  if (IsReset(native_code)) handle.reset_seen = true;
  if (IsStreamFatal(native_code)) handle.send_error = native_code;
}

// A call for more could keep the thread going for as long as the peer reads or writes on another processor.
constexpr size_t kMoveNowMax = 1u << 20;

uint64_t Port::ReceiveNow(Handle& handle, std::span<std::byte> memory) {
  if (!CanMoveNow() || closing_ || handle.kind != HandleKind::kSocket || handle.connection != Connection::kConnected ||
      !handle.receiving.empty() || handle.receive_error != 0 || handle.read_shut || memory.empty())
    return 0;
  const Outcome outcome = MoveNow(handle, false, memory.data(), std::min(memory.size(), kMoveNowMax));
  const int32_t code = outcome.native_code;
  if (code != 0 && !Transient(code) && !IsOutOfDescriptors(code)) KeepReceiveError(handle, code);
  if (code != 0) return 0;
  bytes_read_ += static_cast<double>(outcome.result);
  return static_cast<uint64_t>(outcome.result);
}

uint64_t Port::SendNow(Handle& handle, std::span<const std::byte> memory) {
  if (!CanMoveNow() || closing_ || handle.kind != HandleKind::kSocket || handle.connection != Connection::kConnected ||
      !handle.sending.empty() || handle.send_error != 0 || handle.write_shut || memory.empty())
    return 0;
  const Outcome outcome = MoveNow(handle, true, const_cast<std::byte*>(memory.data()), std::min(memory.size(), kMoveNowMax));
  const int32_t code = outcome.native_code;
  if (code != 0) {
    KeepSendError(handle, code);
    // Of whatever kind it is: the operation that is to tell it wouldn't be told again.
    if (!Transient(code) && !IsOutOfDescriptors(code)) handle.send_error = code;
    return 0;
  }
  bytes_written_ += static_cast<double>(outcome.result);
  return static_cast<uint64_t>(outcome.result);
}

void Port::MarkInKernel(Operation& op, Route route) {
  op.state = OperationState::kKernel;
  op.route = route;
}

void Port::Report(Operation& op, const Outcome& outcome) {
  CP_ASSERT(op.pending());
  Handle* handle = op.handle;
  StreamQueue* queue = QueueOf(op);
  const bool ending = op.ended_by != EndedBy::kNone || closing_;
  const int32_t code = outcome.native_code;
  op.state = OperationState::kWaiting;

  // Not an open: its EAGAIN is an answer (a lease that another process holds, fcntl(2)), and would be given again at once.
  const bool refused = op.kind == Opcode::kOpen && MapError(code) == Status::kEAGAIN;
  if (code != 0 && Transient(code) && !ending && !refused) return Begin(op);
  if (op.kind == Opcode::kAccept && code != 0 && IsAborted(code) && !ending) return Begin(op);

  const bool moves = op.kind == Opcode::kRead || op.kind == Opcode::kWrite || op.kind == Opcode::kReadv || op.kind == Opcode::kWritev ||
                     op.kind == Opcode::kRecv || op.kind == Opcode::kSend || op.kind == Opcode::kSendv;
  Status status = Status::kOk;
  int32_t native_code = 0;
  if (code == 0 && moves) {
    op.done += static_cast<uint64_t>(outcome.result);
    // A send or write isn't done until all is taken; a read goes on to the end of the file.
    const bool whole = op.done >= op.length || op.kind == Opcode::kRecv;
    if (!whole && outcome.result > 0) {
      if (!ending) return Begin(op);
      // Of a read as well: whether it is short because the file ends here only another try would tell.
      native_code = CanceledCode();
    } else if (!whole && IsWriting(op.kind)) {
      native_code = ending ? CanceledCode() : InvalidCode();  // took nothing and says no error: never seen, never ends otherwise
    }
    if (op.kind == Opcode::kRecv && outcome.result == 0 && op.length > 0 && handle->reset_seen && !handle->read_shut)
      native_code = handle->receive_error = ResetCode();
  } else {
    native_code = code;
  }

  if (native_code != 0) {
    const bool ours =
        op.ended_by != EndedBy::kNone && (IsCanceled(native_code) || op.ended_by == EndedBy::kClose || Transient(native_code));
    if (ours) {
      native_code = CanceledCode();
      status = op.ended_by == EndedBy::kTimeout ? Status::kETIMEDOUT : Status::kECANCELED;
    } else {
      op.ended_by = EndedBy::kNone;
      status = MapError(native_code);
      if (op.kind == Opcode::kRecv) {
        if (handle->read_shut) {
          status = Status::kOk;
        } else if (IsStreamFatal(native_code)) {
          native_code = KeepReceiveError(*handle, native_code);
          status = MapError(native_code);
        }
      } else if (op.kind == Opcode::kSend || op.kind == Opcode::kSendv) {
        KeepSendError(*handle, native_code);
      } else if (op.kind == Opcode::kAccept && IsOutOfDescriptors(native_code)) {
        handle->accept_not_before = NowTick() + kAcceptPauseMs + 1;
      }
    }
  } else {
    op.ended_by = EndedBy::kNone;  // the cancel lost its race
  }
  if (op.kind == Opcode::kConnect && handle != nullptr && handle->connection != Connection::kConnected)
    handle->connection = native_code == 0 ? Connection::kConnected : Connection::kNone;
  if (op.kind == Opcode::kSize && code == 0) op.result = static_cast<double>(outcome.result);

  if (queue != nullptr) queue->Remove(op);
  // Asked before: the end of the last operation of a closed handle frees it, and another thread may have its slot at once.
  const bool goes_on = queue != nullptr && !handle->closed && !closing_;
  Complete(op, status, native_code);
  if (goes_on) StartNext(*handle, *queue);
}

void Port::Complete(Operation& op, Status status, int32_t native_code) {
  CP_ASSERT(op.pending());
  timers_.Drop(op.timer);
  Attachment& home = *op.home;
  PacketQueue& queue = op.internal ? home.internal : queue_;
  const bool dropped = closing_ || (op.internal && home.gone);
  if (dropped) queue.Unreserve();
  CompletionEntry nowhere{};
  CompletionEntry& entry = dropped ? nowhere : queue.Append();
  entry.kind = static_cast<uint8_t>(op.kind);
  entry.flags = op.internal ? kCompletionInternal : 0;
  entry.ended_by = static_cast<uint16_t>(status == Status::kOk ? EndedBy::kNone : op.ended_by);
  entry.slot = SlotOf(op);
  entry.status = static_cast<int32_t>(status);
  entry.native_code = native_code;
  entry.handle_index = op.handle != nullptr ? op.handle->index : 0;
  entry.key = op.key;
  entry.bytes = static_cast<double>(op.done);
  entry.operation_id = op.operation_id;
  entry.handle_id = op.handle_id;
  entry.result = op.result;
  op.state = OperationState::kDone;
  in_kernel_--;
  if (op.done > 0) (IsWriting(op.kind) ? bytes_written_ : bytes_read_) += entry.bytes;

  Handle* handle = op.handle;
  if (handle != nullptr) {
    if (op.list_previous != nullptr)
      op.list_previous->list_next = op.list_next;
    else
      handle->operations = op.list_next;
    if (op.list_next != nullptr) op.list_next->list_previous = op.list_previous;
    op.list_previous = op.list_next = nullptr;
    handle->operation_count--;
    op.handle = nullptr;
  }
  if (MutantIs(Mutant::kDoubleCancel) && !dropped && status == Status::kECANCELED) {
    const CompletionEntry copy = entry;
    if (CompletionEntry* again = queue.TryAppend()) *again = copy;
  }
  // The block of a released view returns to the allocator when the packet is delivered, not before: Deliver unpins.
  if (shared_) TellOfEnd(home, op.internal);
  if (dropped) DropPacket(entry);  // the last of it: a thread that has left may be forgotten now, and `op` with it
  if (handle != nullptr) FreeIfIdle(*handle);
}

// What the end of an operation of a shared port makes others do.
void Port::TellOfEnd(Attachment& home, bool internal) {
  home.in_kernel--;
  if (leaving_ > 0) driver_turned_.notify_all();
  if (closing_) {
    if (in_kernel_ == 0)
      for (const auto& each : attachments_)
        if (each && !each->gone) waiters_.wakes.push_back({each->waiter.wake, true});
    return;
  }
  if (!internal) {
    waiters_.Release();
    if (waiters_.NeedsTick() && !driver_ticks_) kick_wanted_ = true;
  } else if (!home.gone) {
    // Its thread may sleep in a blocking get or in its event loop.
    waiters_.wakes.push_back({home.waiter.wake, false});
    waiters_.wakes.push_back({home.waiter.wake, true});
    return;
  }
  if (home.in_kernel == 0 && home.watches_idle && !home.gone) waiters_.wakes.push_back({home.waiter.wake, true});
}

void Port::CompleteWithHandle(Operation& op, HandleKind kind, OsHandle os, const AddressEntry* peer, bool append) {
  // A shared port's belongs to the port until a thread takes the packet.
  Handle* made = HandleTable::Process().Create(shared_ ? 0 : options_.owner, kind, os);
  Handle* listener = op.handle;
  StreamQueue* queue = QueueOf(op);
  const bool goes_on = queue != nullptr && !listener->closed && !closing_;
  if (made == nullptr) {
    CloseOs(kind, os);
    if (queue != nullptr) queue->Remove(op);
    Complete(op, Status::kENFILE, 0);
  } else {
    made->append = append;
    if (kind == HandleKind::kSocket) made->connection = Connection::kConnected;
    if (peer != nullptr) made->peer = *peer;
    op.ended_by = EndedBy::kNone;
    op.result = made->id();
    op.handle_id = op.kind == Opcode::kOpen ? made->id() : op.handle_id;
    if (op.kind == Opcode::kOpen && !closing_) {
      const int error = Bind(*made, op.key);
      CP_ASSERT(error == 0);
    }
    if (queue != nullptr) queue->Remove(op);
    Complete(op, Status::kOk, 0);
  }
  if (goes_on) StartNext(*listener, *queue);
}

// ---- packets --------------------------------------------------------------------------------------------------------------

bool Port::Post(Attachment& a) {
  Lock lock(*this);
  if (closing_) return false;
  const Control& c = *a.control;
  IngestStaged(a);
  if (!Settle()) {
    WaitForDriver(lock);
    if (closing_) return false;
  }
  CompletionEntry* entry = MutantIs(Mutant::kNoRoomForPosts) ? nullptr : queue_.TryAppend();
  if (entry == nullptr) return false;
  entry->slot = c.post_tag;
  entry->key = c.post_key;
  entry->bytes = c.post_bytes;
  entry->operation_id = c.post_operation_id;
  entry->handle_index = a.index;  // whose the tag is
  posts_++;
  if (!shared_) return true;
  if (entry->slot != kNoTag) a.live++;
  waiters_.Release();
  if (waiters_.NeedsTick() && !driver_ticks_) kick_wanted_ = true;
  return true;
}

uint32_t Port::Fill(Attachment& a, uint32_t max, uint32_t flags) {
  auto* out = reinterpret_cast<CompletionEntry*>(a.block + kControlBytes + kSubmissionsMax * kEntryBytes);
  uint32_t count = 0;
  const auto take = [&](PacketQueue& queue) {
    while (count < max && !queue.empty()) {
      CompletionEntry& entry = out[count];
      PutOut(a, &entry, queue.front());
      queue.Pop();
      if (MutantIs(Mutant::kLostPacket) && packets_ % 1000 == 0) continue;
      if (MutantIs(Mutant::kKey32Bit)) entry.key = std::fmod(entry.key, 4294967296.0);
      count++;
    }
  };
  if ((flags & kEnterWantInternal) != 0) take(a.internal);
  if ((flags & kEnterWantUser) != 0) take(queue_);
  if (MutantIs(Mutant::kLifoQueue)) std::reverse(out, out + count);
  return count;
}

void Port::Address(Attachment& a, CompletionEntry* out, const CompletionEntry& entry) {
  out->next_slot_generation = Deliver(entry, &a);
  if (!shared_) return;
  if ((entry.flags & kCompletionDelivered) != 0) out->flags = kCompletionForeign;
  const bool post = entry.kind == static_cast<uint8_t>(Opcode::kPost);
  const uint32_t home = post ? entry.handle_index : entry.slot >> kSlotBits;
  if (!post) out->slot = entry.slot & (kSlotsMax - 1);
  if (home != a.index && !(post && entry.slot == kNoTag)) out->flags |= kCompletionForeign;
  if (post) out->handle_index = 0;
  const bool makes = entry.kind == static_cast<uint8_t>(Opcode::kAccept) || entry.kind == static_cast<uint8_t>(Opcode::kOpen);
  if (makes && entry.status == 0) HandleTable::Process().Give(entry.result, a.owner);
}

// The packet leaves: the slot is free again under its next generation, which is returned; the memory is the user's again. `taker`: null
// where nobody gets it.
uint32_t Port::Deliver(const CompletionEntry& entry, const Attachment* taker) {
  if ((entry.flags & kCompletionDelivered) != 0) return 0;
  if (entry.kind == static_cast<uint8_t>(Opcode::kPost)) {
    if (!shared_ || entry.slot == kNoTag) return 0;
    Attachment& poster = *attachments_[entry.handle_index];
    poster.live--;
    if (&poster != taker && !poster.gone) poster.returned.push_back({entry.slot, 0});
    if (&poster != taker) EraseIfOver(poster);
    return 0;
  }
  Attachment& home = *HomeOf(entry.slot);
  Operation* op = home.operations.At(entry.slot & (kSlotsMax - 1));
  CP_ASSERT(op != nullptr);
  if (op->state != OperationState::kDone) return op->generation;  // only the mutant that reports twice
  UnpinMemory(*op);
  op->extra.reset();
  op->state = OperationState::kFree;
  const uint32_t generation = op->generation = OperationTable::NextGeneration(op->generation);
  if (!shared_) return generation;
  in_flight_--;
  home.live--;
  if (&home != taker) {
    if (!home.gone && !MutantIs(Mutant::kSlotStays)) home.returned.push_back({op->slot, generation});
    EraseIfOver(home);
  }
  return generation;
}

// A thread's attachment goes when it has left and nothing names it any more.
void Port::EraseIfOver(Attachment& a) {
  if (a.gone && a.live == 0 && keep_attachments_ == 0) attachments_[a.index].reset();
}

void Port::DropPackets(PacketQueue& queue) {
  while (!queue.empty()) {
    const CompletionEntry entry = queue.front();
    queue.Pop();
    DropPacket(entry);
  }
}

void Port::DropPacket(const CompletionEntry& entry) {
  Deliver(entry, nullptr);
  const bool makes = entry.kind == static_cast<uint8_t>(Opcode::kAccept) || entry.kind == static_cast<uint8_t>(Opcode::kOpen);
  if (!makes || entry.status != 0) return;
  const auto generation = static_cast<uint32_t>(std::floor(entry.result / kHandlesMax));
  const auto index = static_cast<uint32_t>(entry.result - static_cast<double>(generation) * kHandlesMax);
  if (Handle* handle = HandleTable::Process().Find(index, generation)) Shut(*handle, false, nullptr);
}

// ---- cancel, close --------------------------------------------------------------------------------------------------------

bool Port::Cancel(Attachment& a, uint32_t slot, uint32_t generation, EndedBy by) {
  Lock lock(*this);
  IngestStaged(a);
  Operation* op = a.operations.Peek(slot, generation);
  if (op == nullptr || !op->pending() || closing_) return false;
  CancelOne(*op, by);
  // A private port's goes along with what its thread hands over next, by the end of the job at the latest, as starts do: a call of the
  // kernel for each of many cancels would cost more than the cancels.
  if (shared_) Flush(false);
  return true;
}

int64_t Port::CancelHandle(Attachment& a, uint32_t index, uint32_t generation, EndedBy by) {
  Lock lock(*this);
  IngestStaged(a);
  Handle* found = FindHandle(index, generation);
  if (found == nullptr) return -1;
  Handle& handle = *found;
  const uint32_t count = handle.operation_count;
  for (Operation* op = handle.operations; op != nullptr;) {
    // Ending one takes it out of the list, and nothing else: StartNext only begins operations, and those are met in their turn.
    Operation* next = op->list_next;
    CancelOne(*op, by);
    op = next;
  }
  Flush(false);
  return count;
}

// Asks one pending operation to end; one that isn't with the OS yet ends here.
void Port::CancelOne(Operation& op, EndedBy by) {
  if (!op.pending()) return;
  if (op.ended_by == EndedBy::kNone || by == EndedBy::kClose) op.ended_by = by;
  if (op.state == OperationState::kKernel) return RequestCancel(op);
  if (op.backlogged) Withdraw(op);
  Handle* handle = op.handle;
  StreamQueue* queue = QueueOf(op);
  const bool head = queue != nullptr && queue->head() == &op;
  if (queue != nullptr) queue->Remove(op);
  if (op.kind == Opcode::kConnect && handle->connection == Connection::kConnecting) handle->connection = Connection::kNone;
  const bool goes_on = head && !handle->closed && !closing_;
  Complete(op, op.ended_by == EndedBy::kTimeout ? Status::kETIMEDOUT : Status::kECANCELED, CanceledCode());
  if (goes_on) StartNext(*handle, *queue);
}

Handle* Port::FindHandle(uint32_t index, uint32_t generation) {
  Handle* handle = HandleTable::Process().Find(index, generation);
  return handle != nullptr && handle->port.load(std::memory_order_relaxed) == this ? handle : nullptr;
}

int Port::Associate(Handle& handle, double key) {
  Lock lock(*this);
  if (closing_) return BadHandleCode();
  return Bind(handle, key);
}

int Port::Bind(Handle& handle, double key) {
  CP_ASSERT(!handle.closed && !handle.associated);
  const int error = BindHandle(handle);
  if (error != 0) return error;
  handle.associated = true;
  if (shared_) handle.owner.store(0, std::memory_order_relaxed);
  handle.key = key;
  handle.port_previous = nullptr;
  handle.port_next = handles_;
  if (handles_ != nullptr) handles_->port_previous = &handle;
  handles_ = &handle;
  handle.port.store(this, std::memory_order_relaxed);
  return 0;
}

void Port::Detach(Handle& handle) {
  if (handle.port_previous != nullptr)
    handle.port_previous->port_next = handle.port_next;
  else
    handles_ = handle.port_next;
  if (handle.port_next != nullptr) handle.port_next->port_previous = handle.port_previous;
  handle.port_previous = handle.port_next = nullptr;
  handle.port.store(nullptr, std::memory_order_relaxed);
}

bool Port::CloseHandle(Attachment& a, uint32_t index, uint32_t generation, bool reset) {
  Lock lock(*this);
  if (!closing_) IngestStaged(a);
  Handle* handle = FindHandle(index, generation);
  if (handle == nullptr) return false;
  Shut(*handle, reset, &lock);
  return true;
}

void Port::Shut(Handle& handle, bool reset, Lock* lock) {
  CP_ASSERT(!handle.closed);
  HandleTable::Process().Retire(handle);
  if (handle.accept_timer.armed()) timers_.Drop(handle.accept_timer);
  if (handle.operations != nullptr) {
    for (Operation* op = handle.operations; op != nullptr;) {
      Operation* next = op->list_next;
      CancelOne(*op, EndedBy::kClose);
      op = next;
    }
    // The kernel's references to the descriptor go with its operations: reap now what the cancels ended, so that close is a close.
    if (handle.operations != nullptr) Flush(true);
    if (handle.operations != nullptr && shared_ && lock != nullptr) WaitForDriver(*lock);
  }
  if (!MutantIs(Mutant::kNoFin)) ReleaseHandle(handle, handle.operations != nullptr, reset);
  handle.os = kOsHandleNone;
  FreeIfIdle(handle);
}

void Port::FreeIfIdle(Handle& handle) {
  if (!handle.closed || handle.operations != nullptr || handle.pool_jobs > 0) return;
  if (handle.os != kOsHandleNone) return;  // CloseHandle is still at work
  if (handle.port.load(std::memory_order_relaxed) != nullptr) Detach(handle);
  HandleTable::Process().Free(handle);
}

void Port::Close() {
  Lock lock(*this);
  if (closing_) return;
  closing_ = true;
  if (shared_) {
    // What was handed out and not fetched is dropped with the rest.
    for (const auto& a : attachments_)
      if (a && a->waiter.handed) {
        a->waiter.handed = false;
        queue_.PutBack(a->waiter.number, a->waiter.packet);
      }
    waiters_.CloseAll();
    // Everybody hears of it: who doesn't wait, by the control block, which JavaScript looks at before each call.
    for (const auto& a : attachments_) {
      if (!a || a->gone) continue;
      a->control->flags |= kControlClosing;
      waiters_.wakes.push_back({a->waiter.wake, true});
    }
  } else {
    first().control->submit_count = 0;
  }
  keep_attachments_++;
  DropPackets(queue_);
  for (const auto& a : attachments_) {
    if (!a) continue;
    DropPackets(a->internal);
    a->operations.ForEachUsed([this](Operation& op) { CancelOne(op, EndedBy::kClose); });
  }
  Flush(true);
  keep_attachments_--;
  for (const auto& a : attachments_)
    if (a) EraseIfOver(*a);
  for (Handle* handle = handles_; handle != nullptr; handle = handle->port_next)
    if (handle->accept_timer.armed()) timers_.Drop(handle->accept_timer);
}

void Port::DriveClosing() {
  Flush(true);
  while (in_kernel_ > 0 && Notify(true)) {
    Notify(false);
    Flush(true);
  }
}

void Port::CloseAndWait() {
  Close();
  AbandonAll();
  Finish();
  CP_ASSERT(in_kernel_ == 0);
  LetGoOfJobs();
}

// Whatever runs on the pool may hang as long as a disk does, and the memory of its operation is about to go.
void Port::AbandonAll() {
  keep_attachments_++;
  for (const auto& a : attachments_) {
    if (!a) continue;
    a->operations.ForEachUsed([this](Operation& op) {
      if (op.state == OperationState::kKernel && op.route == Route::kPool) Abandon(op);
    });
  }
  keep_attachments_--;
  for (const auto& a : attachments_)
    if (a) EraseIfOver(*a);
}

// ---- timers ---------------------------------------------------------------------------------------------------------------

double Port::NextTimeoutMs() const {
  const uint64_t next = timers_.NextExpiration();
  if (next == TimerWheel::kNever) return -1;
  return std::max(0.0, static_cast<double>(next) - MonotonicMs());
}

void Port::RunTimers() {
  timers_.Advance(NowTick(), [this](TimerNode& node) {
    if (node.kind == kTimerAccept) {
      auto& handle = *static_cast<Handle*>(node.owner);
      StartNext(handle, handle.receiving);
    } else {
      CancelOne(*static_cast<Operation*>(node.owner), EndedBy::kTimeout);
    }
  });
}

void Port::WriteStats(Attachment& a) {
  Lock lock(*this);
  Control& c = *a.control;
  // Posts since the last enter count, too.
  c.in_kernel = shared_ ? a.in_kernel : in_kernel_;
  c.in_flight = in_flight_;
  c.queued = queue_.size();
  c.queued_internal = a.internal.size();
  double* stats = c.stats;
  stats[kStatOperationsStarted] = static_cast<double>(started_);
  stats[kStatPackets] = static_cast<double>(packets_);
  stats[kStatPosts] = static_cast<double>(posts_);
  stats[kStatBytesRead] = bytes_read_;
  stats[kStatBytesWritten] = bytes_written_;
  stats[kStatEnters] = static_cast<double>(enters_);
  stats[kStatWakeups] = static_cast<double>(wakeups_.load(std::memory_order_relaxed));
  stats[kStatArenaBytes] = static_cast<double>(arena_.bytes());
  stats[kStatArenaUsed] = static_cast<double>(arena_.used());
  stats[kStatThreads] = attached_;
  stats[kStatWaiting] = waiters_.waiting();
  stats[kStatRunning] = waiters_.running();
  stats[kStatReleases] = static_cast<double>(waiters_.releases());
  stats[kStatSleepsNoticed] = static_cast<double>(waiters_.sleeps_noticed());
  BackendStats(c);
}

}  // namespace cp
