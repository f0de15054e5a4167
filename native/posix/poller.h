// What the reactor (reactor_port.h) asks of an OS that reports readiness: epoll (native/linux/epoll_poller.h), kqueue. A poller knows descriptors
// and tokens, nothing of operations or handles, and decides nothing: an event only says that a call is worth a try. The truth is what the call
// answers, so an event that comes for nothing, twice, or for a descriptor that has been closed since costs a try and does no harm.
//
// Threads: of a private port one thread calls everything but Wake. Of a shared port every function is called under the port's mutex, by any
// thread, but for WaitReady, which the driver calls without it, and Wake, which anybody may call at any time. Events are therefore taken under
// the mutex only, and none is ever in the hands of a thread that others can't see.
//
// What must hold ("no edge is lost"): once Arm has been called for a direction, an event with that bit comes if the direction is ready then or
// becomes ready later, however it was found exhausted before: by EAGAIN, or by a call that moved less than it was asked to. Two ways are right:
//
// - edge-triggered, registered once in Add, Arm does nothing (epoll): the kernel reports each change to readiness, and the reactor calls Arm
//   only behind a call that found the direction exhausted, having taken no event of it since;
// - one-shot, Add does nothing, Arm registers (kqueue: EV_ADD | EV_ONESHOT): the kernel looks when it is armed.
//
// Order of functions is the same in every poller, so that two can be read side by side.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace cp::posix {

// What an event says of a descriptor.
enum Readiness : uint8_t {
  kReadable = 1,  // recv, accept
  kWritable = 2,  // send, connect
  // The end, a hang-up or an error has been seen, with either bit above or both: a direction's state of which no further event tells. From here
  // on a call that moved less than it was asked to doesn't mean that the next one would have to wait. (kqueue: EV_EOF, EV_ERROR of the socket.)
  kEnded = 4,
  // Out-of-band data has been seen: a recv stops short at its mark, with more behind it (tcp(7)); as above.
  kUrgent = 8,
};

struct ReadyEvent {
  uint64_t token = 0;
  uint8_t ready = 0;
  // A negative errno: the OS refused to watch the directions in `ready` for want of something (memory). What waits for them fails with it.
  // A refusal that is only the descriptor's state (kqueue: EPIPE; ENOENT of a deletion) isn't told: it counts as ready, or as done.
  int32_t error = 0;
};

class Poller {
 public:
  // Tokens of what isn't a handle's. A handle's is less than both.
  static constexpr uint64_t kTokenWake = ~uint64_t{0};      // Wake was called
  static constexpr uint64_t kTokenLoop = ~uint64_t{0} - 1;  // the descriptor of WatchLoop is readable

  Poller() = default;
  virtual ~Poller() = default;
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // The backend's name.
  virtual const char* name() const = 0;
  virtual std::vector<std::pair<std::string, bool>> features() const = 0;
  // For an event loop: readable while Take would bring something. Watching it takes nothing.
  virtual int descriptor() const = 0;

  // A socket joins the port under this token. 0 or a negative errno: nothing is registered. Not called twice for an open descriptor.
  virtual int Add(int fd, uint64_t token) = 0;
  // The next time that the direction, kReadable or kWritable, is worth a try is to be told; see above. May be gathered until Submit or Take.
  // 0 or a negative errno.
  virtual int Arm(int fd, uint64_t token, Readiness direction) = 0;
  // Called before the descriptor is closed: no event of it is taken any more, whoever else still holds the open file (a dup, a child between
  // fork and exec). Events that Take has brought already may be in the caller's hands.
  virtual void Remove(int fd) = 0;
  // Hands over what Arm has gathered: of a shared port before the mutex is let go.
  virtual void Submit() = 0;
  // Fills `out` with events that are there, waiting for the first up to timeout_ms (0: not at all; infinity: for ever). Never early but for a
  // signal: EINTR is 0 events. Their number, or a negative errno. Events that don't fit come with the next call, none before all others had
  // their turn.
  virtual int Take(std::span<ReadyEvent> out, double timeout_ms) = 0;
  // Waits, up to timeout_ms, until Take would bring something; takes nothing.
  virtual void WaitReady(double timeout_ms) = 0;
  // Any thread, a signal-free moment or not: Take brings kTokenWake once, at least, after the last call; several calls may come out as one.
  // Never blocks, never fails.
  virtual void Wake() = 0;
  // Watches an event loop's own descriptor for as long as the poller lives: kTokenLoop comes with every Take while it is readable. 0 or a
  // negative errno. The same descriptor again: nothing.
  virtual int WatchLoop(int fd) = 0;
};

}  // namespace cp::posix
