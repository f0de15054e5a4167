// What a thread of this process does isn't told here: FreeBSD (sysctl(3), KERN_PROC_INC_THREAD) and macOS (thread_info of Mach) have it in forms of
// their own, and none of them has been tried yet. So a thread that sleeps in the kernel keeps its place unless it says so (`port.blocking`).
// pthread_getthreadid_np(3) of FreeBSD; pthread_threadid_np(3) of macOS.
#include "posix/thread_sample.h"

#include <pthread.h>
#if defined(__FreeBSD__)
#include <pthread_np.h>
#endif

namespace cp {

ThreadSample SampleThreadState(uint64_t) { return {}; }

uint64_t CurrentThread() {
#if defined(__APPLE__)
  uint64_t id = 0;
  pthread_threadid_np(nullptr, &id);
  return id;
#elif defined(__FreeBSD__)
  return static_cast<uint64_t>(pthread_getthreadid_np());
#else
  return reinterpret_cast<uint64_t>(pthread_self());  // a name is all that is asked for
#endif
}

}  // namespace cp
