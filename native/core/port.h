// The contract of a backend. Port is what all backends share: it checks what JavaScript submits, keeps tables, memory, timers and the
// order of streams, and turns ends into packets. A backend (native/linux/uring_port.h) only starts, cancels, waits and closes.
//
// Threads: a private port is driven by one thread, the one that created it; every function here is called there and nowhere else, and no
// lock is taken. A shared port has one mutex over all that it knows, and an I/O thread of its own, the driver, which alone calls into
// the OS's queue, without the mutex. The public functions take the mutex themselves and may be called by any attached thread; the protected
// ones, a backend's among them, are called under it, by the driver or by an attached thread.
// Order of functions is the same in every backend, so that two can be read side by side.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "core/abi.h"
#include "core/arena.h"
#include "core/attachment.h"
#include "core/handle_table.h"
#include "core/operation.h"
#include "core/packet_queue.h"
#include "core/spin_mutex.h"
#include "core/timer_wheel.h"
#include "core/waiters.h"

namespace cp {

// Milliseconds of the monotonic clock; the OS's (core/os.h).
double MonotonicMs();

inline constexpr uint32_t kPoolThreadsDefault = 4;
inline constexpr uint32_t kPoolThreadsMax = 1024;  // what libuv allows for its own (UV_THREADPOOL_SIZE)

struct PortOptions {
  uint32_t max_operations = 65'536;
  uint32_t ring_entries = 0;  // 0: the backend's choice
  uint32_t concurrency = 1;
  uint32_t pool_threads = kPoolThreadsDefault;  // jobs of the port that block a thread at once, 1 to kPoolThreadsMax
  std::string disable;                          // comma-separated features to leave unused
  uint64_t owner = 0;                           // id of the environment; of a private port
  bool shared = false;
  std::string fallback_reason;  // why a better backend was not taken, for threads that attach; empty: none was refused
  std::span<std::byte> block;   // the control block, kBlockBytes
  std::span<std::byte> arena;
};

// True where COMPLETION_PORT_DISABLE's list, comma-separated names of features, has this one.
bool IsDisabled(std::string_view list, std::string_view name);

// A failure to make a port: what the OS said and what is likely behind it.
struct CreateError {
  int32_t native_code = 0;
  std::string reason;
};

// How a request to the OS ended, as the backend reports it.
struct Outcome {
  int64_t result = 0;       // bytes, or what the kind makes; meaningless where native_code is set
  int32_t native_code = 0;  // 0, or the OS's error
};

// What an event loop watches for one port: a private port itself, or an attached thread's own object.
class LoopSource {
 public:
  virtual ~LoopSource() = default;
  // A descriptor that becomes readable when packets may have come. -1: this system has none, and what SetWaker was given is called instead.
  virtual int notification_fd() const = 0;
  // `wake` is called on any thread, with no lock held that it could need. Null: never again, once this has returned.
  virtual void SetWaker(std::function<void()>) {}
  // By whoever waits for the descriptor, on any thread.
  virtual void ClearNotification() = 0;
  // On the thread of the event loop, before it looks for packets.
  virtual void Look() {}
  // The descriptor is readable for as long as there is something, until Look has taken it.
  virtual bool stays_ready() const { return false; }
  // Makes the descriptor readable.
  virtual void RaiseNotification() = 0;
};

// What wakes one attached thread of a shared port, blocked or in its event loop.
class ThreadNotifier : public Wake, public LoopSource {};

class Port : public LoopSource {
 public:
  ~Port() override;
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  // ---- called by the binding ----------------------------------------------------------------------------------------------
  // `a` is the calling thread's. Takes the control block's entries, drives the backend as Control asks, brings packets. Returns their number.
  uint32_t Enter(Attachment& a) { return shared_ ? EnterShared(a) : EnterPrivate(a); }
  // Appends the packet staged in the control block, behind everything that has finished. False: no memory.
  bool Post(Attachment& a);
  // True: the operation was pending and has been asked to end; its packet comes as any other. A private port's kernel is asked with the
  // next Enter.
  bool Cancel(Attachment& a, uint32_t slot, uint32_t generation, EndedBy by);
  // The number of pending operations of the handle, all asked to end; -1: it isn't open, or isn't this port's.
  int64_t CancelHandle(Attachment& a, uint32_t index, uint32_t generation, EndedBy by);
  // Precondition: the handle is the calling environment's, open and was never associated. 0, or a negative OS error.
  int Associate(Handle& handle, double key);
  // Asks the handle's operations to end, closes it. The peer sees it before this returns. The handle's name is stale afterwards. False: it
  // isn't open, or isn't this port's.
  bool CloseHandle(Attachment& a, uint32_t index, uint32_t generation, bool reset);
  // Calls with(handle) if it is open and this port's.
  template <typename With>
  bool WithHandle(uint32_t index, uint32_t generation, With&& with) {
    Lock lock(*this);
    Handle* handle = FindHandle(index, generation);
    if (handle != nullptr) with(*handle);
    return handle != nullptr;
  }
  // Starts an open, whose path doesn't fit into an entry. False: the slot is busy or there is no room.
  bool Open(Attachment& a, uint32_t slot, uint32_t generation, std::string_view path, int flags, uint32_t mode, double key,
            double timeout_ms, double operation_id, uint32_t entry_flags);
  // 0: no room. The memory must stay mapped until it is unregistered and no operation uses it: until its id is in `freed_memory`.
  uint32_t RegisterMemory(Attachment& a, std::span<std::byte> memory);
  // False: no such memory of this thread's. It stays until its last operation has ended; then its id is in the attachment's `freed_memory`.
  bool UnregisterMemory(Attachment& a, uint32_t id);
  uint64_t ArenaAllocate(uint64_t bytes) {
    Lock lock(*this);
    return arena_.Allocate(bytes);
  }
  bool ArenaRelease(uint64_t offset) {
    Lock lock(*this);
    return arena_.Release(offset);
  }
  // Whether the two below can move anything at all.
  bool CanMoveNow() const { return MovesNow() && !shared_; }
  // Moves what can be moved of a socket's bytes at once, without an operation; the memory is used until the return and no longer. 0: start an
  // operation, which waits, and which tells an end or an error: nothing could be moved, operations of the direction are under way, the port is
  // shared, or the backend can't. Precondition: the thread has no start of that direction staged, and has had
  // the packets of all earlier ones.
  uint64_t ReceiveNow(Handle& handle, std::span<std::byte> memory);
  uint64_t SendNow(Handle& handle, std::span<const std::byte> memory);
  void WriteStats(Attachment& a);
  // Ids of registered memory that nothing uses any more: the thread may let go of it.
  void TakeFreedMemory(Attachment& a, std::vector<uint32_t>* ids) {
    Lock lock(*this);
    ids->swap(a.freed_memory);
  }
  // Cancels everything, drops queued packets and returns without waiting; in_kernel() tells when all is over.
  void Close();
  // After Close, from the event loop: reaps, and asks for the next notification.
  void DriveClosing();
  // Close, then waits until the OS has let go of all memory: for an environment that ends. It waits for no peer, and for a device only where a
  // kernel works in the memory by itself (io_uring, Windows): a thread of the pool is left behind.
  void CloseAndWait();

