// The port's one FIFO, for backends whose kernel keeps none. Posts and terminal packets are appended to the same queue, and a packet's
// place is the moment it was appended (invariant 4). Room for an operation's packet is reserved at its start, so a completion can
// never be lost for lack of memory (invariant 11). A private port's is its thread's; a shared port's is under the port's mutex, and who gets
// its packets is decided in waiters.h.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#if defined(_MSC_VER)
#include <intrin.h>  // the compiler's, not an OS's
#endif

#include "core/abi.h"
#include "core/assert.h"

namespace cp {

class PacketQueue {
 public:
  PacketQueue() = default;
  ~PacketQueue() { std::free(entries_); }
  PacketQueue(const PacketQueue&) = delete;
  PacketQueue& operator=(const PacketQueue&) = delete;

  uint32_t size() const { return size_ + static_cast<uint32_t>(put_back_.size()); }
  bool empty() const { return size_ == 0 && put_back_.empty(); }

  // Keeps room for one more packet, to be used by Append. False: no memory.
  bool Reserve() {
    if (!Grow(size_ + reserved_ + 1)) return false;
    reserved_++;
    return true;
  }
  void Unreserve() {
    CP_ASSERT(reserved_ > 0);
    reserved_--;
  }

  // Appends an empty packet, which the caller fills in before anybody else looks: in place, since a packet built elsewhere of fields would be
  // copied in pieces larger than those, for which a processor waits. Append: into reserved room.
  CompletionEntry& Append() {
    Unreserve();
    return Next() = {};
  }

  // Without a reservation. Null: no memory.
  CompletionEntry* TryAppend() {
    if (!Grow(size_ + reserved_ + 1)) return nullptr;
    return &(Next() = {});
  }

  // Room for so many packets to be put back.
  void ReservePutBack(uint32_t count) { put_back_.reserve(count); }
  // A packet that was taken out as the `number`-th (Pop's answer) comes back, to its old place: several may, in any order.
  void PutBack(uint64_t number, const CompletionEntry& entry) {
    auto at = put_back_.begin();
    while (at != put_back_.end() && at->number < number) ++at;
    put_back_.insert(at, {number, entry});
  }

  // Precondition: not empty.
  const CompletionEntry& front() const { return put_back_.empty() ? entries_[head_] : put_back_.front().entry; }
  // Takes the first packet out; returns its number, by which it can be put back.
  uint64_t Pop() {
    if (!put_back_.empty()) {
      const uint64_t number = put_back_.front().number;
      put_back_.erase(put_back_.begin());
      return number;
    }
    CP_ASSERT(size_ > 0);
    head_ = (head_ + 1) & (capacity_ - 1);
    size_--;
    Prefetch(&entries_[(head_ + 3) & (capacity_ - 1)]);
    // A flood that is over gives its memory back.
    if (size_ == 0 && capacity_ > kKeep && reserved_ < kKeep / 2) Resize(kKeep);
    return popped_++;
  }

 private:
  static constexpr uint32_t kKeep = 4096;

  bool Grow(uint64_t needed) {
    if (needed <= capacity_) return true;
    if (needed > (uint64_t{1} << 31)) return false;
    uint32_t capacity = capacity_ == 0 ? 256 : capacity_;
    while (capacity < needed) capacity *= 2;
    return Resize(capacity);
  }

  bool Resize(uint32_t capacity) {
    auto* entries = static_cast<CompletionEntry*>(std::malloc(size_t{capacity} * sizeof(CompletionEntry)));
    if (entries == nullptr) return false;
    for (uint32_t i = 0; i < size_; i++) entries[i] = entries_[(head_ + i) & (capacity_ - 1)];
    std::free(entries_);
    entries_ = entries;
    capacity_ = capacity;
    head_ = 0;
    return true;
  }

  CompletionEntry& Next() {
    CP_ASSERT(size_ < capacity_);
    return entries_[(head_ + size_++) & (capacity_ - 1)];
  }

  // What another thread posted is in its cache, or of a long queue in none: on its way while the packets before it are copied. A burst
  // of posts to another thread costs 7 % less.
  static void Prefetch(const CompletionEntry* entry) {
#if defined(_MSC_VER) && defined(_M_X64)
    _mm_prefetch(reinterpret_cast<const char*>(entry), _MM_HINT_T0);
#elif defined(_MSC_VER)
    __prefetch(entry);
#else
    __builtin_prefetch(entry);
#endif
  }

  struct Returned {
    uint64_t number;
    CompletionEntry entry;
  };
  std::vector<Returned> put_back_;  // before all others, by number
  uint64_t popped_ = 0;
  CompletionEntry* entries_ = nullptr;
  uint32_t capacity_ = 0;  // a power of two
  uint32_t head_ = 0;
  uint32_t size_ = 0;
  uint32_t reserved_ = 0;
};

}  // namespace cp
