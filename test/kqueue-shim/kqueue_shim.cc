// Description: kqueue on epoll. A queue's descriptor is an epoll, level-triggered, so that it can be polled and watched as a queue can; what is
// registered is kept beside it, and an event of the epoll only says that a descriptor is worth a look. Behaves as FreeBSD or as XNU where they
// differ (COMPLETION_PORT_KQUEUE_SHIM=freebsd, else XNU):
//
// | behaviour | FreeBSD | XNU |
// | EVFILT_USER: EV_ADD and NOTE_TRIGGER in one change | no event | fires |
// | a trigger of what isn't registered | ENOENT | ENOENT |
// | EV_ADD again | udata is replaced | udata is replaced |
// | EV_DISPATCH | EV_ENABLE arms it again, EV_ADD alone doesn't | the same |
// | several waiters, one event | one gets it | the same |
// | SO_ERROR behind an event with EV_EOF | is still there (the shim never asks for it) | the same |
// | the write filter of a socket that was never connected | silent | silent |
// | close of a descriptor that has a duplicate | its events are gone | the same |
// | close of the queue under a waiter | it isn't woken | it is, with EBADF |
// | the write filter of a pipe whose reader is gone | EPIPE at registration | attaches |
// | errors of changes and events in one call | errors only | the same |
// | a negative timeout | EINVAL | EINVAL |
// | the read filter of a regular file | while data remains behind the position | always; data may be negative |
//
// EV_CLEAR is there for EVFILT_USER only. Faults: see faults.h.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/event.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "kqueue_shim.h"

namespace kqueue_shim {

bool IsFreeBsd() {
  static const bool is = [] {
    const char* given = std::getenv("COMPLETION_PORT_KQUEUE_SHIM");
    return given != nullptr && std::strcmp(given, "freebsd") == 0;
  }();
  return is;
}

namespace {

constexpr int kFileLookMs = 10;  // regular files have no event in an epoll: they are looked at so often

struct Knote {
  struct kevent event {};
  bool enabled = true;
  bool triggered = false;  // EVFILT_USER
  bool silent = false;     // a socket that was never connected
  bool file = false;       // regular
};

using Key = std::pair<uintptr_t, int16_t>;

struct Queue {
  std::mutex mutex;
  int epoll_fd = -1;
  int event_fd = -1;  // readable while a user event is triggered, and at the end
  bool closed = false;
  std::map<Key, Knote> knotes;
  std::map<int, uint32_t> watched;  // descriptor → what the epoll is asked for
  unsigned files = 0;               // knotes of regular files

