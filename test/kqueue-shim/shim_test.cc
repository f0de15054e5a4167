// Description: holds the stand-in for kqueue against what the two kernels were seen to do (FreeBSD 13.2) or have in their source (XNU): one line
// a behaviour and a closing `N passed, N failed`. Run once for each value of COMPLETION_PORT_KQUEUE_SHIM.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/event.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "kqueue_shim.h"

namespace {

int passed = 0, failed = 0;

void Check(bool right, const char* what) {
  (right ? passed : failed)++;
  std::printf("%s  %s\n", right ? "pass" : "FAIL", what);
}

const bool freebsd = kqueue_shim::IsFreeBsd();
constexpr timespec kNow{}, kSoon{0, 50'000'000};

struct kevent Change(uintptr_t ident, int16_t filter, uint16_t flags, uintptr_t udata = 0, uint32_t fflags = 0) {
  struct kevent change {};
  EV_SET(&change, ident, filter, flags, fflags, 0, reinterpret_cast<void*>(udata));
  return change;
}

// 0 or the errno of one change.
int Apply(int kq, const struct kevent& change) { return kevent(kq, &change, 1, nullptr, 0, &kNow) == 0 ? 0 : errno; }

std::vector<struct kevent> Events(int kq, const timespec* timeout = &kNow) {
  std::vector<struct kevent> events(16);
  const int count = kevent(kq, nullptr, 0, events.data(), 16, timeout);
  events.resize(count < 0 ? 0 : static_cast<size_t>(count));
  return events;
}

void Pair(int out[2]) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0 || listen(listener, 1) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) != 0)
    std::abort();
  out[0] = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(out[0], reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) std::abort();
  out[1] = accept(listener, nullptr, nullptr);
  close(listener);
}

void UserEvents() {
  const int kq = kqueue();
  Check(Apply(kq, Change(1, EVFILT_USER, EV_ADD | EV_CLEAR, 7, NOTE_TRIGGER)) == 0, "EVFILT_USER is added and triggered in one change");
  Check(Events(kq).size() == (freebsd ? 0u : 1u), "which fires on XNU only");
  Check(Apply(kq, Change(1, EVFILT_USER, 0, 8, NOTE_TRIGGER)) == 0 && Events(kq).size() == 1, "a trigger by itself fires");
  Check(Events(kq).empty(), "EV_CLEAR: once");
  Check(Apply(kq, Change(2, EVFILT_USER, 0, 0, NOTE_TRIGGER)) == ENOENT, "a trigger of what isn't registered: ENOENT");
  kqueue_shim_close(kq);
}

void Sockets() {
  int pair[2];
  Pair(pair);
  const int kq = kqueue();
  Check(Apply(kq, Change(pair[0], EVFILT_READ, EV_ADD | EV_ONESHOT, 1)) == 0 && Events(kq).empty(), "nothing to read, nothing told");
  Check(Apply(kq, Change(pair[0], EVFILT_READ, EV_ADD | EV_ONESHOT, 2)) == 0, "EV_ADD again");
  if (write(pair[1], "abc", 3) != 3) std::abort();
  auto events = Events(kq, &kSoon);
  Check(events.size() == 1 && events[0].udata == reinterpret_cast<void*>(2) && events[0].data == 3,
        "replaces udata; data counts the bytes");
  Check(Events(kq).empty(), "EV_ONESHOT: once");
  Check(Apply(kq, Change(pair[0], EVFILT_READ, EV_DELETE)) == ENOENT, "and it is gone: ENOENT");
  // EV_DISPATCH
  Check(Apply(kq, Change(pair[0], EVFILT_READ, EV_ADD | EV_DISPATCH, 3)) == 0 && Events(kq).size() == 1 && Events(kq).empty(),
        "EV_DISPATCH: once");
  Check(Apply(kq, Change(pair[0], EVFILT_READ, EV_ADD | EV_DISPATCH, 3)) == 0 && Events(kq).empty(), "EV_ADD alone doesn't arm it again");
  Check(Apply(kq, Change(pair[0], EVFILT_READ, EV_ENABLE, 3)) == 0 && Events(kq).size() == 1, "EV_ENABLE does");
  Check(Apply(kq, Change(pair[0], EVFILT_READ, EV_DELETE)) == 0, "it is deleted");
  // Errors and events in one call
  const struct kevent both[2] = {Change(pair[0], EVFILT_READ, EV_ADD | EV_ONESHOT, 4), Change(pair[0], EVFILT_WRITE, EV_DELETE)};
  struct kevent out[4];
  int count = kevent(kq, both, 2, out, 4, &kNow);
  Check(count == 1 && (out[0].flags & EV_ERROR) != 0 && out[0].data == ENOENT, "an error of a change comes alone");
  Check(Events(kq).size() == 1, "the event comes with the next call");
  const struct kevent receipt = Change(pair[0], EVFILT_READ, EV_ADD | EV_ONESHOT | EV_RECEIPT, 5);
  count = kevent(kq, &receipt, 1, out, 4, &kNow);
  Check(count == 1 && (out[0].flags & EV_ERROR) != 0 && out[0].data == 0, "EV_RECEIPT answers with 0 and keeps events out");
  // The end
  Check(Apply(kq, Change(pair[0], EVFILT_WRITE, EV_ADD | EV_ONESHOT, 6)) == 0, "a write filter");
  shutdown(pair[1], SHUT_WR);
  poll(nullptr, 0, 20);
  bool read_end = false, write_end = false;
  for (const auto& event : Events(kq)) (event.filter == EVFILT_READ ? read_end : write_end) = (event.flags & EV_EOF) != 0;
  Check(read_end && !write_end, "a peer's end is EV_EOF of the read filter, not of the write filter");
  // A duplicate
  const int other = dup(pair[0]);
  Check(Apply(kq, Change(pair[0], EVFILT_READ, EV_ADD, 7)) == 0 && Events(kq).size() == 1, "ready");
  kqueue_shim_close(pair[0]);
  Check(Events(kq).empty(), "a closed descriptor is silent, though it has a duplicate");
  close(other);
  close(pair[1]);
  // Never connected
  const int idle = socket(AF_INET, SOCK_STREAM, 0);
  Check(Apply(kq, Change(idle, EVFILT_WRITE, EV_ADD, 8)) == 0 && Events(kq).empty(), "a socket that was never connected is silent");
  kqueue_shim_close(idle);
  kqueue_shim_close(kq);
}

