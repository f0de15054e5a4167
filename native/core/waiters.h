// Who gets the packets of a shared port: the reference is the kernel queue behind Windows' ports (KQUEUE). Threads that wait are released
// last in, first out; at most `concurrency` threads hold a place, that is, run on packets of the port. A model of this file for the
// checker spin stands in model/; its steps carry the names of the functions here.
//
// Everything is called under the port's mutex and never blocks. What wakes a thread is collected in `wakes` and done by the port when it
// has let go of the mutex.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/abi.h"
#include "core/packet_queue.h"
#include "core/test_hooks.h"

namespace cp {

// What wakes one thread, from any other. Shared by whoever may still be about to use it, so that a thread may end meanwhile.
class Wake {
 public:
  Wake() = default;
  Wake(const Wake&) = delete;
  Wake& operator=(const Wake&) = delete;
  virtual ~Wake() = default;

  // Ends the thread's sleep, or the next one if it doesn't sleep.
  void Unpark();
  // Sleeps until Unpark, at most timeout_ms; false: the thread has to leave its wait, say what LookAfter was given, or had better do so for a moment:
  // its event loop has been sent for, or it couldn't sleep so that this would have been noticed. By its own thread only.
  bool Park(double timeout_ms);
  // What a thread that sleeps looks after, itself: a worker is terminated by a flag that only it may read.
  struct Watch {
    bool (*must_leave)(void*) = nullptr;
    // Becomes readable, again if it is already, when somebody sends for the thread's event loop, as whoever terminates it does: no look is needed
    // before that. -1: none.
    int loop_descriptor = -1;
    // Whether whoever terminates the thread will find it sent for already, and the descriptor won't tell.
    bool (*is_called)(void*) = nullptr;
    void* data = nullptr;
    // Looks come at multiples of it on the clock. A terminated worker ends within 100 ms (THREAD-05).
    std::chrono::milliseconds every{80};
  };
  // Before its first Park.
  void LookAfter(const Watch& watch) { watch_ = watch; }
  // Wakes the thread's event loop. Several calls may come out as one.
  virtual void Notify() = 0;

 protected:
  // On the thread itself, with no EndDoze before it returns. False: this system, or what is short, doesn't let it doze.
  virtual bool CanDoze([[maybe_unused]] int loop_descriptor) { return false; }
  // Sleeps until EndDoze, also one that came before, at most timeout_ms; may end early. False: `loop_descriptor` has become readable since the last Doze.
  virtual bool Doze([[maybe_unused]] double timeout_ms) { return false; }
  // Any thread, only once CanDoze has said so.
  virtual void EndDoze() {}

 private:
  using Time = std::chrono::steady_clock::time_point;
  bool DozeUntil(std::unique_lock<std::mutex>& lock, Time until, Time* looked_since);

  std::mutex mutex_;
  std::condition_variable condition_;
  bool token_ = false;
  bool dozes_ = false;         // who sets the token calls EndDoze
  bool leaves_again_ = false;  // at the next look
  Time awake_until_{};         // no Doze before that: the event loop has been sent for, and may be again and again
  int yields_ = 0;             // how many times more Park yields before it sleeps
  Watch watch_;
};

// What the watcher knows of a thread.
struct ThreadSample {
  bool known = false;
  bool sleeping = false;  // blocked in the kernel at this moment
  uint64_t switches = 0;  // grows whenever it has run
};

enum class WaitState : uint8_t {
  kNone,
  kBlocked,  // in a blocking get, or between two slices of one
  kArmed,    // its event loop waits for packets
};

// One thread's place at a port.
struct Waiter {
  std::shared_ptr<Wake> wake;
  uint64_t thread = 0;  // the OS's number of the thread, for the watcher
  WaitState state = WaitState::kNone;
  bool handed = false;  // `packet` was given to it, and it hasn't come for it
  bool claims = false;  // armed: woken for a packet, and counted in claims_
  bool woken = false;   // armed: its wake is under way
  bool placed = false;  // it holds a place
  bool asleep = false;  // … but the watcher saw it blocked, so the place isn't counted
  bool until_job_ends = false;
  uint32_t blocking = 0;  // depth of port.blocking: the place isn't counted
  uint32_t claim_ticks = 0;
  ThreadSample sample;
  CompletionEntry packet{};
  uint64_t number = 0;  // of the packet in the queue
  Waiter* newer = nullptr;
  Waiter* older = nullptr;
};

class Waiters {
 public:
  Waiters(PacketQueue& packets, uint32_t concurrency) : packets_(packets), concurrency_(concurrency) {}