  // Behind the last of its waiters.
  ~Queue() {
    if (event_fd >= 0) close(event_fd);
  }
};

struct Queues {
  std::mutex mutex;
  std::map<int, std::shared_ptr<Queue>> all;
};

Queues& TheQueues() {
  static Queues* queues = new Queues;
  return *queues;
}

std::shared_ptr<Queue> Find(int kq) {
  Queues& queues = TheQueues();
  std::lock_guard lock(queues.mutex);
  const auto found = queues.all.find(kq);
  return found == queues.all.end() ? nullptr : found->second;
}

bool IsFile(int fd) {
  struct stat info;
  return fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
}

// Never connected, nor on its way: an epoll would call it hung up. One that was, and is no more, is shut down in both directions.
bool IsIdleSocket(int fd) {
  int type = 0;
  socklen_t length = sizeof(type);
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_STREAM) return false;
  tcp_info info{};
  length = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return false;
  pollfd look = {fd, POLLRDHUP, 0};
  return info.tcpi_state == TCP_CLOSE && poll(&look, 1, 0) >= 0 && (look.revents & (POLLERR | POLLRDHUP)) == 0;
}

// Has the epoll watch for what the knotes of the descriptor ask. 0 or an errno.
int Watch(Queue& queue, int fd) {
  uint32_t wanted = 0;
  for (const int16_t filter : {int16_t{EVFILT_READ}, int16_t{EVFILT_WRITE}}) {
    const auto found = queue.knotes.find({static_cast<uintptr_t>(fd), filter});
    if (found == queue.knotes.end() || !found->second.enabled || found->second.silent) continue;
    wanted |= filter == EVFILT_READ ? EPOLLIN | EPOLLRDHUP : EPOLLOUT;
  }
  const auto now = queue.watched.find(fd);
  const uint32_t before = now == queue.watched.end() ? 0 : now->second;
  if (wanted == before) return 0;
  epoll_event event{};
  event.events = wanted;
  event.data.fd = fd;
  const int operation = wanted == 0 ? EPOLL_CTL_DEL : before == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  if (epoll_ctl(queue.epoll_fd, operation, fd, &event) != 0 && wanted != 0) return errno;
  if (wanted == 0)
    queue.watched.erase(fd);
  else
    queue.watched[fd] = wanted;
  return 0;
}

// The descriptor of user events is readable while one of them waits to be told.
void ShowTriggers(Queue& queue) {
  bool any = false;
  for (const auto& [key, knote] : queue.knotes) any = any || (key.second == EVFILT_USER && knote.triggered && knote.enabled);
  uint64_t count = 1;
  [[maybe_unused]] const ssize_t moved = any ? write(queue.event_fd, &count, sizeof(count)) : read(queue.event_fd, &count, sizeof(count));
}

void Drop(Queue& queue, const Key& key) {
  const auto found = queue.knotes.find(key);
  if (found == queue.knotes.end()) return;
  const bool file = found->second.file;
  queue.knotes.erase(found);
  if (key.second == EVFILT_USER)
    ShowTriggers(queue);
  else if (file)
    queue.files--;
  else
    Watch(queue, static_cast<int>(key.first));
}

// One change: 0 or an errno.
int Apply(Queue& queue, const struct kevent& change) {
  const Key key{change.ident, change.filter};
  const auto found = queue.knotes.find(key);
  const bool user = change.filter == EVFILT_USER;
  if (!user && change.filter != EVFILT_READ && change.filter != EVFILT_WRITE) return EINVAL;
  if (!user && (change.flags & EV_CLEAR) != 0) return ENOTSUP;
  const int fd = static_cast<int>(change.ident);
  if (!user && fcntl(fd, F_GETFD) < 0) return EBADF;
  if ((change.flags & EV_DELETE) != 0) {
    if (found == queue.knotes.end()) return ENOENT;
    Drop(queue, key);
    return 0;
  }
  const bool fresh = found == queue.knotes.end();
  if (fresh) {
    if ((change.flags & EV_ADD) == 0) return ENOENT;
    if (change.filter == EVFILT_WRITE && IsFreeBsd()) {
      struct stat info;
      pollfd look = {fd, POLLOUT, 0};
      if (fstat(fd, &info) == 0 && S_ISFIFO(info.st_mode) && poll(&look, 1, 0) > 0 && (look.revents & POLLERR) != 0) return EPIPE;
    }
    if (!user && (change.flags & EV_ONESHOT) != 0 && Refuses()) return ENOMEM;
    // Of one that isn't one-shot the poller must be told: no operation is behind it that could try by itself.
    if (!user && (change.flags & EV_ONESHOT) != 0 && Misbehaves()) return change.filter == EVFILT_WRITE && Below(2) != 0 ? EPIPE : ENOENT;
  }
  Knote& knote = queue.knotes[key];
  if (fresh) {
    knote.event = change;
    knote.event.flags &= static_cast<uint16_t>(EV_ONESHOT | EV_CLEAR | EV_DISPATCH);
  } else {
    knote.event.udata = change.udata;
    if ((change.flags & EV_ADD) != 0 && (change.flags & EV_ONESHOT) != 0) knote.event.flags |= EV_ONESHOT;
  }
  if ((change.flags & EV_DISABLE) != 0) knote.enabled = false;
  if ((change.flags & EV_ENABLE) != 0) knote.enabled = true;
  if (user) {
    if ((change.fflags & NOTE_TRIGGER) != 0 && !(fresh && IsFreeBsd())) knote.triggered = true;
    ShowTriggers(queue);
    return 0;
  }
  if (IsFile(fd)) {
    if (fresh) queue.files++;
    knote.file = true;
    return 0;
  }
  knote.silent = IsIdleSocket(fd);
  const int error = Watch(queue, fd);
  if (error != 0 && fresh) queue.knotes.erase(key);
  return error;
}

// ---- events ---------------------------------------------------------------------------------------------------------------

struct Told {
  Queue& queue;
  struct kevent* events;
  int room;
  int count = 0;

