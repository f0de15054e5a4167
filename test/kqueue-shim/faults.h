// Description: what real kernels do now and then, done often: included before everything else in each file of the backend (never in the tests
// themselves), it puts calls that misbehave in the place of the system's. Without COMPLETION_PORT_KQUEUE_FAULTS they only pass on.
//
// COMPLETION_PORT_KQUEUE_FAULTS=SEED[,ONE_IN[,WHOLE]]: about one call in ONE_IN (8) misbehaves:
// - recv, send, sendmsg: EINTR; or fewer bytes than there are or is room for, where they are more than WHOLE (64 KiB: a program, and the
//   conformance suite, may count on it that what was sent at once over loopback, and is small, comes at once)
// - pread, preadv, pwrite, pwritev: fewer bytes, in the same way
// - accept: EINTR. connect: EINTR (it goes on by itself), or done at once where it can be
// - poll: EINTR
// - kevent (kqueue_shim.cc): events for nothing, ends told late, EINTR, ENOENT and EPIPE on registration
#pragma once

#ifdef __cplusplus
// Whatever declares these names comes first: they are replaced as words.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <semaphore>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <sys/event.h>

extern "C" {
ssize_t kqueue_shim_recv(int fd, void* data, size_t length, int flags);
ssize_t kqueue_shim_send(int fd, const void* data, size_t length, int flags);
ssize_t kqueue_shim_sendmsg(int fd, const msghdr* message, int flags);
ssize_t kqueue_shim_pread(int fd, void* data, size_t length, off_t position);
ssize_t kqueue_shim_preadv(int fd, const iovec* vector, int count, off_t position);
ssize_t kqueue_shim_pwrite(int fd, const void* data, size_t length, off_t position);
ssize_t kqueue_shim_pwritev(int fd, const iovec* vector, int count, off_t position);
int kqueue_shim_accept(int fd, sockaddr* address, socklen_t* length);
int kqueue_shim_connect(int fd, const sockaddr* address, socklen_t length);
int kqueue_shim_poll(pollfd* fds, nfds_t count, int timeout_ms);
}

#define close kqueue_shim_close
#define recv kqueue_shim_recv
#define send kqueue_shim_send
#define sendmsg kqueue_shim_sendmsg
#define pread kqueue_shim_pread
#define preadv kqueue_shim_preadv
#define pwrite kqueue_shim_pwrite
#define pwritev kqueue_shim_pwritev
#define accept kqueue_shim_accept
#define connect kqueue_shim_connect
#define poll kqueue_shim_poll
#endif
