// One started I/O request, from its start to the delivery of its terminal packet, and the table of a port's operations. A slot is
// chosen by JavaScript and named together with its generation, so that a stale name is an error and never somebody else's operation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "core/abi.h"
#include "core/arena.h"
#include "core/array.h"
#include "core/assert.h"
#include "core/errors.h"
#include "core/timer_wheel.h"

namespace cp {

struct Attachment;
struct Handle;

enum class OperationState : uint8_t {
  kFree,     // the slot may be started
  kWaiting,  // started; waits in user space: for its turn in a stream, for room in the ring, for a listener's pause to end
  kKernel,   // the backend owns its memory until it reports the end
  kDone,     // its terminal packet is queued
};

// Which way an operation went, recorded once when it is handed to the backend, so that a cancel goes the same way.
enum class Route : uint8_t { kNone, kKernel, kPool };

struct Segment {
  std::byte* data;
  uint32_t length;
  uint32_t memory_id;
  uint64_t offset;
  Arena::Block* block;  // Arena::Pin's answer
};

// What only some kinds need, allocated with them: vectored segments, a path, an address, a stat buffer.
struct OperationExtra {
  Array<Segment> segments;
  Array<char> path;
  AddressEntry address{};
  int open_flags = 0;
  uint32_t open_mode = 0;
  // The backend's own structures for the kernel to read or fill (struct statx, struct msghdr and iovec, sockaddr).
  alignas(16) std::byte os[512];
  Array<std::byte> os_vector;
};

// Null: no memory.
inline std::unique_ptr<OperationExtra> MakeExtra() { return std::unique_ptr<OperationExtra>(new (std::nothrow) OperationExtra); }

struct Operation {
  uint32_t slot = 0;
  uint32_t generation = 1;
  Opcode kind = Opcode::kPost;
  OperationState state = OperationState::kFree;
  Route route = Route::kNone;
  EndedBy ended_by = EndedBy::kNone;
  bool internal = false;
  bool pinned = false;         // its memory counts as in use
  bool backlogged = false;     // stands in the backend's backlog
  bool polled = false;         // the backend waits for readiness (zero-length recv)
  Attachment* home = nullptr;  // whose thread started it
  Handle* handle = nullptr;
  Operation* queue_previous = nullptr;  // stream queue
  Operation* queue_next = nullptr;
  Operation* backlog_previous = nullptr;  // the backend's backlog
  Operation* backlog_next = nullptr;
  Operation* list_previous = nullptr;  // all unfinished operations of the handle
  Operation* list_next = nullptr;
  TimerNode timer;
  uint32_t memory_id = kMemoryNone;
  Arena::Block* block = nullptr;  // Arena::Pin's answer
  std::byte* data = nullptr;
  uint64_t offset = 0;  // of data in its memory
  uint64_t length = 0;
  uint64_t done = 0;  // bytes moved so far, over several requests to the kernel
  int64_t position = 0;
  double operation_id = 0;
  double key = 0;  // as it was at the start; a closed handle's packets still carry it
  double handle_id = 0;
  double result = 0;
  std::unique_ptr<OperationExtra> extra;
  void* job = nullptr;  // Route::kPool: the backend's, for its cancel

  bool pending() const { return state == OperationState::kWaiting || state == OperationState::kKernel; }
};

class OperationTable {
 public:
  explicit OperationTable(uint32_t max) : max_(max), chunks_((max + kChunk - 1) / kChunk) {}

  uint32_t max() const { return max_; }

  // Null: no such slot, or no memory for it.
  Operation* At(uint32_t slot) {
    if (slot >= max_) return nullptr;
    auto& chunk = chunks_[slot / kChunk];
    if (!chunk) {
      chunk.reset(new (std::nothrow) Operation[kChunk]);
      if (!chunk) return nullptr;
      for (uint32_t i = 0; i < kChunk; i++) chunk[i].slot = slot / kChunk * kChunk + i;
    }
    return &chunk[slot % kChunk];
  }

  // The slot as it stands, null where none was ever used.
  Operation* Peek(uint32_t slot, uint32_t generation) {
    if (slot >= max_ || !chunks_[slot / kChunk]) return nullptr;
    Operation* op = &chunks_[slot / kChunk][slot % kChunk];
    return op->generation == generation ? op : nullptr;
  }

  template <typename Each>
  void ForEachUsed(Each&& each) {
    for (auto& chunk : chunks_)
      if (chunk)
        for (uint32_t i = 0; i < kChunk; i++)
          if (chunk[i].state != OperationState::kFree) each(chunk[i]);
  }

  static uint32_t NextGeneration(uint32_t generation) { return generation >= kSlotGenerationMax ? 1 : generation + 1; }

 private:
  static constexpr uint32_t kChunk = 256;
  uint32_t max_;
  std::vector<std::unique_ptr<Operation[]>> chunks_;
};

}  // namespace cp
