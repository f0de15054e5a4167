// All handles of the process: files, listeners, sockets. A handle is named by index and generation, the same in every thread. Its slot is
// given out again only when it is closed and its last operation has ended, under the next generation.
//
// Threads: Create, Find, Give and Free may be called from any thread. The rest of a Handle belongs to its port: to the one thread of a private
// port, or to whoever holds a shared port's mutex; and where it has no port, to its owner, an environment (thread). Whoever has found one looks
// at `port` and `owner` first, so a hostile script in a worker reaches no other thread's handle.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/abi.h"
#include "core/stream_queue.h"

namespace cp {

class Port;

enum class HandleKind : uint8_t { kFile, kListener, kSocket };
enum class Connection : uint8_t { kNone, kConnecting, kConnected };

// What a handle is to the OS: a descriptor, or a HANDLE or SOCKET on Windows.
using OsHandle = intptr_t;
inline constexpr OsHandle kOsHandleNone = -1;

struct Handle {
  uint32_t index = 0;
  std::atomic<uint32_t> generation{0};  // 0: the slot is free or its handle is closed
  std::atomic<uint64_t> owner{0};       // id of the environment; 0: a shared port's
  uint32_t last_generation = 0;
  HandleKind kind = HandleKind::kFile;
  Connection connection = Connection::kNone;
  bool append = false;
  bool read_shut = false;  // we shut reading: recvs give 0 bytes
  bool write_shut = false;
  bool reset_seen = false;  // a send met the peer's reset: the recv side may not look like a clean end
  bool closed = false;
  bool associated = false;  // for ever, even when its port is gone
  OsHandle os = kOsHandleNone;
  std::atomic<Port*> port{nullptr};  // null when not associated or the port is gone
  double key = 0;
  Handle* port_previous = nullptr;  // all handles of the port
  Handle* port_next = nullptr;
  StreamQueue receiving;            // recv, accept
  StreamQueue sending;              // send, shutdown
  Operation* operations = nullptr;  // all unfinished operations
  uint32_t operation_count = 0;
  int32_t receive_error = 0;  // native; fatal, given to every later operation of the direction
  int32_t send_error = 0;
  uint64_t accept_not_before = 0;  // tick; a listener out of descriptors pauses (TCP-12)
  TimerNode accept_timer;
  AddressEntry peer{};  // family 0: ask the OS
  // Of a reactor (native/posix/reactor_port.h), whatever its poller.
  uint8_t ready = 0;                // Readiness: what isn't known to be exhausted, and what was seen of the descriptor
  bool reads_wait = false;          // a file without reads that take only what is in memory
  uint32_t pool_jobs = 0;           // that use the descriptor now, and keep it open and the slot taken
  Operation* connecting = nullptr;  // the connect that waits for its end

  double id() const { return HandleId(index, last_generation); }
};

class HandleTable {
 public:
  static HandleTable& Process();

  // Null: the table is full or memory is.
  Handle* Create(uint64_t owner, HandleKind kind, OsHandle os);
  // Null: closed, or never there.
  Handle* Find(uint32_t index, uint32_t generation);
  // A handle that an operation of a shared port has made becomes the environment's, unless it is associated already.
  void Give(double id, uint64_t owner);
  // The name becomes stale at once; the slot stays until Free.
  void Retire(Handle& handle);
  // Precondition: retired, no unfinished operation.
  void Free(Handle& handle);
  // Calls each(handle) for every open handle of the owner.
  template <typename Each>
  void ForEachOwned(uint64_t owner, Each&& each) {
    std::vector<Handle*> owned;
    {
      std::lock_guard lock(mutex_);
      for (uint32_t i = 0; i < used_; i++) {
        Handle& handle = chunks_[i / kChunk].load(std::memory_order_relaxed)[i % kChunk];
        if (handle.owner.load(std::memory_order_relaxed) == owner && handle.generation.load(std::memory_order_relaxed) != 0)
          owned.push_back(&handle);
      }
    }
    for (Handle* handle : owned) each(*handle);
  }

 private:
  static constexpr uint32_t kChunk = 256;
  std::mutex mutex_;
  std::vector<uint32_t> free_;
  uint32_t used_ = 0;
  std::atomic<Handle*> chunks_[kHandlesMax / kChunk] = {};
};

}  // namespace cp
