// See waiters.h. Invariants: a waiter is in `blocked_` exactly while kBlocked and not handed, in `armed_` exactly while kArmed; `claims_` is
// the number of waiters with `claims`; `running_` that of waiters with `placed`, not `asleep`, and `blocking` 0; `lent_` that of `asleep`.
#include "core/waiters.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/assert.h"
#include "core/test_hooks.h"

namespace cp {

namespace {
// A sleep and its wake-up cost both sides about as much as a hundred posts, and a thread that is woken takes the poster's processor at once
// where they share one. So a thread whose last sleep was short lets others run before it sleeps, and for a few more times after that.
constexpr int kYields = 4;
constexpr auto kShortSleep = std::chrono::microseconds(100);
// After so many looks a thread leaves its wait.
constexpr int kLooksInARow = 25;
// What Doze may be late by, as a share of its time: a process of low priority has poll(2) wake it up so much later (Linux, fs/select.c,
// select_estimate_accuracy; others a fifth of it).
constexpr double kDozeSlack = 0.005;
}  // namespace

void Wake::Unpark() {
  bool dozes;
  {
    std::lock_guard lock(mutex_);
    if (token_) return;
    token_ = true;
    dozes = dozes_;
  }
  // Without the mutex: a thread that is woken, and may run at once, would have to wait for it.
  if (dozes)
    EndDoze();
  else
    condition_.notify_one();
}

// All that a wake-up touches is out of the caches by then, so little is done in a look: it is taken from within the sleep, without the port's mutex
// and without JavaScript. And all threads look at the same moments, so that one finds warm what the one before it has brought in.
// Whoever terminates a thread sends for its event loop, too, as does whoever wants something else of it: one that has slept through a whole interval
// waits for that instead, leaves its wait when it comes, and isn't woken for looks meanwhile. Where the thread can't sleep so, and for a while after it
// was sent for, it looks, which tells of nothing but its end, and leaves its wait every so many looks for all else.
// Invariant: `dozes_` is set in the hold of the mutex in which there was no token, with all that EndDoze needs; so who brings one finds it and calls
// EndDoze, which ends this sleep or the next; and the token is looked for behind each. core/model/sleep.pml has the steps.
bool Wake::Park(double timeout_ms) {
  std::unique_lock lock(mutex_);
  if (yields_ > 0 && !token_) {
    yields_--;
    lock.unlock();
    std::this_thread::yield();
    lock.lock();
    if (token_) yields_ = kYields;
  }
  if (!token_) {
    const auto begin = std::chrono::steady_clock::now();
    const auto until = begin + std::chrono::microseconds(static_cast<int64_t>(std::min(timeout_ms, 1e9) * 1e3));
    auto looked_since = begin;
    for (auto end = begin; !token_ && end < until;) {
      end = until;
      if (watch_.must_leave != nullptr) {
        const auto now = std::chrono::steady_clock::now();
        end = std::min(until, now + (watch_.every - now.time_since_epoch() % watch_.every));
      }
      if (condition_.wait_until(lock, end, [this] { return token_; })) break;
      if (watch_.must_leave == nullptr || end >= until) continue;
      if (watch_.must_leave(watch_.data)) return false;
      if (DozeUntil(lock, until, &looked_since)) return false;
    }
    if (token_ && std::chrono::steady_clock::now() - begin < kShortSleep) yields_ = kYields;
  }
  token_ = false;
  return true;
}

// True: the thread leaves its wait.
bool Wake::DozeUntil(std::unique_lock<std::mutex>& lock, Time until, Time* looked_since) {
  const auto row = watch_.every * kLooksInARow;
  Time now = std::chrono::steady_clock::now();
  // The rest is slept on the condition, which is exact.
  const double ms = std::chrono::duration<double, std::milli>(until - now).count() * (1 - kDozeSlack);
  const bool worth = watch_.loop_descriptor >= 0 && ms > static_cast<double>(watch_.every.count()) && now >= awake_until_;
  // Whoever sends for something else than the thread's end may say what it is only after that (Node's RequestInterrupt): JavaScript runs once more.
  if (leaves_again_) {
    leaves_again_ = false;
    return true;
  }
  // What the descriptor doesn't tell of is asked before the sleep: whoever sends for the loop after that makes it readable.
  if (worth && CanDoze(watch_.loop_descriptor) && (watch_.is_called == nullptr || !watch_.is_called(watch_.data))) {
    dozes_ = true;
    lock.unlock();
    const bool quiet = Doze(ms);
    lock.lock();
    dozes_ = false;
    now = std::chrono::steady_clock::now();
    if (!quiet) {
      awake_until_ = now + (row - now.time_since_epoch() % row);
      leaves_again_ = true;
    }
    if (!quiet || token_) return !quiet && !token_;
    *looked_since = now;
  }
  return now.time_since_epoch() / row != looked_since->time_since_epoch() / row;
}

void Waiters::ReleaseWaiters() {
  while (!packets_.empty() && HasPlace()) {
    Waiter* waiter = MutantIs(Mutant::kLoopsFirst) && Callable() != nullptr ? nullptr : blocked_;
    if (MutantIs(Mutant::kFifoWaiters))
      while (waiter != nullptr && waiter->older != nullptr) waiter = waiter->older;
    if (waiter != nullptr) {
      // It is certainly free, so the packet is its own from here on; its place is counted before it runs.
      Unlink(blocked_, *waiter);
      waiter->packet = packets_.front();
      waiter->number = packets_.Pop();
      waiter->handed = true;
      Enter(*waiter, false);
      releases_++;
      wakes.push_back({waiter->wake, false});
      if (MutantIs(Mutant::kWakesAll))
        for (Waiter* other = blocked_; other != nullptr; other = other->older) {
          releases_++;
          wakes.push_back({other->wake, false});
        }
      continue;
    }
    // An event loop may be busy with other things: it is woken, and takes what it finds when it comes. Its claim keeps other loops from
    // being woken for the same packet, but not a thread that is free at once.
    if (packets_.size() <= claims_ || static_cast<uint64_t>(running_) + claims_ >= concurrency_) return;
    waiter = Callable();
    if (waiter == nullptr) return;
    waiter->woken = true;
    waiter->claims = true;
    waiter->claim_ticks = 0;
    claims_++;
    releases_++;
    wakes.push_back({waiter->wake, true});
  }
}

void Waiters::Leave(Waiter& waiter) {
  if (!waiter.placed) return;
  waiter.placed = false;
  if (waiter.asleep)
    lent_--;
  else if (waiter.blocking == 0)
    running_--;
  CP_ASSERT(running_ >= 0);
  waiter.asleep = false;
}

bool Waiters::CanTake(const Waiter& waiter) const {
  CP_ASSERT(!waiter.placed);
  return !packets_.empty() && HasPlace();
}

void Waiters::Enter(Waiter& waiter, bool until_job_ends) {
  given_out_ = true;
  if (waiter.placed) return;
  waiter.placed = true;
  waiter.asleep = false;
  waiter.sample = {};
  waiter.until_job_ends = until_job_ends;
  if (waiter.blocking == 0) running_++;
}

void Waiters::Wait(Waiter& waiter) {
  CP_ASSERT(waiter.state == WaitState::kNone && !waiter.placed && !waiter.handed);
  waiter.state = WaitState::kBlocked;
  Push(blocked_, waiter);
}

void Waiters::Withdraw(Waiter& waiter) {
  CP_ASSERT(waiter.state == WaitState::kBlocked && !waiter.handed);
  Unlink(blocked_, waiter);
}

void Waiters::Arm(Waiter& waiter) {
  if (waiter.state == WaitState::kArmed) return;
  CP_ASSERT(waiter.state == WaitState::kNone);
  waiter.state = WaitState::kArmed;
  Push(armed_, waiter);
}

void Waiters::Disarm(Waiter& waiter) {
  Arrive(waiter);
  if (waiter.state == WaitState::kArmed) Unlink(armed_, waiter);
}

void Waiters::Arrive(Waiter& waiter) {
  waiter.woken = false;
  DropClaim(waiter);
}

void Waiters::Remove(Waiter& waiter) {
  Disarm(waiter);
  if (waiter.handed) {
    waiter.handed = false;
    waiter.state = WaitState::kNone;
    if (!MutantIs(Mutant::kLosesHanded)) packets_.PutBack(waiter.number, waiter.packet);
  } else if (waiter.state == WaitState::kBlocked) {
    Unlink(blocked_, waiter);
  }
  if (!MutantIs(Mutant::kForgetsPlace)) Leave(waiter);
}

void Waiters::BeginBlocking(Waiter& waiter) {
  if (waiter.blocking++ > 0 || !waiter.placed || waiter.asleep || MutantIs(Mutant::kCountsBlocked)) return;
  running_--;
  Release();
}

void Waiters::EndBlocking(Waiter& waiter) {
  CP_ASSERT(waiter.blocking > 0);
  if (--waiter.blocking > 0 || !waiter.placed || waiter.asleep || MutantIs(Mutant::kCountsBlocked)) return;
  running_++;  // above `concurrency` for a moment, if others came meanwhile
}

void Waiters::CloseAll() {
  while (blocked_ != nullptr) {
    Waiter& waiter = *blocked_;
    Unlink(blocked_, waiter);
    wakes.push_back({waiter.wake, false});
  }
  while (armed_ != nullptr) {
    Waiter& waiter = *armed_;
    DropClaim(waiter);
    Unlink(armed_, waiter);
    wakes.push_back({waiter.wake, true});
  }
}

Waiter* Waiters::Callable() const {
  Waiter* waiter = armed_;
  while (waiter != nullptr && waiter->woken) waiter = waiter->older;
  return waiter;
}

void Waiters::DropClaim(Waiter& waiter) {
  if (!waiter.claims) return;
  waiter.claims = false;
  claims_--;
}

void Waiters::Push(Waiter*& stack, Waiter& waiter) {
  waiter.older = stack;
  waiter.newer = nullptr;
  if (stack != nullptr) stack->newer = &waiter;
  stack = &waiter;
  waiting_++;
}

void Waiters::Unlink(Waiter*& stack, Waiter& waiter) {
  if (waiter.newer != nullptr)
    waiter.newer->older = waiter.older;
  else
    stack = waiter.older;
  if (waiter.older != nullptr) waiter.older->newer = waiter.newer;
  waiter.newer = waiter.older = nullptr;
  waiter.state = WaitState::kNone;
  waiting_--;
}

}  // namespace cp
