// Description: kqueue(2) and kevent(2) for Linux, on epoll, so that the kqueue poller and the reactor above it can be run here. For tests only;
// no part of the package. It has what the poller uses and what tells FreeBSD's kernel from XNU's; a use beyond that is an error (ENOTSUP), never
// a guess. See kqueue_shim.cc for the behaviours and their switch, faults.h for the faults.
#pragma once

#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

// Layout and numbers as FreeBSD's and macOS's headers have them where they agree.
struct kevent {
  uintptr_t ident;
  int16_t filter;
  uint16_t flags;
  uint32_t fflags;
  int64_t data;
  void* udata;
};

#define EV_SET(kevp, a, b, c, d, e, f) \
  do {                                 \
    struct kevent* kevp__ = (kevp);    \
    kevp__->ident = (a);               \
    kevp__->filter = (b);              \
    kevp__->flags = (c);               \
    kevp__->fflags = (d);              \
    kevp__->data = (e);                \
    kevp__->udata = (f);               \
  } while (0)

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_USER (-10)

#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_DISABLE 0x0008
#define EV_ONESHOT 0x0010
#define EV_CLEAR 0x0020
#define EV_RECEIPT 0x0040
#define EV_DISPATCH 0x0080
#define EV_ERROR 0x4000
#define EV_EOF 0x8000

#define NOTE_TRIGGER 0x01000000

int kqueue(void);
int kevent(int kq, const struct kevent* changes, int change_count, struct kevent* events, int event_count, const struct timespec* timeout);
// close(2) for code that has descriptors or queues of the shim's: what is registered for a descriptor goes with its number, as there, while an
// epoll would keep it for as long as the open file has another.
int kqueue_shim_close(int fd);

#ifdef __cplusplus
}
#endif
