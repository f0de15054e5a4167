// The process's table of handles: slots in chunks that never move, so that Find takes no lock.
#include "core/handle_table.h"

#include <new>

namespace cp {

HandleTable& HandleTable::Process() {
  // Never destroyed: worker threads may still end while the process's static objects go.
  static HandleTable* table = new HandleTable;
  return *table;
}

Handle* HandleTable::Create(uint64_t owner, HandleKind kind, OsHandle os) {
  std::lock_guard lock(mutex_);
  uint32_t index;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    if (used_ == kHandlesMax) return nullptr;
    index = used_;
    auto& chunk = chunks_[index / kChunk];
    if (chunk.load(std::memory_order_relaxed) == nullptr) {
      auto* handles = new (std::nothrow) Handle[kChunk];
      if (handles == nullptr) return nullptr;
      for (uint32_t i = 0; i < kChunk; i++) handles[i].index = index + i;
      chunk.store(handles, std::memory_order_release);
    }
    used_++;
  }
  Handle& handle = chunks_[index / kChunk].load(std::memory_order_relaxed)[index % kChunk];
  CP_ASSERT(handle.operations == nullptr && handle.generation.load(std::memory_order_relaxed) == 0);
  handle.last_generation = handle.last_generation >= kHandleGenerationMax ? 1 : handle.last_generation + 1;
  handle.kind = kind;
  handle.os = os;
  handle.connection = Connection::kNone;
  handle.append = handle.read_shut = handle.write_shut = handle.reset_seen = false;
  handle.closed = handle.associated = false;
  handle.port.store(nullptr, std::memory_order_relaxed);
  handle.key = 0;
  handle.receive_error = handle.send_error = 0;
  handle.accept_not_before = 0;
  handle.peer = {};
  CP_ASSERT(handle.pool_jobs == 0 && handle.connecting == nullptr);
  handle.ready = 0;
  handle.reads_wait = false;
  handle.owner.store(owner, std::memory_order_relaxed);
  handle.generation.store(handle.last_generation, std::memory_order_release);
  return &handle;
}

Handle* HandleTable::Find(uint32_t index, uint32_t generation) {
  if (index >= kHandlesMax || generation == 0) return nullptr;
  Handle* chunk = chunks_[index / kChunk].load(std::memory_order_acquire);
  if (chunk == nullptr) return nullptr;
  Handle& handle = chunk[index % kChunk];
  return handle.generation.load(std::memory_order_acquire) == generation ? &handle : nullptr;
}

void HandleTable::Give(double id, uint64_t owner) {
  const auto generation = static_cast<uint32_t>(id / kHandlesMax);
  Handle* handle = Find(static_cast<uint32_t>(id - static_cast<double>(generation) * kHandlesMax), generation);
  if (handle != nullptr && handle->port.load(std::memory_order_relaxed) == nullptr) handle->owner.store(owner, std::memory_order_relaxed);
}

void HandleTable::Retire(Handle& handle) {
  handle.closed = true;
  handle.generation.store(0, std::memory_order_release);
}

void HandleTable::Free(Handle& handle) {
  CP_ASSERT(handle.closed && handle.operations == nullptr && !handle.accept_timer.armed());
  std::lock_guard lock(mutex_);
  handle.owner.store(0, std::memory_order_relaxed);
  free_.push_back(handle.index);
}

}  // namespace cp
