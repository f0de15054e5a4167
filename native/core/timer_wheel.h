// A hierarchical timing wheel: arming and dropping a timer is O(1), whatever their number. Ticks are milliseconds of the monotonic clock.
// A timer never fires early: deadlines are rounded up, the clock down. One thread, the port's driver, may call this.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "core/assert.h"

namespace cp {

struct TimerNode {
  TimerNode* previous = nullptr;
  TimerNode* next = nullptr;  // null: not armed
  uint64_t deadline = 0;      // tick
  void* owner = nullptr;
  uint8_t kind = 0;

  bool armed() const { return next != nullptr; }
};

class TimerWheel {
 public:
  static constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();

  explicit TimerWheel(uint64_t now) : elapsed_(now) {
    for (auto& level : slots_)
      for (auto& slot : level) slot.previous = slot.next = &slot;
    due_.previous = due_.next = &due_;
  }
  TimerWheel(const TimerWheel&) = delete;
  TimerWheel& operator=(const TimerWheel&) = delete;

  bool empty() const { return count_ == 0; }

  void Arm(TimerNode& node, uint64_t deadline) {
    CP_ASSERT(!node.armed());
    node.deadline = deadline;
    count_++;
    Place(node);
  }

  void Drop(TimerNode& node) {
    if (!node.armed()) return;
    count_--;
    Unlink(node);
  }

  // A tick not later than the next deadline: when to call Advance again. kNever if no timer is armed.
  uint64_t NextExpiration() const {
    if (count_ == 0) return kNever;
    if (due_.next != &due_) return elapsed_;
    for (uint32_t level = 0; level < kLevels; level++) {
      if (occupied_[level] != 0) return SlotStart(level, FirstSlot(level));
    }
    return kNever;
  }

  // Moves the wheel to `now` and calls fire(node) for each timer that is due; fire may arm and drop timers.
  template <typename Fire>
  void Advance(uint64_t now, Fire&& fire) {
    for (;;) {
      while (due_.next != &due_) {
        TimerNode& node = *due_.next;
        count_--;
        Unlink(node);
        fire(node);
      }
      uint32_t level = 0;
      while (level < kLevels && occupied_[level] == 0) level++;
      if (level == kLevels) break;
      const uint32_t slot = FirstSlot(level);
      const uint64_t start = SlotStart(level, slot);
      if (start > now) break;
      if (start > elapsed_) elapsed_ = start;
      TimerNode& head = slots_[level][slot];
      // Detach the whole slot first: a node placed again may not come back into the list that is walked.
      TimerNode* node = head.next;
      head.previous->next = nullptr;
      head.previous = head.next = &head;
      occupied_[level] &= ~(uint64_t{1} << slot);
      while (node != nullptr) {
        TimerNode* following = node->next;
        Place(*node);
        node = following;
      }
    }
    if (now > elapsed_) elapsed_ = now;
  }

 private:
  static constexpr uint32_t kLevels = 7;  // 64^7 ms: more than a hundred years; the caller clamps to kSpanMax
  static constexpr uint32_t kBits = 6;

 public:
  static constexpr uint64_t kSpanMax = uint64_t{1} << 40;  // ms, 34 years

 private:
  void Place(TimerNode& node) {
    if (node.deadline <= elapsed_) {
      Link(due_, node);
      return;
    }
    // The level is that of the highest bit in which deadline and clock differ, so a slot above level 0 always lies ahead.
    const uint64_t differing = (elapsed_ ^ node.deadline) | 63;
    const uint32_t level = static_cast<uint32_t>(63 - std::countl_zero(differing)) / kBits;
    CP_ASSERT(level < kLevels);
    const uint32_t slot = (node.deadline >> (kBits * level)) & 63;
    occupied_[level] |= uint64_t{1} << slot;
    Link(slots_[level][slot], node);
  }

  static void Link(TimerNode& head, TimerNode& node) {
    node.previous = head.previous;
    node.next = &head;
    head.previous->next = &node;
    head.previous = &node;
  }

  void Unlink(TimerNode& node) {
    TimerNode* previous = node.previous;
    previous->next = node.next;
    node.next->previous = previous;
    // The last of its slot: clear the slot's bit, found by the list head's address.
    if (previous->next == previous) ClearBit(previous);
    node.previous = node.next = nullptr;
  }

  void ClearBit(const TimerNode* head) {
    if (head == &due_) return;
    const auto index = static_cast<uint32_t>(head - &slots_[0][0]);
    CP_ASSERT(index < kLevels * 64);
    occupied_[index / 64] &= ~(uint64_t{1} << (index % 64));
  }

  uint32_t FirstSlot(uint32_t level) const {
    const uint32_t current = (elapsed_ >> (kBits * level)) & 63;
    const uint64_t rotated = std::rotr(occupied_[level], static_cast<int>(current));
    return (current + static_cast<uint32_t>(std::countr_zero(rotated))) & 63;
  }

  uint64_t SlotStart(uint32_t level, uint32_t slot) const {
    const uint64_t span = uint64_t{1} << (kBits * (level + 1));
    return (elapsed_ & ~(span - 1)) + (static_cast<uint64_t>(slot) << (kBits * level));
  }

  uint64_t elapsed_;
  uint64_t count_ = 0;
  uint64_t occupied_[kLevels] = {};
  TimerNode slots_[kLevels][64];
  TimerNode due_;
};

}  // namespace cp