  // ---- threads of a shared port --------------------------------------------------------------------------------------------
  bool shared() const { return shared_; }
  const PortOptions& options() const { return options_; }
  // The only attachment of a private port.
  Attachment& first() { return *attachments_.front(); }
  // A new thread's. Null: the port is closed, there are too many, or no memory.
  Attachment* Attach(uint64_t owner, std::span<std::byte> block, std::shared_ptr<Wake> wake, uint64_t thread);
  // The thread leaves. Its operations in memory of its own end, and this waits until the OS has let go of them; a packet that it was handed
  // goes back. True: it was the last one, and Stop has to be called.
  bool Detach(Attachment& a);
  // Closes, waits until the OS has let go of everything, as CloseAndWait does, closes what handles are open. After it nothing may be called.
  void Stop();
  // The job of the event loop that received packets has ended. `all`: the thread's place is free however it came by it.
  void EndJob(Attachment& a, bool all);
  void BeginBlocking(Attachment& a);
  void EndBlocking(Attachment& a);
  // Promises an operation of a later submission its room. False: as many are in flight as there may be.
  bool Reserve(Attachment& a);
  // Takes back promises of operations that were not submitted after all.
  void Unreserve(Attachment& a, uint32_t count);
  bool Closed() {
    Lock lock(*this);
    return closing_ && in_kernel_ == 0;
  }

