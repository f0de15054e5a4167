// The driver of a shared port on io_uring: the thread that made the ring (IORING_SETUP_SINGLE_ISSUER binds it to its maker), submits what any thread has prepared, and waits in it. It ends
// when the port is stopped and the kernel has let go of everything.
#include <signal.h>
#include <time.h>
#include <unistd.h>
#include <cerrno>
#include <cmath>

#include "core/test_hooks.h"
#include "linux/uring_port.h"

namespace cp {

namespace {
constexpr uint64_t kUserDataKick = uint64_t{4} << 56;     // kTagKick
constexpr uint64_t kUserDataTimeout = uint64_t{5} << 56;  // kTagTimeout
constexpr double kFiniteMax = 9e12;                       // beyond 285 years a timespec's arithmetic isn't worth it
constexpr long kNoMemoryPauseNs = 1'000'000;
constexpr long kRaceNs = 300'000;

__kernel_timespec Timespec(double ms) {
  __kernel_timespec span;
  span.tv_sec = static_cast<int64_t>(ms / 1e3);
  span.tv_nsec = static_cast<int64_t>(std::ceil((ms - static_cast<double>(span.tv_sec) * 1e3) * 1e6));
  if (span.tv_nsec >= 1'000'000'000) {
    span.tv_sec++;
    span.tv_nsec -= 1'000'000'000;
  }
  return span;
}

}  // namespace

void UringPort::Drive() {
  std::vector<int> closing;
  for (;;) {
    unsigned submit;
    double wait;
    {
      Lock lock(*this);
      EndDriverWait();
      // Of descriptors whose entries were prepared before the last call the kernel knows now, if it took all that was published.
      if (io_uring_smp_load_acquire(ring_.sq.khead) == ring_.sq.sqe_head) {
        for (const int fd : closing) close(fd);
        closing.clear();
      }
      if (!cancels_.empty() || !backlog_.empty()) Pump();
      Reap();
      wait = DriverTurn();
      if (wait < 0) return;
      const uint32_t before = in_kernel_;
      if (!cancels_.empty() || !backlog_.empty()) Pump();
      // What ended there (for want of memory, or of a descriptor) may have armed a timer or left packets to be watched: asked of the next turn.
      if (in_kernel_ != before) wait = 0;
      if (!kick_watched_) {
        if (io_uring_sqe* sqe = TakeSqe()) {
          io_uring_prep_read(sqe, event_fd_, &kicks_, sizeof(kicks_), 0);
          io_uring_sqe_set_data64(sqe, kUserDataKick);
          kick_watched_ = true;
        } else {
          wait = 0;
        }
      }
      if (pool_jobs_ > 0 && !pool_watched_) wait = 0;
      if (wait > 0 && wait < kFiniteMax && !features_.ext_arg) {
        wait_timeout_ = Timespec(wait);
        if (io_uring_sqe* sqe = TakeSqe()) {
          io_uring_prep_timeout(sqe, &wait_timeout_, 1, 0);
          io_uring_sqe_set_data64(sqe, kUserDataTimeout);
        } else {
          wait = 0;
        }
      }
      if (!cancels_.empty() || !backlog_.empty()) wait = 0;  // the ring is full: there is room after the call
      if (io_uring_cq_ready(&ring_) > 0) wait = 0;
      submit = io_uring_sq_ready(&ring_);
      // Publishes the entries, as io_uring_submit would; the call itself is made without the mutex.
      ring_.sq.sqe_head = ring_.sq.sqe_tail;
      io_uring_smp_store_release(ring_.sq.ktail, ring_.sq.sqe_tail);
      // Nobody else closes them: they aren't slept over.
      closing.insert(closing.end(), close_later_.begin(), close_later_.end());
      close_later_.clear();
      if (!closing.empty()) wait = 0;
      kick_wanted_ = false;
      enters_++;
      BeginDriverWait();
    }
    DriveOnce(submit, wait);
  }
}

void UringPort::DriveOnce(unsigned submit, double wait_ms) {
  unsigned flags = IORING_ENTER_GETEVENTS;
  __kernel_timespec timeout;
  io_uring_getevents_arg argument{};
  argument.sigmask_sz = _NSIG / 8;
  void* extra = nullptr;
  size_t extra_bytes = _NSIG / 8;
  if (features_.ext_arg && wait_ms > 0 && wait_ms < kFiniteMax) {
    timeout = Timespec(wait_ms);
    argument.ts = reinterpret_cast<uint64_t>(&timeout);
    flags |= IORING_ENTER_EXT_ARG;
    extra = &argument;
    extra_bytes = sizeof(argument);
  }
  if (Races() && submit > 0) {
    const int taken = io_uring_enter2(static_cast<unsigned>(ring_.enter_ring_fd), submit, 0, IORING_ENTER_GETEVENTS, nullptr, _NSIG / 8);
    if (taken != static_cast<int>(submit)) return;
    submit = 0;
    const timespec moment = {0, kRaceNs};
    nanosleep(&moment, nullptr);
  }
  const int result = io_uring_enter2(static_cast<unsigned>(ring_.enter_ring_fd), submit, wait_ms > 0 ? 1 : 0, flags,
                                     static_cast<sigset_t*>(extra), extra_bytes);
  if (result != -EAGAIN && result != -EBUSY) return;
  // No memory for a request now: what was not taken stays in the ring, and goes with the next call.
  const timespec pause = {0, kNoMemoryPauseNs};
  nanosleep(&pause, nullptr);
}

void UringPort::Kick() { RaiseNotification(); }

}  // namespace cp
