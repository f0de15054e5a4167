// The OS-free parts against simple models of themselves.
#include <algorithm>
#include <map>
#include <set>
#include <thread>

#include "core/arena.h"
#include "core/packet_queue.h"
#include "core/timer_wheel.h"
#include "test/harness.h"

namespace cp::test {

// Addresses for an arena, which never looks at what lies there: `bytes`, and a page more, that begin `gap` behind a page's beginning.
static std::span<const std::byte> Addresses(uint64_t bytes, uint64_t gap = 0) {
  return {reinterpret_cast<const std::byte*>((uintptr_t{1} << 32) + gap), bytes + Arena::kAlignment};
}
static bool IsAligned(std::span<const std::byte> memory, uint64_t offset, uint64_t size) {
  return (reinterpret_cast<uintptr_t>(memory.data()) + offset) % (size >= 4096 ? 4096 : 64) == 0;
}
// Where malloc and mmap begin, and where nothing should.
static uint64_t AnyGap(Random& random) {
  constexpr uint64_t kGaps[] = {0, 16, 64, 2048, 4095};
  return kGaps[random.Below(5)];
}

static Register arena_alignment("arena/alignment",
                                "blocks are aligned in memory wherever the arena begins, and all that was asked for is there",
                                [](const Context&) {
                                  for (const uint64_t gap : {0, 1, 8, 16, 63, 64, 2048, 4080, 4095}) {
                                    for (const uint64_t pages : {1, 2, 16}) {
                                      const uint64_t bytes = pages * Arena::kPage;
                                      const auto memory = Addresses(bytes, gap);
                                      Arena arena(memory);
                                      CHECK_EQ(arena.bytes(), bytes);
                                      std::vector<uint64_t> blocks;
                                      for (const uint64_t size : {64, 100, 4095, 4096, 5000, 12'288, 20'000, 32'768, 65'536}) {
                                        for (uint64_t at = arena.Allocate(size); at != Arena::kNone; at = arena.Allocate(size)) {
                                          CHECK(IsAligned(memory, at, size));
                                          CHECK(at + size <= memory.size());
                                          blocks.push_back(at);
                                        }
                                        CHECK(!blocks.empty());
                                        for (const uint64_t at : blocks) CHECK(arena.Release(at));
                                        blocks.clear();
                                        CHECK_EQ(arena.used(), uint64_t{0});
                                      }
                                      const uint64_t all = arena.Allocate(bytes);
                                      CHECK(all != Arena::kNone && IsAligned(memory, all, bytes));
                                      CHECK(all == 0 || !arena.Release(all - 1));
                                      CHECK(arena.Release(all));
                                      // Ranges in what lies before the first page and behind the last are nobody's blocks.
                                      CHECK(arena.Pin(0, memory.size()) == nullptr);
                                      CHECK(arena.Pin(memory.size() - 1, 1) == nullptr);
                                      arena.Unpin(memory.size() - 1, 1, nullptr);
                                      arena.Unpin(0, memory.size(), nullptr);
                                    }
                                    // Too little for a page.
                                    CHECK(Arena(Addresses(0, gap)).Allocate(1) == Arena::kNone);
                                    CHECK(Arena(std::span<const std::byte>()).Allocate(1) == Arena::kNone);
                                  }
                                });

static Register arena_model("arena/model", "blocks never overlap, are aligned, come back after release and last pin",
                            [](const Context& context) {
                              Random random(context.seed);
                              const uint64_t bytes = 4 << 20;
                              const auto memory = Addresses(bytes, AnyGap(random));
                              Arena arena(memory);
                              struct Live {
                                uint64_t bytes;
                                uint32_t pins = 0;
                                bool released = false;
                                Arena::Block* pinned = nullptr;
                              };
                              std::map<uint64_t, Live> live;
                              const auto at = [&](uint32_t n) { return std::next(live.begin(), n); };
                              for (uint32_t round = 0; round < context.Count(200'000); round++) {
                                const uint32_t what = random.Below(10);
                                if (what < 4) {
                                  const uint64_t size = random.OneIn(20) ? 1 + random.Below(300'000) : 1 + random.Below(5000);
                                  const uint64_t offset = arena.Allocate(size);
                                  if (offset == Arena::kNone) continue;
                                  CHECK(IsAligned(memory, offset, size));
                                  CHECK(offset + size <= memory.size());
                                  const auto next = live.lower_bound(offset);
                                  CHECK(next == live.end() || offset + size <= next->first);
                                  CHECK(next == live.begin() || std::prev(next)->first + std::prev(next)->second.bytes <= offset);
                                  live[offset] = {size};
                                } else if (live.empty()) {
                                  continue;
                                } else if (what < 7) {
                                  const auto block = at(random.Below(static_cast<uint32_t>(live.size())));
                                  CHECK_EQ(arena.Release(block->first), !block->second.released);
                                  block->second.released = true;
                                  if (block->second.pins == 0) live.erase(block);
                                } else if (what < 8) {
                                  const auto block = at(random.Below(static_cast<uint32_t>(live.size())));
                                  Arena::Block* pinned = arena.Pin(block->first + block->second.bytes / 2, 1);
                                  CHECK(pinned != nullptr && (block->second.pinned == nullptr || block->second.pinned == pinned));
                                  block->second.pinned = pinned;
                                  block->second.pins++;
                                } else {
                                  const auto block = at(random.Below(static_cast<uint32_t>(live.size())));
                                  if (block->second.pins == 0) continue;
                                  arena.Unpin(block->first + block->second.bytes / 2, 1, block->second.pinned);
                                  if (--block->second.pins == 0 && block->second.released) live.erase(block);
                                }
                              }
                              for (auto& [offset, block] : live) {
                                if (!block.released) CHECK(arena.Release(offset));
                                while (block.pins-- > 0) arena.Unpin(offset + block.bytes / 2, 1, block.pinned);
                              }
                              CHECK_EQ(arena.used(), uint64_t{0});
                              CHECK(arena.Allocate(bytes - 25 * Arena::kPage) != Arena::kNone);  // at most one page a size class is kept
                            });

static Register arena_span("arena/span", "nothing released comes back while a range over several blocks is in use", [](const Context&) {
  Arena arena(Addresses(1 << 20));
  const uint64_t a = arena.Allocate(64), b = arena.Allocate(64);
  CHECK(arena.Pin(0, 1 << 20) == nullptr);
  CHECK(arena.Release(a));
  CHECK(!arena.Release(a));
  for (int i = 0; i < 100; i++) CHECK(arena.Allocate(64) != a);
  arena.Unpin(0, 1 << 20, nullptr);
  bool again = false;
  for (int i = 0; i < 2000 && !again; i++) again = arena.Allocate(64) == a;
  CHECK(again);
  CHECK(arena.Release(b));
  // A range that nobody allocated holds back its own pages only.
  const uint64_t beyond = (1 << 20) - 64;
  CHECK(arena.Pin(beyond, 64) == nullptr);
  const uint64_t c = arena.Allocate(64);
  CHECK(arena.Release(c));
  CHECK_EQ(arena.Allocate(64), c);
  arena.Unpin(beyond, 64, nullptr);
});

static Register arena_stale("arena/stale", "a block in quarantine that is used again is freed once, whichever of the two uses ends first",
                            [](const Context&) {
                              for (const bool span_first : {true, false}) {
                                Arena arena(Addresses(1 << 20));
                                const uint64_t stale = arena.Allocate(100), kept = arena.Allocate(100);
                                const uint64_t used = arena.used();
                                CHECK(arena.Pin(0, 1 << 20) == nullptr);
                                CHECK(arena.Release(stale));
                                Arena::Block* block = arena.Pin(stale, 100);
                                CHECK(block != nullptr);
                                const auto unpin_span = [&] { arena.Unpin(0, 1 << 20, nullptr); };
                                const auto unpin_block = [&] { arena.Unpin(stale, 100, block); };
                                span_first ? unpin_span() : unpin_block();
                                CHECK_EQ(arena.used(), used);
                                span_first ? unpin_block() : unpin_span();
                                CHECK_EQ(arena.used(), used / 2);
                                std::set<uint64_t> given{kept};
                                for (int i = 0; i < 600; i++) CHECK(given.insert(arena.Allocate(100)).second);
                              }
                            });

// Blocks, uses of one block and uses of ranges over several, in any order, stale ones included.
static Register arena_uses("arena/uses", "what is in use is never handed out again, and every block comes back once",
                           [](const Context& context) {
                             Random random(context.seed);
                             const uint64_t bytes = 2 << 20;
                             const uint64_t gap = AnyGap(random);
                             const auto memory = Addresses(bytes, gap);
                             const uint64_t first = gap == 0 ? 0 : 4096 - gap;
                             Arena arena(memory);
                             const auto page = [&](uint64_t offset) { return offset < first ? 0 : (offset - first) / Arena::kPage; };
                             struct Known {
                               uint64_t bytes;
                               uint32_t pins = 0;
                               bool released = false;
                             };
                             struct Use {
                               uint64_t offset, length;
                               Arena::Block* block;
                               uint64_t start;  // of its block
                             };
                             std::map<uint64_t, Known> blocks;
                             std::vector<Use> uses;
                             const auto touched = [&](uint64_t start, uint64_t end) {
                               for (const Use& use : uses)
                                 if (use.block == nullptr && page(use.offset) <= page(end - 1) &&
                                     page(start) <= page(use.offset + use.length - 1))
                                   return true;
                               return false;
                             };
                             const auto settle = [&] {
                               std::erase_if(blocks, [&](const auto& each) {
                                 const auto& [offset, block] = each;
                                 return block.released && block.pins == 0 && !touched(offset, offset + block.bytes);
                               });
                             };
                             const auto unpin = [&](size_t at) {
                               const Use use = uses[at];
                               uses[at] = uses.back();
                               uses.pop_back();
                               if (use.block != nullptr) blocks.at(use.start).pins--;
                               arena.Unpin(use.offset, use.length, use.block);
                               settle();
                             };
                             const auto any = [&] { return std::next(blocks.begin(), random.Below(static_cast<uint32_t>(blocks.size()))); };
                             for (uint32_t round = 0; round < context.Count(100'000); round++) {
                               const uint32_t what = random.Below(12);
                               if (what < 4) {
                                 const uint64_t size = random.OneIn(20) ? 1 + random.Below(200'000) : 1 + random.Below(3000);
                                 const uint64_t offset = arena.Allocate(size);
                                 if (offset == Arena::kNone) continue;
                                 CHECK(offset + size <= memory.size());
                                 const auto next = blocks.lower_bound(offset);
                                 CHECK(next == blocks.end() || offset + size <= next->first);
                                 CHECK(next == blocks.begin() || std::prev(next)->first + std::prev(next)->second.bytes <= offset);
                                 blocks[offset] = {size};
                               } else if (what < 7 && !blocks.empty()) {
                                 const auto block = any();
                                 CHECK_EQ(arena.Release(block->first), !block->second.released);
                                 block->second.released = true;
                                 settle();
                               } else if (what < 9 && uses.size() < 16) {
                                 Use use;
                                 if (!blocks.empty() && !random.OneIn(3)) {
                                   const auto block = any();
                                   use.offset = block->first + random.Below(static_cast<uint32_t>(block->second.bytes));
                                   use.length = 1 + random.Below(static_cast<uint32_t>(block->first + block->second.bytes - use.offset));
                                 } else {
                                   use.offset = random.Below(static_cast<uint32_t>(memory.size()));
                                   use.length =
                                       1 + random.Below(static_cast<uint32_t>(std::min<uint64_t>(memory.size() - use.offset, 150'000)));
                                 }
                                 use.block = arena.Pin(use.offset, use.length);
                                 if (use.block != nullptr) {
                                   const auto holder = std::prev(blocks.upper_bound(use.offset));
                                   use.start = holder->first;
                                   holder->second.pins++;
                                 }
                                 uses.push_back(use);
                               } else if (what >= 9 && !uses.empty()) {
                                 unpin(random.Below(static_cast<uint32_t>(uses.size())));
                               }
                             }
                             while (!uses.empty()) unpin(uses.size() - 1);
                             for (const auto& [offset, block] : blocks) CHECK(arena.Release(offset));
                             CHECK_EQ(arena.used(), uint64_t{0});
                             CHECK(arena.Allocate(bytes - 25 * Arena::kPage) != Arena::kNone);
                           });

static Register operation_queue("operations/queue", "operations leave from wherever they stand, the others keep their order",
                                [](const Context& context) {
                                  Random random(context.seed);
                                  std::vector<Operation> operations(300);
                                  StreamQueue queue;
                                  std::vector<Operation*> model;
                                  for (uint32_t round = 0; round < context.Count(20'000); round++) {
                                    Operation& op = operations[random.Below(300)];
                                    const auto at = std::find(model.begin(), model.end(), &op);
                                    if (at != model.end()) {
                                      queue.Remove(op);
                                      model.erase(at);
                                    } else if (random.OneIn(10)) {
                                      queue.PushFront(op);
                                      model.insert(model.begin(), &op);
                                    } else {
                                      queue.Push(op);
                                      model.push_back(&op);
                                    }
                                    CHECK_EQ(queue.size(), static_cast<uint32_t>(model.size()));
                                    CHECK_EQ(queue.empty(), model.empty());
                                    const Operation* next = queue.head();
                                    for (const Operation* each : model) {
                                      CHECK(next == each);
                                      next = next->queue_next;
                                    }
                                    CHECK(next == nullptr);
                                  }
                                });

static Register timers("timers/model", "each timer fires once, never early, in the first advance that is due", [](const Context& context) {
  Random random(context.seed);
  uint64_t now = 1'000'000;
  TimerWheel wheel(now);
  std::vector<TimerNode> nodes(500);
  std::set<TimerNode*> armed;
  for (uint32_t round = 0; round < context.Count(100'000); round++) {
    TimerNode& node = nodes[random.Below(500)];
    if (node.armed()) {
      if (random.OneIn(3)) {
        wheel.Drop(node);
        armed.erase(&node);
      }
    } else {
      const uint32_t span = random.OneIn(10) ? random.Below(1u << 30) : random.Below(5000);
      wheel.Arm(node, now + span);
      armed.insert(&node);
    }
    if (!random.OneIn(4)) continue;
    now += random.OneIn(50) ? random.Below(1u << 28) : random.Below(300);
    wheel.Advance(now, [&](TimerNode& fired) {
      CHECK(fired.deadline <= now);
      CHECK_EQ(armed.erase(&fired), size_t{1});
    });
    uint64_t next = TimerWheel::kNever;
    for (const TimerNode* each : armed) {
      CHECK(each->deadline > now);
      next = std::min(next, each->deadline);
    }
    CHECK(wheel.NextExpiration() <= next);
    CHECK_EQ(wheel.empty(), armed.empty());
  }
});

static Register queue("packets/fifo", "a million packets leave in the order of entry, reserved room included", [](const Context& context) {
  PacketQueue packets;
  const uint32_t count = context.Count(1'000'000);
  uint32_t in = 0, out = 0;
  Random random(context.seed);
  while (out < count) {
    for (uint32_t burst = random.Below(5000); burst > 0 && in < count; burst--) {
      CompletionEntry entry{};
      entry.slot = in++;
      if (random.OneIn(2)) {
        CHECK(packets.Reserve());
        packets.Append() = entry;
      } else {
        CompletionEntry* place = packets.TryAppend();
        CHECK(place != nullptr);
        *place = entry;
      }
    }
    for (uint32_t burst = random.Below(6000); burst > 0 && !packets.empty(); burst--) {
      CHECK_EQ(packets.front().slot, out);
      out++;
      packets.Pop();
    }
  }
});

static Register handles("handles/generations", "a stale or foreign name finds nothing, over wrapped generations",
                        [](const Context& context) {
                          HandleTable& table = HandleTable::Process();
                          for (uint32_t round = 0; round < context.Count(1000); round++) {
                            Handle* handle = table.Create(77, HandleKind::kFile, 0);
                            CHECK(handle != nullptr);
                            const uint32_t index = handle->index, generation = handle->last_generation;
                            CHECK(generation >= 1 && generation <= kHandleGenerationMax);
                            CHECK(table.Find(index, generation) == handle);
                            CHECK_EQ(handle->owner.load(), uint64_t{77});
                            table.Retire(*handle);
                            CHECK(table.Find(index, generation) == nullptr);
                            table.Free(*handle);
                            Handle* again = table.Create(77, HandleKind::kFile, 0);
                            CHECK_EQ(again->index, index);
                            CHECK(again->last_generation != generation);
                            table.Retire(*again);
                            table.Free(*again);
                          }
                          CHECK(table.Find(kHandlesMax, 1) == nullptr);
                        });

static Register handle_threads("handles/threads", "threads create, find and free at once", [](const Context& context) {
  std::vector<std::thread> threads;
  const uint32_t rounds = context.Count(20'000);
  std::atomic<uint32_t> wrong{0};
  for (uint64_t owner = 100; owner < 104; owner++) {
    threads.emplace_back([owner, rounds, &wrong] {
      HandleTable& table = HandleTable::Process();
      for (uint32_t i = 0; i < rounds; i++) {
        Handle* handle = table.Create(owner, HandleKind::kFile, 0);
        if (handle == nullptr || table.Find(handle->index, handle->last_generation) != handle || handle->owner.load() != owner) wrong++;
        table.Find(i % 16, 1);  // somebody else's, in any state
        table.Retire(*handle);
        table.Free(*handle);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0u);
});

}  // namespace cp::test