void Resets() {
  int pair[2];
  Pair(pair);
  const int kq = kqueue();
  Apply(kq, Change(pair[0], EVFILT_READ, EV_ADD | EV_ONESHOT, 1));
  const linger now = {1, 0};
  setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  close(pair[1]);
  const auto events = Events(kq, &kSoon);
  char byte;
  Check(events.size() == 1 && (events[0].flags & EV_EOF) != 0, "a reset is EV_EOF");
  Check(recv(pair[0], &byte, 1, MSG_DONTWAIT) == -1 && errno == ECONNRESET, "and the recv behind it says ECONNRESET");
  kqueue_shim_close(pair[0]);
  kqueue_shim_close(kq);
}

void Waiters() {
  int pair[2];
  Pair(pair);
  const int kq = kqueue();
  Apply(kq, Change(pair[0], EVFILT_READ, EV_ADD | EV_ONESHOT, 1));
  std::atomic<int> woken{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++)
    threads.emplace_back([&] {
      const timespec wait = {0, 200'000'000};
      woken += static_cast<int>(Events(kq, &wait).size());
    });
  poll(nullptr, 0, 50);
  if (write(pair[1], "x", 1) != 1) std::abort();
  for (std::thread& thread : threads) thread.join();
  Check(woken == 1, "of four waiters one gets a one-shot event");
  // A close under a waiter
  std::atomic<bool> over{false};
  std::thread waiter([&] {
    const timespec wait = {0, 400'000'000};
    struct kevent event;
    kevent(kq, nullptr, 0, &event, 1, &wait);
    over = true;
  });
  poll(nullptr, 0, 50);
  kqueue_shim_close(kq);
  poll(nullptr, 0, 100);
  Check(over == !freebsd, "a close of the queue wakes its waiter on XNU only");
  waiter.join();
  kqueue_shim_close(pair[0]);
  close(pair[1]);
}

void Others() {
  const int kq = kqueue();
  const timespec negative = {-1, 0};
  struct kevent event;
  Check(kevent(kq, nullptr, 0, &event, 1, &negative) == -1 && errno == EINVAL, "a negative timeout: EINVAL");
  int ends[2];
  if (pipe(ends) != 0) std::abort();
  close(ends[0]);
  Check(Apply(kq, Change(ends[1], EVFILT_WRITE, EV_ADD | EV_ONESHOT)) == (freebsd ? EPIPE : 0), "a pipe without reader: EPIPE on FreeBSD");
  kqueue_shim_close(ends[1]);
  char name[] = "/tmp/kqueue-shim-XXXXXX";
  const int file = mkstemp(name);
  unlink(name);
  if (file < 0 || write(file, "abcd", 4) != 4) std::abort();
  Apply(kq, Change(file, EVFILT_READ, EV_ADD));
  lseek(file, 1, SEEK_SET);
  auto events = Events(kq);
  Check(events.size() == 1 && events[0].data == 3, "a regular file tells what lies behind the position");
  lseek(file, 6, SEEK_SET);
  events = Events(kq);
  Check(freebsd ? events.empty() : events.size() == 1 && events[0].data == -2, "beyond its end: silent on FreeBSD, negative on XNU");
  kqueue_shim_close(file);
  Check(Apply(kq, Change(0x7fff, EVFILT_READ, EV_ADD)) == EBADF, "no descriptor: EBADF");
  kqueue_shim_close(kq);
}

}  // namespace

int main() {
  signal(SIGPIPE, SIG_IGN);
  UserEvents();
  Sockets();
  Resets();
  Waiters();
  Others();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
