// What only a shared port does: gets that wait, threads that come and go, and the turns of its driver. See port.h for who may call what,
// and waiters.h for who gets which packet.
//
// Invariants: everything but `mutex_`, `driver_` and `closing_` is under the mutex. The driver never sleeps over something to do: what is
// published under the mutex sets `kick_wanted_`, and whoever lets go of the mutex kicks the driver if it waits; the driver itself looks at
// everything under the mutex, in the same hold in which it says that it waits. The one exception is Postpone: while the driver's wait has an end
// within kDozeMs, what a start published may wait for that.
#include "core/port.h"

#include <algorithm>
#include <array>
#include <limits>
#include <span>

#include "core/test_hooks.h"

namespace cp {

namespace {
constexpr double kForever = std::numeric_limits<double>::infinity();
constexpr double kTicksLingerMs = 100;
constexpr double kDozeMs = 1;           // how long a start may be left to the driver's own waking
constexpr uint32_t kPostponedMax = 16;  // starts at once: beyond that a driver on another processor could have begun with them
}  // namespace

void Port::UnlockAndWake() {
  const bool kick = kick_wanted_ && driver_waits_ && !driver_kicked_ && !on_driver();
  if (kick) driver_kicked_ = true;
  kick_wanted_ = false;
  if (waiters_.wakes.empty()) {
    mutex_.unlock();
    if (kick) Kick();
    return;
  }
  // Few without an allocation: a post that hands its packet over has one.
  std::array<Waiters::Call, 4> few;
  std::vector<Waiters::Call> many;
  std::span<Waiters::Call> calls = few;
  if (waiters_.wakes.size() > few.size()) {
    many.swap(waiters_.wakes);
    calls = many;
  } else {
    calls = calls.first(waiters_.wakes.size());
    std::move(waiters_.wakes.begin(), waiters_.wakes.end(), calls.begin());
    waiters_.wakes.clear();
  }
  mutex_.unlock();
  if (kick) Kick();
  for (const Waiters::Call& call : calls) {
    if (call.loop)
      call.wake->Notify();
    else
      call.wake->Unpark();
  }
}

// ---- gets -----------------------------------------------------------------------------------------------------------------

uint32_t Port::EnterShared(Attachment& a) {
  Control& c = *a.control;
  const uint32_t flags = c.enter_flags;
  const double timeout = c.min_complete > 0 ? c.timeout_ms : 0;
  const uint32_t max = std::min(c.max_packets, kCompletionsMax);
  c.enter_error = 0;
  c.refusal = kRefusalNone;
  Lock lock(*this);
  if (closing_) c.submit_count = 0;
  const uint64_t started = started_;
  IngestStaged(a);
  if (MutantIs(Mutant::kLateSubmit) && (flags & kEnterSubmitOnly) != 0) kick_wanted_ = false;
  if ((flags & kEnterArm) != 0) a.watches_idle = true;
  uint32_t count = 0;
  if ((flags & kEnterSubmitOnly) != 0) {
    // What defer() gathered is many at once already.
    if (started_ - started == 1) Postpone(a);
  } else {
    if (!closing_) count = TakeShared(a, flags, max, timeout, lock);
    if (count == 0 && postponed_ > 0) kick_wanted_ = true;
  }
  if (waiters_.NeedsTick() && !driver_ticks_) kick_wanted_ = true;
  c.completions = count;
  c.in_kernel = a.in_kernel;
  c.in_flight = in_flight_;
  c.next_deadline_ms = kForever;  // the driver's business
  WriteControl(a);
  c.returned = static_cast<uint32_t>(std::min<size_t>(a.returned.size(), kReturnedMax));
  for (uint32_t i = 0; i < c.returned; i++) {
    c.returns[i] = a.returned.back();
    a.returned.pop_back();
  }
  return count;
}

// A thread with more packets before it is about to start more: one call of the driver serves all of that, and where both share a processor the
// driver would take it at each call. Nothing depends on the thread's coming back: the driver, which dozes, looks by itself. The steps are those
// of core/model/driver.pml: Postpone; Rest in EnterShared, TakeShared, EndJob and BeginBlocking; what leaves or closes tells it in any case.
void Port::Postpone(Attachment& a) {
  if (!kick_wanted_ || !driver_dozes_ || !a.waiter.placed || queue_.empty() || postponed_ >= kPostponedMax) return;
  kick_wanted_ = false;
  postponed_++;
}

uint32_t Port::TakeShared(Attachment& a, uint32_t flags, uint32_t max, double timeout, Lock& lock) {
  Waiter& waiter = a.waiter;
  const bool job = (flags & kEnterJob) != 0;
  auto* out = reinterpret_cast<CompletionEntry*>(a.block + kControlBytes + kSubmissionsMax * kEntryBytes);
  const auto settle = [&] { return (flags & kEnterWantInternal) != 0 ? Fill(a, max, kEnterWantInternal) : 0; };
  const auto take = [&](uint32_t count) {
    for (; count < max && !queue_.empty(); count++) {
      Attachment::Taken& taken = a.taken.emplace_back(0, queue_.front());
      taken.number = queue_.Pop();
      PutOut(a, &out[count], taken.packet);
    }
    if (count > 0) a.control->unseen = 1;
    return count;
  };
  // The packet that another thread gave this one, and what else is there.
  const auto fetch = [&] {
    const CompletionEntry packet = waiter.packet;
    waiter.handed = false;
    waiter.until_job_ends = job;
    a.taken.emplace_back(waiter.number, packet);
    PutOut(a, out, packet);
    return take(1);
  };

  if (const uint32_t count = settle()) return count;
  if ((flags & kEnterWantUser) == 0 || max == 0) {
    if ((flags & kEnterArm) == 0) return 0;
    waiters_.Arrive(waiter);
    if ((flags & kEnterWantUser) == 0)
      waiters_.Disarm(waiter);
    else if (waiter.state == WaitState::kNone && !waiter.handed) {
      // The event loop's wait is this thread's next get; only the job that goes on has its place until it ends.
      if (!waiter.until_job_ends) waiters_.Leave(waiter);
      waiters_.Arm(waiter);
    }
    waiters_.Release();
    return 0;
  }
  if ((flags & kEnterMore) != 0 && waiter.placed && !waiter.handed) {
    if (a.control->unseen == 0) a.taken.clear();
    if (!queue_.empty()) waiters_.Enter(waiter, job);
    return take(0);
  }
  // The thread has come again, so it has seen what it got before.
  a.taken.clear();
  a.control->unseen = 0;
  if (waiter.handed) return fetch();
  if (job) waiters_.Arrive(waiter);
  if (waiter.state == WaitState::kBlocked && timeout <= 0) waiters_.Withdraw(waiter);
  if (waiter.state != WaitState::kBlocked) {
    waiters_.Leave(waiter);
    if (MutantIs(Mutant::kGivesAway)) waiters_.Release();
    if (waiters_.CanTake(waiter)) {
      const uint32_t count = take(0);
      // Its event loop is busy with them, and waits again when it says so.
      waiters_.Disarm(waiter);
      waiters_.Enter(waiter, job);
      waiters_.Release();  // a claim that was given up may be somebody else's
      return count;
    }
    if (timeout <= 0) {
      // With a job of the event loop that finds nothing no get has returned.
      if (!job && !MutantIs(Mutant::kNullDoesNotCount)) waiters_.Enter(waiter, false);
      if (job && (flags & kEnterArm) != 0) waiters_.Arm(waiter);
      waiters_.Release();
      return 0;
    }
    waiters_.Disarm(waiter);
    if (MutantIs(Mutant::kMissedPost)) {
      lock.Drop();
      waiter.wake->Park(0.03);
      lock.Acquire();
      if (closing_) return 0;
    }
    waiters_.Wait(waiter);
    if (postponed_ > 0) kick_wanted_ = true;
    if (!MutantIs(Mutant::kMissedPost)) waiters_.Release();  // a claim that was given up may be somebody else's
    if (waiters_.NeedsTick() && !driver_ticks_) kick_wanted_ = true;
  }
  const double until = MonotonicMs() + timeout;
  for (double left = timeout; left > 0 && !waiter.handed && !closing_; left = until - MonotonicMs()) {
    lock.Drop();
    const bool stays = waiter.wake->Park(left);
    lock.Acquire();
    if (waiter.handed || !stays) break;
    if (const uint32_t count = settle()) return count;  // it keeps its place among those that wait
  }
  if (waiter.handed) return fetch();
  if (closing_ || (flags & kEnterGoesOn) != 0) return 0;
  waiters_.Withdraw(waiter);
  if (!MutantIs(Mutant::kNullDoesNotCount)) waiters_.Enter(waiter, false);
  return 0;
}

void Port::EndJob(Attachment& a, bool all) {
  Lock lock(*this);
  if (MutantIs(Mutant::kJobNeverEnds) && !all) return;
  if (MutantIs(Mutant::kForgetsOtherPort) && all) return;
  if (!a.waiter.placed || (!all && !a.waiter.until_job_ends)) return;
  if (postponed_ > 0) kick_wanted_ = true;
  waiters_.Leave(a.waiter);
  waiters_.Release();
}

void Port::BeginBlocking(Attachment& a) {
  Lock lock(*this);
  if (postponed_ > 0) kick_wanted_ = true;
  waiters_.BeginBlocking(a.waiter);
}

void Port::EndBlocking(Attachment& a) {
  Lock lock(*this);
  waiters_.EndBlocking(a.waiter);
}

bool Port::Reserve(Attachment& a) {
  Lock lock(*this);
  if (in_flight_ >= options_.max_operations) return false;
  in_flight_++;
  a.deferred++;
  return true;
}

void Port::Unreserve(Attachment& a, uint32_t count) {
  Lock lock(*this);
  count = std::min(count, a.deferred);
  in_flight_ -= count;
  a.deferred -= count;
}

// ---- threads --------------------------------------------------------------------------------------------------------------

Attachment* Port::Attach(uint64_t owner, std::span<std::byte> block, std::shared_ptr<Wake> wake, uint64_t thread) {
  CP_ASSERT(shared_ && block.size() >= kBlockBytes);
  Lock lock(*this);
  if (closing_ || deserted_) return nullptr;
  // In turns, so that a number comes again only when nothing of its last bearer can be under way any more: the answer to a cancel comes
  // with the very call that submits it.
  uint32_t index = next_attachment_;
  for (uint32_t tried = 0; index < attachments_.size() && attachments_[index]; tried++) {
    if (tried == kAttachmentsMax) return nullptr;
    index = (index + 1) % kAttachmentsMax;
  }
  next_attachment_ = (index + 1) % kAttachmentsMax;
  if (index >= attachments_.size()) attachments_.resize(index + 1);
  attachments_[index] = std::make_unique<Attachment>(index, owner, block, options_.max_operations);
  Attachment& a = *attachments_[index];
  a.waiter.wake = std::move(wake);
  a.waiter.thread = thread;
  attached_++;
  queue_.ReservePutBack(attached_);
  return &a;
}

bool Port::Detach(Attachment& a) {
  Lock lock(*this);
  a.control->submit_count = 0;
  // A worker that was terminated while it waited never saw what it was given: it is somebody else's, at its old place.
  if (a.control->unseen != 0 && !closing_ && !MutantIs(Mutant::kLosesHanded)) {
    for (Attachment::Taken& each : a.taken) {
      each.packet.flags |= kCompletionDelivered;
      const bool makes =
          each.packet.kind == static_cast<uint8_t>(Opcode::kAccept) || each.packet.kind == static_cast<uint8_t>(Opcode::kOpen);
      if (makes && each.packet.status == 0) HandleTable::Process().Give(each.packet.result, 0);
      queue_.PutBack(each.number, each.packet);
    }
  }
  waiters_.Remove(a.waiter);
  in_flight_ -= a.deferred;
  a.deferred = 0;
  CancelAllOf(a);
  waiters_.Release();
  if (attached_ > 1) {
    a.operations.ForEachUsed([&](Operation& op) {
      if (op.state == OperationState::kKernel && op.route == Route::kPool && UsesMemoryOf(op, a)) Abandon(op);
    });
    const auto busy = [&] {
      bool found = false;
      a.operations.ForEachUsed([&](Operation& op) { found = found || (op.pending() && UsesMemoryOf(op, a)); });
      return found;
    };
    if (busy()) WaitForDriver(lock);
    std::unique_lock<SpinMutex> held(mutex_, std::adopt_lock);
    leaving_++;
    driver_turned_.wait(held, [&] { return !busy(); });
    leaving_--;
    held.release();
  }
  DropPackets(a.internal);
  a.gone = true;
  a.returned = {};
  for (uint32_t id = 1; id < memory_.size(); id++) {
    Memory& memory = memory_[id];
    if (memory.owner != &a) continue;
    if (memory.registered && memory.uses == 0) {
      memory = {};
      free_memory_.push_back(id);
    }
    memory.registered = false;
  }
  const bool last = --attached_ == 0;
  deserted_ = last;
  if (MutantIs(Mutant::kClosesWithCreator) && a.index == 0 && !last) {
    lock.Drop();
    Close();
    return false;
  }
  if (!last) EraseIfOver(a);
  return last;
}

// Asks for the end of what can't go on without the thread: what promises or streams wait for, and what works in its memory.
void Port::CancelAllOf(Attachment& a) {
  a.operations.ForEachUsed([&](Operation& op) {
    const bool own = UsesMemoryOf(op, a) && !MutantIs(Mutant::kOwnMemoryStays);
    if (op.pending() && (op.internal || own || MutantIs(Mutant::kCancelsAllOfThread))) CancelOne(op, EndedBy::kClose);
  });
  kick_wanted_ = true;
}

bool Port::UsesMemoryOf(const Operation& op, const Attachment& a) const {
  const auto owns = [&](uint32_t id) { return id != kMemoryArena && id < memory_.size() && memory_[id].owner == &a; };
  if (op.memory_id != kMemoryNone && owns(op.memory_id)) return true;
  return op.extra && std::any_of(op.extra->segments.begin(), op.extra->segments.end(), [&](const Segment& s) { return owns(s.memory_id); });
}

void Port::Stop() {
  Close();
  {
    Lock lock(*this);
    AbandonAll();
    stopping_ = true;
    kick_wanted_ = true;
  }
  JoinDriver();
  CP_ASSERT(in_kernel_ == 0);
  LetGoOfJobs();
  // The handles were the port's.
  while (handles_ != nullptr) {
    Handle& handle = *handles_;
    Detach(handle);
    HandleTable::Process().Retire(handle);
    if (handle.os != kOsHandleNone) CloseOs(handle.kind, handle.os);  // else it is left to a job
    handle.os = kOsHandleNone;
    HandleTable::Process().Free(handle);
  }
}

// ---- the driver -----------------------------------------------------------------------------------------------------------

// Until all that is published now has been submitted, and what that ended at once has been reaped: two turns of the driver.
void Port::WaitForDriver(Lock&) {
  if (on_driver()) return;
  const uint64_t target = driver_turns_ + 2;
  driver_target_ = target;
  driver_awaited_++;
  if (driver_waits_ && !driver_kicked_) {
    driver_kicked_ = true;
    Kick();
  }
  std::unique_lock<SpinMutex> held(mutex_, std::adopt_lock);
  driver_turned_.wait(held, [&] { return driver_turns_ >= target; });
  held.release();
  driver_awaited_--;
}

double Port::DriverTurn() {
  driver_turns_++;
  postponed_ = 0;
  if (driver_awaited_ > 0 || leaving_ > 0) driver_turned_.notify_all();
  if (!timers_.empty()) RunTimers();
  if (waiters_.NeedsTick()) {
    const double now = MonotonicMs();
    if (now >= next_tick_) {
      std::vector<Waiter*> all;
      for (const auto& a : attachments_)
        if (a && !a->gone) all.push_back(&a->waiter);
      waiters_.Tick(all, [this](uint64_t thread) { return SampleThread(thread); });
      next_tick_ = now + Waiters::kTickMs;
    }
  }
  // The need comes and goes with each burst of packets; it goes on for a while, because each beginning takes a kick.
  if (waiters_.NeedsTick()) {
    ticks_until_ = MonotonicMs() + kTicksLingerMs;
    driver_ticks_ = true;
  } else if (driver_ticks_) {
    driver_ticks_ = MonotonicMs() < ticks_until_;
  }
  kick_wanted_ = false;
  // It dozes while threads are on their way through the queue, and operations begin or end: `dozes` and `timed` of core/model/driver.pml, set in
  // the hold in which the wait begins.
  const uint64_t moves = 2 * started_ - in_kernel_;
  driver_dozes_ = !queue_.empty() && moves != moves_before_;
  moves_before_ = moves;
  if (stopping_ && in_kernel_ == 0) return -1;
  if (driver_turns_ < driver_target_) return 0;  // not until who waits has woken: it may wait for this processor
  double wait = NextTimeoutMs();
  if (wait < 0) wait = kForever;
  if (driver_ticks_) wait = std::min(wait, Waiters::kTickMs);
  if (driver_dozes_ && MutantIs(Mutant::kDozesOn)) return kForever;
  return driver_dozes_ ? std::min(wait, kDozeMs) : wait;
}

}  // namespace cp