  bool closing() const { return closing_.load(std::memory_order_relaxed); }
  // Of a shared port: its last thread has left, Stop is to come, and nobody joins it any more.
  bool deserted() const { return deserted_.load(std::memory_order_relaxed); }
  // True once after the last operation in flight has ended: the event loop may no longer be needed.
  bool idle_changed() {
    const bool idle = in_kernel_ == 0;
    const bool changed = idle && !was_idle_;
    was_idle_ = idle;
    return changed;
  }
  uint32_t in_kernel() const { return in_kernel_; }
  bool has_queued(uint32_t enter_flags) const {
    return ((enter_flags & kEnterWantUser) != 0 && !queue_.empty()) ||
           ((enter_flags & kEnterWantInternal) != 0 && !attachments_.front()->internal.empty());
  }
  // Something is queued that somebody in the event loop waits for, by what the last arming enter asked for. A packet that nobody wants
  // keeps no loop awake.
  bool has_wanted() const { return has_queued(wanted_); }
  // Milliseconds until the next timer, -1 for none.
  double NextTimeoutMs() const;
  // ---- what a backend does ------------------------------------------------------------------------------------------------
  virtual const char* name() const = 0;
  virtual std::vector<std::pair<std::string, bool>> features() const = 0;
  // For an inverted event loop: watch the loop's own descriptor, one time; true from LoopReady when it became ready.
  // False: it can't be watched now, so that the loop has to be looked at by and by.
  virtual bool WatchLoop(int fd) = 0;
  // Reaps and, if nothing is queued that is wanted, waits up to timeout_ms (infinity: for ever) for anything at all. Takes submissions
  // first, and with them what the control block's flags want.
  void DriveLoop(double timeout_ms);

 protected:
  explicit Port(const PortOptions& options);

  // Holds a shared port's mutex; nothing where the port is private. When it lets go, threads are woken, the driver is kicked.
  class Lock {
   public:
    explicit Lock(Port& port) : port_(port) { Acquire(); }
    ~Lock() { Drop(); }
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;
    void Acquire() {
      if (port_.shared_) port_.mutex_.lock();
      held_ = true;
    }
    void Drop() {
      if (held_ && port_.shared_) port_.Unlock();
      held_ = false;
    }

   private:
    Port& port_;
    bool held_ = false;
  };

  // Hands a started operation to the OS. Preconditions: kWaiting, its turn has come. Ends in exactly one Report, possibly at once.
  virtual void Begin(Operation& op) = 0;
  // Asks the OS to end an operation in kKernel. A request: Report may still bring success.
  virtual void RequestCancel(Operation& op) = 0;
  // Takes back an operation that stands in the backend's backlog (kWaiting, backlogged).
  virtual void Withdraw(Operation& op) = 0;
  // Submits what was prepared; reaps (calls Report) if `reap`; never blocks. 0 or a negative OS error that nothing can be done about.
  virtual int Flush(bool reap) = 0;
  // As Flush(true), but waits up to timeout_ms for at least one event (a packet or something internal).
  virtual int Wait(double timeout_ms) = 0;
  // Switches notification on or off. On: true if something has come meanwhile, so that it must be looked at once more.
  virtual bool Notify(bool on) = 0;
  // Makes everything that has finished visible in the queue: before a post is appended (invariant 4). False, of a shared port: something has
  // finished that only the driver can bring, which is about to.
  virtual bool Settle() = 0;
  // Wakes the driver of a shared port out of its wait.
  virtual void Kick() = 0;
  // What a thread does now, by its number.
  virtual ThreadSample SampleThread(uint64_t thread) = 0;
  // Runs on a thread of its own until it returns; DriverTurn says what remains to do.
  virtual void JoinDriver() = 0;
  virtual int BindHandle(Handle& handle) = 0;
  // Closes the OS handle. `busy`: operations are with the kernel and hold it open, so the peer must be told by other means.
  virtual void ReleaseHandle(Handle& handle, bool busy, bool reset) = 0;
  virtual void CloseOs(HandleKind kind, OsHandle os) = 0;
  virtual void ShutdownDirection(Handle& handle, int how, Outcome& outcome) = 0;
  // For ReceiveNow and SendNow: one call of the OS that never blocks. False: this backend has none.
  virtual bool MovesNow() const { return false; }
  virtual Outcome MoveNow(Handle&, bool /*sending*/, std::byte*, size_t /*bytes*/) { return {}; }
  // Ends an operation that is with a thread of the pool (Route::kPool), whose call can't be stopped: from here on the thread reaches no memory
  // of the operation's. False: this backend can't, and the call is waited for.
  virtual bool Abandon(Operation&) { return false; }
  // At the port's end, with no operation left: what threads of the pool still do is their own business, with the descriptors that they use.
  virtual void LetGoOfJobs() {}
  // Waits until no operation is with the OS; used by CloseAndWait.
  virtual void Finish() = 0;
  virtual Status MapError(int32_t native_code) const = 0;
  virtual bool Transient(int32_t native_code) const = 0;  // try again: EINTR
  virtual bool IsCanceled(int32_t native_code) const = 0;
  virtual bool IsReset(int32_t native_code) const = 0;
  virtual bool IsStreamFatal(int32_t native_code) const = 0;
  virtual bool IsOutOfDescriptors(int32_t native_code) const = 0;
  virtual bool IsAborted(int32_t native_code) const = 0;  // a connection that was reset in the backlog
  virtual int32_t CanceledCode() const = 0;
  virtual int32_t NotConnectedCode() const = 0;
  virtual int32_t ResetCode() const = 0;
  virtual int32_t InvalidCode() const = 0;
  virtual int32_t BadHandleCode() const = 0;
  virtual void BackendStats(Control& control) = 0;