  // A packet is in the queue, or a place is free: releases whom it can.
  void Release() {
    if (!packets_.empty() && HasPlace()) ReleaseWaiters();
  }
  // A get begins: the thread's place is given up. The caller goes on with Take, Wait or Arm before it lets go of the mutex, and calls
  // Release if it does none of them.
  void Leave(Waiter& waiter);
  // True if the thread may take a packet now. It then takes what it wants from the queue and calls Enter.
  bool CanTake(const Waiter& waiter) const;
  // The get returns, with packets or without: the thread holds a place from now on.
  void Enter(Waiter& waiter, bool until_job_ends);
  // A blocking get finds nothing: the thread is the newest of those that wait.
  void Wait(Waiter& waiter);
  // The wait ends without having been released: time ran out. Not for one that was handed a packet.
  void Withdraw(Waiter& waiter);
  // An event loop waits for packets. Disarm: no more.
  void Arm(Waiter& waiter);
  void Disarm(Waiter& waiter);
  // The event loop has come, called or not.
  void Arrive(Waiter& waiter);
  // The thread leaves the port. A packet that it was handed goes back to the queue's front.
  void Remove(Waiter& waiter);
  void BeginBlocking(Waiter& waiter);
  void EndBlocking(Waiter& waiter);
  // The port closes: everybody is woken. The packets are the port's business, but those handed out are put back first.
  void CloseAll();

  // Whether Tick has anything to find out: packets wait while places or claims are taken; or they were given out while a place is lent,
  // whose thread may run again.
  bool NeedsTick() const { return (packets_.size() > 0 && (running_ > 0 || claims_ > 0)) || (lent_ > 0 && given_out_); }
  // The watcher, every kTickMs while NeedsTick: `sample` says what a thread does. Threads that sleep in the kernel lose their place until they
  // are seen running; an event loop that was called and didn't come in a whole tick is given up.
  template <typename Sample>
  void Tick(const std::vector<Waiter*>& all, Sample&& sample) {
    given_out_ = false;
    for (Waiter* waiter : all) {
      if (waiter->claims && waiter->claim_ticks++ > 0 && !MutantIs(Mutant::kKeepsClaims)) DropClaim(*waiter);
      // Who was handed a packet and hasn't woken yet sleeps, too, but not for lack of anything to do.
      if (!waiter->placed || waiter->handed || waiter->blocking > 0 || MutantIs(Mutant::kCountsBlocked)) continue;
      const ThreadSample now = sample(waiter->thread);
      const bool still =
          now.known && now.sleeping && waiter->sample.known && waiter->sample.sleeping && now.switches == waiter->sample.switches;
      waiter->sample = now;
      if (still == waiter->asleep || (!still && MutantIs(Mutant::kForgetsResumed))) continue;
      waiter->asleep = still;
      running_ += still ? -1 : 1;
      still ? lent_++ : lent_--;
      if (still) sleeps_noticed_++;
    }
    Release();
  }
  static constexpr double kTickMs = 10;

  uint32_t waiting() const { return waiting_; }
  int32_t running() const { return running_; }
  uint64_t releases() const { return releases_; }
  // Times that a place was given away because its thread sleeps.
  uint64_t sleeps_noticed() const { return sleeps_noticed_; }

  // What the port has to do once it has let go of the mutex.
  struct Call {
    std::shared_ptr<Wake> wake;
    bool loop = false;
  };
  std::vector<Call> wakes;

 private:
  bool HasPlace() const { return static_cast<uint32_t>(running_) < concurrency_ || MutantIs(Mutant::kIgnoresLimit); }
  void ReleaseWaiters();
  Waiter* Callable() const;
  void DropClaim(Waiter& waiter);
  void Push(Waiter*& stack, Waiter& waiter);
  void Unlink(Waiter*& stack, Waiter& waiter);

  PacketQueue& packets_;
  const uint32_t concurrency_;
  Waiter* blocked_ = nullptr;  // newest first
  Waiter* armed_ = nullptr;    // newest first
  uint32_t waiting_ = 0;
  uint32_t claims_ = 0;     // event loops that were woken for a packet each and have not come yet
  int32_t running_ = 0;     // places that are counted; never negative
  uint32_t lent_ = 0;       // places of threads that are `asleep`
  bool given_out_ = false;  // packets, since the last tick
  uint64_t releases_ = 0;
  uint64_t sleeps_noticed_ = 0;
};

}  // namespace cp
