// The contract of a backend. Port is what all backends share: it checks what JavaScript submits, keeps tables, memory, timers and the
// order of streams, and turns ends into packets. A backend (native/linux/uring_port.h) only starts, cancels, waits and closes.
//
// Thread: a private port is driven by one thread, the one that created it; every function here is called there and nowhere else.
// Order of functions is the same in every backend, so that two can be read side by side.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/abi.h"
#include "core/arena.h"
#include "core/handle_table.h"
#include "core/operation.h"
#include "core/packet_queue.h"
#include "core/timer_wheel.h"

namespace cp {

// Milliseconds of the monotonic clock.
double MonotonicMs();

struct PortOptions {
  uint32_t max_operations = 65'536;
  uint32_t ring_entries = 0;  // 0: the backend's choice
  uint32_t concurrency = 1;
  std::string disable;         // comma-separated features to leave unused
  uint64_t owner = 0;          // id of the environment
  std::span<std::byte> block;  // the control block, kBlockBytes
  std::span<std::byte> arena;
};

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

class Port {
 public:
  virtual ~Port();
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  // ---- called by the binding ----------------------------------------------------------------------------------------------
  // Takes the control block's entries, drives the backend as Control asks, brings packets. Returns their number.
  uint32_t Enter();
  // Appends the packet staged in the control block, behind everything that has finished. False: no memory.
  bool Post();
  // True: the operation was pending and has been asked to end; its packet comes as any other.
  bool Cancel(uint32_t slot, uint32_t generation, EndedBy by);
  // The number of pending operations of the handle, all asked to end.
  uint32_t CancelHandle(Handle& handle, EndedBy by);
  // Precondition: the handle is open and was never associated. 0, or a negative OS error.
  int Associate(Handle& handle, double key);
  // Asks the handle's operations to end, closes it. The peer sees it before this returns. The handle's name is stale afterwards.
  void CloseHandle(Handle& handle, bool reset);
  // Starts an open, whose path doesn't fit into an entry. False: the slot is busy or there is no room.
  bool Open(uint32_t slot, uint32_t generation, std::string_view path, int flags, uint32_t mode, double key, double timeout_ms,
            double operation_id, bool internal);
  // 0: no room. The memory must stay mapped until it is unregistered and no operation uses it (MemoryInUse).
  uint32_t RegisterMemory(std::span<std::byte> memory);
  // False: no such memory. It stays until its last operation has ended; then `on_memory_free` is called.
  bool UnregisterMemory(uint32_t id);
  uint64_t ArenaAllocate(uint64_t bytes) { return arena_.Allocate(bytes); }
  bool ArenaRelease(uint64_t offset) { return arena_.Release(offset); }
  void WriteStats();
  // Cancels everything, drops queued packets and returns without waiting; in_kernel() tells when all is over.
  void Close();
  // After Close, from the event loop: reaps, and asks for the next notification.
  void DriveClosing();
  // Close, then waits until the kernel has let go of all memory: for an environment that ends. May wait for a device, never for a peer.
  void CloseAndWait();

  bool closing() const { return closing_; }
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
           ((enter_flags & kEnterWantInternal) != 0 && !internal_queue_.empty());
  }
  // Something is queued that somebody in the event loop waits for, by what the last arming enter asked for. A packet that nobody wants
  // keeps no loop awake.
  bool has_wanted() const { return has_queued(wanted_); }
  // Milliseconds until the next timer, -1 for none.
  double NextTimeoutMs() const;
  Control& control() { return *control_; }

  std::function<void(uint32_t memory_id)> on_memory_free;

  // ---- what a backend does ------------------------------------------------------------------------------------------------
  virtual const char* name() const = 0;
  virtual std::vector<std::pair<std::string, bool>> features() const = 0;
  // For the event loop: a descriptor that becomes readable when packets may have come and notification is on (kEnterArm).
  virtual int notification_fd() const = 0;
  virtual void ClearNotification() = 0;
  // For an inverted event loop: watch the loop's own descriptor, one time; true from LoopReady when it became ready.
  virtual void WatchLoop(int fd) = 0;
  // Reaps and, if nothing is queued that is wanted, waits up to timeout_ms (infinity: for ever) for anything at all. Takes submissions
  // first, and with them what the control block's flags want.
  void DriveLoop(double timeout_ms);

 protected:
  explicit Port(const PortOptions& options);

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
  // Makes everything that has finished visible in the queue: before a post is appended (invariant 4).
  virtual void Settle() = 0;
  virtual int BindHandle(Handle& handle) = 0;
  // Closes the OS handle. `busy`: operations are with the kernel and hold it open, so the peer must be told by other means.
  virtual void ReleaseHandle(Handle& handle, bool busy, bool reset) = 0;
  virtual void CloseOs(HandleKind kind, OsHandle os) = 0;
  virtual void ShutdownDirection(Handle& handle, int how, Outcome& outcome) = 0;
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

  Control* control_;
  PortOptions options_;
  OperationTable operations_;
  Arena arena_;
  PacketQueue queue_;
  PacketQueue internal_queue_;
  TimerWheel timers_;
  uint32_t in_kernel_ = 0;  // started, terminal packet not queued
  uint64_t enters_ = 0;
  uint64_t wakeups_ = 0;
  bool closing_ = false;

 private:
  struct Memory {
    std::byte* data = nullptr;
    uint64_t bytes = 0;
    uint32_t uses = 0;
    bool registered = false;
  };

  void Ingest();
  uint32_t Fill(uint32_t max, uint32_t flags);
  Operation* Claim(uint32_t slot, uint32_t generation, Opcode kind, bool internal, double operation_id);
  void Prepare(Operation& op, const SubmissionEntry& entry, const SubmissionEntry* rest);
  bool Resolve(uint32_t memory_id, double offset, double length, std::byte** data);
  void PinMemory(Operation& op);
  void UnpinMemory(Operation& op);
  void DropUse(uint32_t memory_id);
  void Dispatch(Operation& op);
  void StartNext(Handle& handle, StreamQueue& queue);
  void CancelOne(Operation& op, EndedBy by);
  void RunTimers();
  void FreeIfIdle(Handle& handle);
  void Detach(Handle& handle);
  StreamQueue* QueueOf(Operation& op);
  uint32_t Deliver(const CompletionEntry& entry);
  void DropPacket(const CompletionEntry& entry);

  std::byte* block_;
  Handle* handles_ = nullptr;
  std::vector<Memory> memory_;
  std::vector<uint32_t> free_memory_;
  uint32_t rejected_ = 0;
  bool notifying_ = false;
  uint32_t wanted_ = 0;  // kEnterWantUser, kEnterWantInternal
  bool was_idle_ = true;
  uint64_t started_ = 0;
  uint64_t packets_ = 0;
  uint64_t posts_ = 0;
  double bytes_read_ = 0;
  double bytes_written_ = 0;
};

}  // namespace cp