  // The one way in which an operation of the backend ends, or takes its next step: a short send goes on, a stream's next one begins.
  void Report(Operation& op, const Outcome& outcome);
  // Ends an operation with its terminal packet. Precondition: it is in no queue of a stream or backlog.
  void Complete(Operation& op, Status status, int32_t native_code);
  // Makes the handle of an accepted connection or opened file and ends the operation with it.
  void CompleteWithHandle(Operation& op, HandleKind kind, OsHandle os, const AddressEntry* peer, bool append);

  void MarkInKernel(Operation& op, Route route);
  // Frees the slot of a handle that is closed and that nothing uses any more.
  void FreeIfIdle(Handle& handle);
  // An operation's name within the port.
  static uint32_t SlotOf(const Operation& op) { return op.home->index << kSlotBits | op.slot; }
  Operation* FindOperation(uint32_t slot, uint32_t generation) {
    Attachment* home = HomeOf(slot);
    return home == nullptr ? nullptr : home->operations.Peek(slot & (kSlotsMax - 1), generation);
  }
  // The driver's turn, under the mutex, after the backend has reaped. Milliseconds that it may wait now; negative: it is over.
  double DriverTurn();
  void BeginDriverWait() { driver_waits_ = true; }
  void EndDriverWait() { driver_waits_ = driver_kicked_ = false; }
  bool on_driver() const { return std::this_thread::get_id() == driver_.load(std::memory_order_relaxed); }

  const bool shared_;
  PortOptions options_;
  SpinMutex mutex_;
  std::atomic<std::thread::id> driver_{};
  bool kick_wanted_ = false;  // the driver has something to do, and may be waiting
  Arena arena_;
  PacketQueue queue_;
  TimerWheel timers_;
  uint32_t in_kernel_ = 0;  // started, terminal packet not queued
  uint64_t enters_ = 0;
  std::atomic<uint64_t> wakeups_{0};
  std::atomic<bool> closing_{false};  // changed under the mutex

 private:
  struct Memory {
    std::byte* data = nullptr;
    uint64_t bytes = 0;
    uint32_t uses = 0;
    bool registered = false;
    Attachment* owner = nullptr;  // null: the arena
  };

