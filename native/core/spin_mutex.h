// A mutex for holds of tens of nanoseconds: it tries for a few of them before it sleeps, since a sleep and its wake-up cost a hundred times
// as much. It is a std::mutex below, so condition variables work with it.
#pragma once

#include <mutex>

#if defined(_MSC_VER)
#include <intrin.h>  // the compiler's, not an OS's
#endif

namespace cp {

// `mutex` is locked when this returns.
inline void LockSpinning(std::mutex& mutex) {
  constexpr int kTries = 100;  // 2 to 4 µs where the holder runs on another processor; it may not, so no more
  for (int i = 0; i < kTries; i++) {
    if (mutex.try_lock()) return;
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
  mutex.lock();
}

}  // namespace cp
