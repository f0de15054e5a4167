// A mutex for holds of tens of nanoseconds: it tries for a few of them before it sleeps, since a sleep and its wake-up cost a hundred times
// as much. One atomic step locks it and one unlocks it; std::mutex keeps an owner and a count besides, which made a post to another thread 7 %
// dearer. With condition variables: std::condition_variable_any.
//
// Where libstdc++ has no futex (mingw-w64) std::atomic's wait sleeps on a condition variable whose notifier doesn't take the mutex (GCC 12,
// bits/atomic_wait.h: _M_notify; a waiter that has compared and not slept yet misses it), and std::mutex is below.
//
// Invariant: whoever sleeps, or is about to, has put kAwaited there since the last unlock, so the next unlock wakes one; that one locks by
// kAwaited, as others may sleep behind it. The thread that locks next may free the mutex while `unlock` returns: after its exchange that uses
// the address only.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#if defined(_MSC_VER)
#include <intrin.h>  // the compiler's, not an OS's
#endif

// std::atomic's wait is the system's own: futex, ulock, umtx, WaitOnAddress.
#if defined(__GLIBCXX__) && !defined(_GLIBCXX_HAVE_LINUX_FUTEX)
#define CP_ATOMIC_WAIT 0
#else
#define CP_ATOMIC_WAIT 1
#endif

// ThreadSanitizer knows the order of locks of pthread's mutexes by itself, of others when it is told.
#if defined(__SANITIZE_THREAD__)
#define CP_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CP_TSAN 1
#endif
#endif
#if defined(CP_TSAN) && CP_ATOMIC_WAIT
#include <sanitizer/tsan_interface.h>
#define CP_TSAN_MUTEX(call) call
#else
#define CP_TSAN_MUTEX(call)
#endif

namespace cp {

class SpinMutex {
 public:
  SpinMutex() { CP_TSAN_MUTEX(__tsan_mutex_create(this, __tsan_mutex_not_static)); }
  ~SpinMutex() { CP_TSAN_MUTEX(__tsan_mutex_destroy(this, 0)); }
  SpinMutex(const SpinMutex&) = delete;
  SpinMutex& operator=(const SpinMutex&) = delete;

  void lock() {
    CP_TSAN_MUTEX(__tsan_mutex_pre_lock(this, 0));
    if (!Try()) LockBusy();
    CP_TSAN_MUTEX(__tsan_mutex_post_lock(this, 0, 0));
  }

  void unlock() {
    CP_TSAN_MUTEX(__tsan_mutex_pre_unlock(this, 0));
    Free();
    CP_TSAN_MUTEX(__tsan_mutex_post_unlock(this, 0));
  }

 private:
  static constexpr int kTries = 100;  // 2 to 4 µs where the holder runs on another processor; it may not, so no more

#if CP_ATOMIC_WAIT
  static constexpr uint32_t kFree = 0, kLocked = 1, kAwaited = 2;

  bool Try() {
    uint32_t expected = kFree;
    return state_.compare_exchange_strong(expected, kLocked, std::memory_order_acquire, std::memory_order_relaxed);
  }
  bool LooksFree() const { return state_.load(std::memory_order_relaxed) == kFree; }
  void Sleep() {
    while (state_.exchange(kAwaited, std::memory_order_acquire) != kFree) state_.wait(kAwaited, std::memory_order_relaxed);
  }
  void Free() {
    if (state_.exchange(kFree, std::memory_order_release) == kAwaited) state_.notify_one();
  }

  std::atomic<uint32_t> state_{kFree};
#else
  bool Try() { return mutex_.try_lock(); }
  bool LooksFree() const { return true; }
  void Sleep() { mutex_.lock(); }
  void Free() { mutex_.unlock(); }

  std::mutex mutex_;
#endif

  void LockBusy() {
    for (int i = 0; i < kTries; i++) {
      Pause();
      if (LooksFree() && Try()) return;
    }
    Sleep();
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
};

}  // namespace cp
