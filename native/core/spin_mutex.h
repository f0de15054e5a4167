// A mutex for holds of tens of nanoseconds: it tries for a few of them before it sleeps, since a sleep and its wake-up cost a hundred times
// as much. One atomic step locks it and one unlocks it; std::mutex keeps an owner and a count besides, which made a post to another thread 7 %
// dearer. With condition variables: std::condition_variable_any.
//
// Invariant: whoever sleeps, or is about to, has put kAwaited there since the last unlock, so the next unlock wakes one; that one locks by
// kAwaited, as others may sleep behind it. The thread that locks next may free the mutex while `unlock` returns: after its exchange that uses
// the address only.
#pragma once

#include <atomic>
#include <cstdint>

#if defined(_MSC_VER)
#include <intrin.h>  // the compiler's, not an OS's
#endif

namespace cp {

class SpinMutex {
 public:
  SpinMutex() = default;
  SpinMutex(const SpinMutex&) = delete;
  SpinMutex& operator=(const SpinMutex&) = delete;

  void lock() {
    if (!try_lock()) LockAwaited();
  }

  bool try_lock() {
    uint32_t expected = kFree;
    return state_.compare_exchange_strong(expected, kLocked, std::memory_order_acquire, std::memory_order_relaxed);
  }

  void unlock() {
    if (state_.exchange(kFree, std::memory_order_release) == kAwaited) state_.notify_one();
  }

 private:
  static constexpr uint32_t kFree = 0, kLocked = 1, kAwaited = 2;
  static constexpr int kTries = 100;  // 2 to 4 µs where the holder runs on another processor; it may not, so no more

  void LockAwaited() {
    for (int i = 0; i < kTries; i++) {
      Pause();
      if (state_.load(std::memory_order_relaxed) == kFree && try_lock()) return;
    }
    while (state_.exchange(kAwaited, std::memory_order_acquire) != kFree) state_.wait(kAwaited, std::memory_order_relaxed);
  }

  static void Pause() {
#if defined(_MSC_VER) && defined(_M_X64)
    _mm_pause();
#elif defined(_MSC_VER)
    __yield();
#elif defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  std::atomic<uint32_t> state_{kFree};
};

}  // namespace cp
