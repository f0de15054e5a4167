// Size classes of small blocks in 64 KiB pages, first-fit runs of pages for large ones.
#include "core/arena.h"

#include <algorithm>

#include "core/assert.h"

namespace cp {

namespace {
// Multiples of 64 that waste at most a quarter; from 4 KiB up multiples of 4,096.
constexpr uint32_t kClasses[] = {64,   128,  192,  256,  320,  384,  448,  512,  640,   768,   896,   1024, 1280,
                                 1536, 1792, 2048, 2560, 3072, 3584, 4096, 8192, 12288, 16384, 20480, 32768};
constexpr uint32_t kClassCount = sizeof(kClasses) / sizeof(kClasses[0]);

// x / kClasses[i] for x below 65,536 as a multiplication: the reciprocal rounded up is exact there, and a division on this path was seen in
// the profile.
struct Reciprocals {
  uint64_t of[kClassCount];
  constexpr Reciprocals() : of() {
    for (uint32_t i = 0; i < kClassCount; i++) of[i] = ((uint64_t{1} << 32) + kClasses[i] - 1) / kClasses[i];
  }
};
constexpr Reciprocals kReciprocals;
}  // namespace

namespace {
uint64_t FirstAligned(std::span<const std::byte> memory) {
  const uint64_t gap = -reinterpret_cast<uintptr_t>(memory.data()) % Arena::kAlignment;
  return std::min<uint64_t>(gap, memory.size());
}
}  // namespace

Arena::Arena(std::span<const std::byte> memory)
    : first_(FirstAligned(memory)),
      pages_(static_cast<uint32_t>((memory.size() - first_) / kPage)),
      page_(pages_),
      blocks_(pages_),
      room_(kClassCount) {}

uint32_t Arena::ClassOf(uint64_t bytes) {
  return static_cast<uint32_t>(std::lower_bound(kClasses, kClasses + kClassCount, bytes) - kClasses);
}
uint64_t Arena::ClassBytes(uint32_t size_class) { return kClasses[size_class]; }

uint64_t Arena::Allocate(uint64_t bytes) {
  if (bytes == 0) bytes = 1;
  if (bytes > this->bytes()) return kNone;
  const uint32_t size_class = ClassOf(bytes);
  if (size_class < kClassCount) return AllocateSmall(size_class);
  return AllocateLarge((bytes + kPage - 1) / kPage);
}

uint64_t Arena::AllocateSmall(uint32_t size_class) {
  auto& room = room_[size_class];
  const auto block_bytes = static_cast<uint32_t>(ClassBytes(size_class));
  if (room.empty()) {
    const uint64_t offset = AllocateLarge(1);
    if (offset == kNone) return kNone;
    used_ -= kPage;
    const auto index = static_cast<uint32_t>((offset - first_) / kPage);
    const uint32_t count = kPage / block_bytes;
    Page& page = page_[index];
    page = {PageKind::kSmall, static_cast<uint8_t>(size_class), 0, 0, 1, true};
    auto& blocks = blocks_[index];
    blocks.assign(count, Block{});
    for (uint32_t i = 0; i + 1 < count; i++) blocks[i].next_free = i + 2;
    room.push_back(index);
  }
  const uint32_t index = room.back();
  Page& page = page_[index];
  const uint32_t at = page.free_head - 1;
  Block& block = blocks_[index][at];
  page.free_head = block.next_free;
  page.live++;
  if (page.free_head == 0) {
    room.pop_back();
    page.listed = false;
  }
  block = {true, false, false, 0, 0};
  used_ += block_bytes;
  return first_ + uint64_t{index} * kPage + uint64_t{at} * block_bytes;
}

uint64_t Arena::AllocateLarge(uint64_t pages) {
  // First fit, so that pages which have been touched are used again before others are.
  while (search_from_ < pages_ && page_[search_from_].kind != PageKind::kFree) search_from_++;
  uint32_t run = 0;
  for (uint32_t i = search_from_; i < pages_; i++) {
    run = page_[i].kind == PageKind::kFree ? run + 1 : 0;
    if (run < pages) continue;
    const uint32_t first = i + 1 - run;
    page_[first] = {PageKind::kLarge, 0, 1, run, 0, false};
    for (uint32_t tail = 1; tail < run; tail++) page_[first + tail] = {PageKind::kLargeTail, 0, 0, tail, 0, false};
    blocks_[first].assign(1, Block{true, false, false, 0, 0});
    if (first == search_from_) search_from_ = i + 1;
    used_ += uint64_t{run} * kPage;
    return first_ + uint64_t{first} * kPage;
  }
  return ReclaimEmpty() ? AllocateLarge(pages) : kNone;
}

bool Arena::ReclaimEmpty() {
  bool any = false;
  for (auto& room : room_) {
    for (size_t i = room.size(); i-- > 0;) {
      const uint32_t index = room[i];
      if (page_[index].live != 0) continue;
      room.erase(room.begin() + static_cast<std::ptrdiff_t>(i));
      used_ += kPage;
      FreeRun(index, 1);
      any = true;
    }
  }
  return any;
}

uint64_t Arena::PageOf(uint64_t offset) const { return offset < first_ ? 0 : (offset - first_) / kPage; }

Arena::Block* Arena::BlockAt(uint64_t offset, uint64_t* start, uint64_t* end) {
  if (offset < first_ || offset - first_ >= bytes()) return nullptr;
  const uint64_t within = offset - first_;
  auto index = static_cast<uint32_t>(within / kPage);
  const Page* page = &page_[index];
  if (page->kind == PageKind::kFree) return nullptr;
  if (page->kind == PageKind::kSmall) {
    const uint64_t block_bytes = ClassBytes(page->size_class);
    const uint64_t at = (within % kPage) * kReciprocals.of[page->size_class] >> 32;
    if (at >= blocks_[index].size()) return nullptr;  // what is left over at the page's end
    *start = first_ + uint64_t{index} * kPage + at * block_bytes;
    *end = *start + block_bytes;
    Block* block = &blocks_[index][at];
    return block->live ? block : nullptr;
  }
  if (page->kind == PageKind::kLargeTail) {
    index -= page->run;
    page = &page_[index];
  }
  *start = first_ + uint64_t{index} * kPage;
  *end = *start + uint64_t{page->run} * kPage;
  return &blocks_[index][0];
}

bool Arena::Release(uint64_t offset) {
  uint64_t start, end;
  Block* block = BlockAt(offset, &start, &end);
  if (block == nullptr || start != offset || block->released) return false;
  block->released = true;
  if (block->pins == 0) FreeOrQuarantine(*block, start, end);  // else the last Unpin does
  return true;
}

void Arena::FreeOrQuarantine(Block& block, uint64_t start, uint64_t end) {
  if (!Obstructed(start, end)) return FreeBlock(start);
  block.quarantined = true;
  quarantine_.push_back(start);
}

// Whether an operation's range that is not inside one block touches a page of [start, end).
bool Arena::Obstructed(uint64_t start, uint64_t end) const {
  if (spanning_ == 0) return false;
  for (uint64_t page = PageOf(start); page <= PageOf(end - 1); page++)
    if (page_pins_[page] > 0) return true;
  return false;
}

void Arena::FreeBlock(uint64_t offset) {
  const uint64_t within = offset - first_;
  const auto index = static_cast<uint32_t>(within / kPage);
  Page& page = page_[index];
  if (page.kind == PageKind::kLarge) {
    FreeRun(index, page.run);
    return;
  }
  const auto block_bytes = static_cast<uint32_t>(ClassBytes(page.size_class));
  const auto at = static_cast<uint32_t>((within % kPage) / block_bytes);
  used_ -= block_bytes;
  page.live--;
  auto& room = room_[page.size_class];
  if (page.live == 0 && (!page.listed || room.size() > 1)) {
    // An empty page goes back, unless it is the only one of its class with room.
    if (page.listed) room.erase(std::find(room.begin(), room.end(), index));
    used_ += kPage;
    FreeRun(index, 1);
    return;
  }
  blocks_[index][at] = {false, false, false, 0, page.free_head};
  page.free_head = at + 1;
  if (!page.listed) {
    page.listed = true;
    room.push_back(index);
  }
}

void Arena::FreeRun(uint32_t first, uint32_t count) {
  used_ -= uint64_t{count} * kPage;
  for (uint32_t i = 0; i < count; i++) page_[first + i] = Page{};
  search_from_ = std::min(search_from_, first);
  blocks_[first].clear();
  blocks_[first].shrink_to_fit();
}

Arena::Block* Arena::Pin(uint64_t offset, uint64_t length) {
  uint64_t start, end;
  Block* block = BlockAt(offset, &start, &end);
  if (block != nullptr && offset + length <= end) {
    block->pins++;
    return block;
  }
  // Several blocks, or none: what is free now may be handed out and released while the operation lasts, so its pages are pinned.
  if (page_pins_.empty()) page_pins_.resize(pages_ + 1);
  spanning_++;
  for (uint64_t page = PageOf(offset); page <= PageOf(offset + length - 1); page++) page_pins_[page]++;
  return nullptr;
}

void Arena::Unpin(uint64_t offset, uint64_t length, Block* block) {
  uint64_t start, end;
  if (block != nullptr) {
    CP_ASSERT(block->live && block->pins > 0);
    if (--block->pins > 0 || !block->released || block->quarantined) return;
    CP_ASSERT(BlockAt(offset, &start, &end) == block);
    return FreeOrQuarantine(*block, start, end);
  }
  CP_ASSERT(spanning_ > 0);
  spanning_--;
  for (uint64_t page = PageOf(offset); page <= PageOf(offset + length - 1); page++) {
    CP_ASSERT(page_pins_[page] > 0);
    page_pins_[page]--;
  }
  // Whoever isn't obstructed any more leaves quarantine. An operation on a stale view may have pinned it since: then its Unpin frees it.
  std::erase_if(quarantine_, [&](uint64_t at) {
    Block* waiting = BlockAt(at, &start, &end);
    CP_ASSERT(waiting != nullptr && waiting->quarantined && start == at);
    if (Obstructed(start, end)) return false;
    waiting->quarantined = false;
    if (waiting->pins == 0) FreeBlock(at);
    return true;
  });
}

}  // namespace cp
