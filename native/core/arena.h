// The allocator of a port's arena. Blocks are 64-byte aligned in memory (4,096 from 4 KiB up), wherever the arena itself begins; all
// bookkeeping lies outside the arena, which a script can overwrite at will. A block released while operations use it is given out again
// only after the last of them has ended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace cp {

class Arena {
 public:
  static constexpr uint64_t kNone = ~uint64_t{0};
  static constexpr uint32_t kPage = 64 * 1024;
  // What a block of at least so many bytes is aligned to: what O_DIRECT asks for is at most that.
  static constexpr uint32_t kAlignment = 4096;

  explicit Arena(std::span<const std::byte> memory);

  // What can be handed out: whole pages, from the first address that is aligned.
  uint64_t bytes() const { return uint64_t{pages_} * kPage; }
  uint64_t used() const { return used_; }

  // The offset of a block of at least `bytes`, or kNone when there is no room.
  uint64_t Allocate(uint64_t bytes);
  // False: no block that is handed out starts there.
  bool Release(uint64_t offset);

  struct Block;
  // An operation uses [offset, offset + length) until Unpin, which takes Pin's answer: the block that holds the range, null for none.
  Block* Pin(uint64_t offset, uint64_t length);
  void Unpin(uint64_t offset, uint64_t length, Block* block);

  // Bookkeeping of one block. While it is pinned it is live, and its address stays.
  struct Block {
    bool live = false;         // handed out
    bool released = false;     // by the user; freed when the pins go
    bool quarantined = false;  // released, and stands in quarantine_: nobody else may free it
    uint32_t pins = 0;
    uint32_t next_free = 0;
  };

 private:
  // A page is free, the first of a run that is one large block, a later one of such a run, or divided into equal small blocks.
  enum class PageKind : uint8_t { kFree, kLarge, kLargeTail, kSmall };
  struct Page {
    PageKind kind = PageKind::kFree;
    uint8_t size_class = 0;
    uint16_t live = 0;       // small: blocks not in the free list
    uint32_t run = 0;        // large: pages; tail: pages back to the first
    uint32_t free_head = 0;  // small: index + 1 of the first free block
    bool listed = false;     // small: stands in the list of pages with room
  };
  static uint32_t ClassOf(uint64_t bytes);
  static uint64_t ClassBytes(uint32_t size_class);
  uint64_t AllocateSmall(uint32_t size_class);
  uint64_t AllocateLarge(uint64_t pages);
  // Gives back the empty pages that are kept for their class. False: there were none.
  bool ReclaimEmpty();
  void FreeBlock(uint64_t offset);
  void FreeRun(uint32_t page, uint32_t count);
  // The page that an offset lies in; of what lies before the first the first, of what lies behind the last one more.
  uint64_t PageOf(uint64_t offset) const;
  Block* BlockAt(uint64_t offset, uint64_t* start, uint64_t* end);
  bool Obstructed(uint64_t start, uint64_t end) const;
  // For a block that is released, not pinned and not in quarantine.
  void FreeOrQuarantine(Block& block, uint64_t start, uint64_t end);

  uint64_t first_;  // where the first page begins
  uint64_t used_ = 0;
  uint32_t pages_;
  uint32_t search_from_ = 0;  // no page before it is free
  std::vector<Page> page_;
  std::vector<std::vector<Block>> blocks_;   // of each page, made when it is divided or starts a run
  std::vector<std::vector<uint32_t>> room_;  // per size class: pages with a free block
  // A range that is not inside one block (a view over the whole arena, or over memory that nobody allocated) pins the pages that it
  // touches: blocks there that are released meanwhile wait in quarantine. Such ranges are rare.
  uint32_t spanning_ = 0;
  std::vector<uint32_t> page_pins_;  // by PageOf; empty until the first such range
  std::vector<uint64_t> quarantine_;
};

}  // namespace cp
