// See thread_name.h. Facts: pthread_setname_np(3) of Linux; pthread_set_name_np(3) of FreeBSD and OpenBSD; macOS's pthread.h, where a thread
// can name only itself.
#include "posix/thread_name.h"

#include <pthread.h>
#if defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__DragonFly__)
#include <pthread_np.h>
#endif

namespace cp::posix {

void NameThread(const char* name) {
#if defined(__APPLE__)
  pthread_setname_np(name);
#elif defined(__linux__)
  pthread_setname_np(pthread_self(), name);
#elif defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__DragonFly__)
  pthread_set_name_np(pthread_self(), name);
#else
  (void)name;  // without a name it works as well
#endif
}

}  // namespace cp::posix