  void Unlock() {
    if (kick_wanted_ || !waiters_.wakes.empty())
      UnlockAndWake();
    else
      mutex_.unlock();
  }
  void UnlockAndWake();
  uint32_t EnterPrivate(Attachment& a);
  uint32_t EnterShared(Attachment& a);
  void Postpone(Attachment& a);
  uint32_t TakeShared(Attachment& a, uint32_t flags, uint32_t max, double timeout_ms, Lock& lock);
  void WriteControl(Attachment& a);
  Attachment* HomeOf(uint32_t slot) {
    const uint32_t index = slot >> kSlotBits;
    return index < attachments_.size() ? attachments_[index].get() : nullptr;
  }
  Handle* FindHandle(uint32_t index, uint32_t generation);
  void WaitForDriver(Lock& lock);
  void CancelAllOf(Attachment& a);
  void AbandonAll();
  bool UsesMemoryOf(const Operation& op, const Attachment& a) const;
  void EraseIfOver(Attachment& a);
  void Shut(Handle& handle, bool reset, Lock* lock);
  int Bind(Handle& handle, double key);
  void TellOfEnd(Attachment& home, bool internal);
  void Ingest(Attachment& a);
  void IngestStaged(Attachment& a);
  uint32_t Fill(Attachment& a, uint32_t max, uint32_t flags);
  // Writes a packet for the thread of `a`. `entry` is our own copy: the one written is never read again.
  void PutOut(Attachment& a, CompletionEntry* out, const CompletionEntry& entry) {
    packets_++;
    *out = entry;
    // A post without a tag holds nothing, and means the same to every thread.
    const bool bare = entry.kind == static_cast<uint8_t>(Opcode::kPost) && entry.slot == kNoTag && entry.flags == 0;
    if (bare)
      out->handle_index = 0;
    else
      Address(a, out, entry);
  }
  // PutOut of what holds a slot, a tag or memory, which end here, and is named for its taker: as its own or as foreign.
  void Address(Attachment& a, CompletionEntry* out, const CompletionEntry& entry);
  Operation* Claim(Attachment& a, uint32_t slot, uint32_t generation, Opcode kind, uint32_t flags, double operation_id);
  void Prepare(Operation& op, const SubmissionEntry& entry, const SubmissionEntry* rest);
  bool Resolve(const Operation& op, uint32_t memory_id, double offset, double length, std::byte** data);
  void PinMemory(Operation& op);
  void UnpinMemory(Operation& op);
  void DropUse(uint32_t memory_id);
  void Dispatch(Operation& op);
  void StartNext(Handle& handle, StreamQueue& queue);
  int32_t KeepReceiveError(Handle& handle, int32_t native_code);
  void KeepSendError(Handle& handle, int32_t native_code);
  void CancelOne(Operation& op, EndedBy by);
  void RunTimers();
  void Detach(Handle& handle);
  StreamQueue* QueueOf(Operation& op);
  uint32_t Deliver(const CompletionEntry& entry, const Attachment* taker);
  void DropPacket(const CompletionEntry& entry);
  void DropPackets(PacketQueue& queue);

  std::vector<std::unique_ptr<Attachment>> attachments_;  // by index; null: free
  uint32_t attached_ = 0;
  std::atomic<bool> deserted_{false};  // set in the hold in which attached_ becomes 0
  uint32_t in_flight_ = 0;             // operations whose packet isn't delivered, and promises of Reserve; of all threads
  Waiters waiters_;
  std::condition_variable_any driver_turned_;  // with mutex_
  uint64_t driver_turns_ = 0;
  uint64_t driver_target_ = 0;   // the last of the turns that somebody waits for
  uint32_t driver_awaited_ = 0;  // threads that wait for a turn
  bool driver_waits_ = false;
  bool driver_kicked_ = false;
  bool driver_ticks_ = false;
  bool driver_dozes_ = false;  // it looks by itself within a millisecond, called or not
  uint32_t postponed_ = 0;     // starts of which it wasn't told because of that
  uint64_t moves_before_ = 0;  // starts and ends of operations, up to its last turn
  bool stopping_ = false;
  double next_tick_ = 0;    // of the watcher, by MonotonicMs
  double ticks_until_ = 0;  // how long the driver looks every tick although nothing needs it now
  uint32_t next_attachment_ = 0;
  uint32_t leaving_ = 0;           // threads that wait for their operations to end
  uint32_t keep_attachments_ = 0;  // somebody walks through them
  Handle* handles_ = nullptr;
  std::vector<Memory> memory_;
  std::vector<uint32_t> free_memory_;
  uint32_t wanted_ = 0;  // kEnterWantUser, kEnterWantInternal
  bool was_idle_ = true;
  uint64_t started_ = 0;
  uint64_t packets_ = 0;
  uint64_t posts_ = 0;
  double bytes_read_ = 0;
  double bytes_written_ = 0;
};

}  // namespace cp