  bool full() const { return count == room; }
  void Tell(const Key& key, uint16_t flags, int64_t data) {
    Knote& knote = queue.knotes.at(key);
    struct kevent& out = events[count++];
    out = knote.event;
    out.flags |= flags;
    out.fflags = 0;
    out.data = data;
    if ((knote.event.flags & EV_ONESHOT) != 0) {
      Drop(queue, key);
    } else if ((knote.event.flags & EV_DISPATCH) != 0) {
      knote.enabled = false;
      if (key.second != EVFILT_USER) Watch(queue, static_cast<int>(key.first));
    }
  }
};

void ScanDescriptor(Told& told, int fd, uint32_t said) {
  const Key reads{static_cast<uintptr_t>(fd), int16_t{EVFILT_READ}}, writes{static_cast<uintptr_t>(fd), int16_t{EVFILT_WRITE}};
  const bool gone = (said & (EPOLLHUP | EPOLLERR)) != 0;
  if (const auto knote = told.queue.knotes.find(reads);
      knote != told.queue.knotes.end() && knote->second.enabled && !knote->second.silent && !told.full()) {
    const bool end = gone || (said & EPOLLRDHUP) != 0;
    if (end || (said & EPOLLIN) != 0) {
      int bytes = 0;
      ioctl(fd, FIONREAD, &bytes);
      // Late: the end of a stream in which there is still data may be told with a later event only; without data it may take a while.
      const bool late = end && Misbehaves();
      if (!late || bytes > 0) told.Tell(reads, end && !late ? EV_EOF : 0, bytes);
    }
  }
  if (const auto knote = told.queue.knotes.find(writes);
      knote != told.queue.knotes.end() && knote->second.enabled && !knote->second.silent && !told.full()) {
    if (gone || (said & EPOLLOUT) != 0) told.Tell(writes, gone ? EV_EOF : 0, 1);
  }
}

void ScanFiles(Told& told) {
  std::vector<Key> keys;
  for (const auto& [key, knote] : told.queue.knotes)
    if (knote.file && knote.enabled) keys.push_back(key);
  for (const Key& key : keys) {
    if (told.full()) return;
    struct stat info {};
    const int fd = static_cast<int>(key.first);
    fstat(fd, &info);
    const int64_t left = info.st_size - lseek(fd, 0, SEEK_CUR);
    if (key.second == EVFILT_WRITE || !IsFreeBsd() || left > 0) told.Tell(key, 0, left);
  }
}

// A descriptor that has nothing to say says something.
void ScanForNothing(Told& told) {
  if (told.full() || told.queue.knotes.empty() || !Misbehaves()) return;
  auto at = told.queue.knotes.begin();
  std::advance(at, Below(static_cast<uint32_t>(std::min<size_t>(told.queue.knotes.size(), 64))));
  const auto& [key, knote] = *at;
  if (key.second == EVFILT_USER || !knote.enabled || knote.silent || knote.file) return;
  const Key copy = key;
  told.Tell(copy, 0, 1);
}

int Scan(Queue& queue, struct kevent* events, int room) {
  Told told{queue, events, room};
  ScanForNothing(told);
  if (queue.files > 0) ScanFiles(told);
  if (told.full()) return told.count;
  std::vector<epoll_event> ready(static_cast<size_t>(room - told.count));
  const int found = epoll_wait(queue.epoll_fd, ready.data(), static_cast<int>(ready.size()), 0);
  bool users = false;
  for (int i = 0; i < found; i++) {
    if (ready[static_cast<size_t>(i)].data.fd == queue.event_fd)
      users = true;
    else
      ScanDescriptor(told, ready[static_cast<size_t>(i)].data.fd, ready[static_cast<size_t>(i)].events);
  }
  if (!users) return told.count;
  std::vector<Key> triggered;
  for (const auto& [key, knote] : queue.knotes)
    if (key.second == EVFILT_USER && knote.triggered && knote.enabled) triggered.push_back(key);
  for (const Key& key : triggered) {
    if (told.full()) break;
    Knote& knote = queue.knotes.at(key);
    if ((knote.event.flags & EV_CLEAR) != 0) knote.triggered = false;
    told.Tell(key, 0, 0);
  }
  ShowTriggers(queue);
  return told.count;
}

double NowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

}  // namespace

void Connecting(int fd) {
  Queues& queues = TheQueues();
  std::lock_guard lock(queues.mutex);
  for (const auto& [kq, queue] : queues.all) {
    std::lock_guard inner(queue->mutex);
    for (const int16_t filter : {int16_t{EVFILT_READ}, int16_t{EVFILT_WRITE}}) {
      const auto found = queue->knotes.find({static_cast<uintptr_t>(fd), filter});
      if (found == queue->knotes.end() || !found->second.silent) continue;
      found->second.silent = false;
      Watch(*queue, fd);
    }
  }
}

}  // namespace kqueue_shim

using namespace kqueue_shim;

extern "C" {

int kqueue(void) {
  auto queue = std::make_shared<Queue>();
  queue->epoll_fd = epoll_create1(0);
  if (queue->epoll_fd < 0) return -1;
  queue->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = queue->event_fd;
  if (queue->event_fd < 0 || epoll_ctl(queue->epoll_fd, EPOLL_CTL_ADD, queue->event_fd, &event) != 0) {
    const int error = errno;
    close(queue->epoll_fd);
    errno = error;
    return -1;
  }
  Queues& queues = TheQueues();
  std::lock_guard lock(queues.mutex);
  queues.all[queue->epoll_fd] = queue;
  return queue->epoll_fd;
}

int kevent(int kq, const struct kevent* changes, int change_count, struct kevent* events, int event_count, const struct timespec* timeout) {
  const std::shared_ptr<Queue> queue = Find(kq);
  if (queue == nullptr) return errno = EBADF, -1;
  if (timeout != nullptr && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1'000'000'000)) return errno = EINVAL, -1;
  const double limit = timeout == nullptr ? -1 : static_cast<double>(timeout->tv_sec) * 1e3 + static_cast<double>(timeout->tv_nsec) / 1e6;
  const double deadline = limit < 0 ? 0 : NowMs() + limit;
  {
    std::lock_guard lock(queue->mutex);
    int answers = 0;
    for (int i = 0; i < change_count; i++) {
      const int error = Apply(*queue, changes[i]);
      if (error == 0 && (changes[i].flags & EV_RECEIPT) == 0) continue;
      if (answers == event_count) {
        if (error == 0) break;  // a receipt without room: what follows isn't processed
        return errno = error, -1;
      }
      events[answers] = changes[i];
      events[answers].flags |= EV_ERROR;
      events[answers++].data = error;
    }
    if (answers > 0) return answers;
  }
  if (event_count == 0) return 0;
  if (limit != 0 && Misbehaves()) return errno = EINTR, -1;
  for (;;) {
    bool files;
    {
      std::lock_guard lock(queue->mutex);
      if (queue->closed) return errno = EBADF, -1;
      const int count = Scan(*queue, events, event_count);
      if (count > 0) return count;
      files = queue->files > 0;
    }
    double left = limit < 0 ? 1e9 : deadline - NowMs();
    if (left <= 0) return 0;
    if (files && left > kFileLookMs) left = kFileLookMs;
    // Should it end a little early, the rest is waited for, too.
    const timespec wait = {static_cast<time_t>(left / 1e3),
                           static_cast<long>((left - static_cast<double>(static_cast<time_t>(left / 1e3)) * 1e3) * 1e6)};
    pollfd watched = {kq, POLLIN, 0};
    if (ppoll(&watched, 1, &wait, nullptr) < 0 && errno == EINTR) return -1;
  }
}

int kqueue_shim_close(int fd) {
  Queues& queues = TheQueues();
  std::shared_ptr<Queue> ended;
  {
    std::lock_guard lock(queues.mutex);
    if (const auto found = queues.all.find(fd); found != queues.all.end()) {
      ended = found->second;
      queues.all.erase(found);
    }
    for (const auto& [kq, queue] : queues.all) {
      std::lock_guard inner(queue->mutex);
      for (const int16_t filter : {int16_t{EVFILT_READ}, int16_t{EVFILT_WRITE}}) Drop(*queue, {static_cast<uintptr_t>(fd), filter});
    }
  }
  if (ended != nullptr) {
    std::lock_guard lock(ended->mutex);
    ended->closed = true;
    // XNU's waiters wake; FreeBSD's sleep on.
    const uint64_t one = 1;
    if (!IsFreeBsd() && write(ended->event_fd, &one, sizeof(one)) < 0) std::abort();
  }
  return close(fd);
}

}  // extern "C"
