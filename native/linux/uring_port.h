// The io_uring backend: a completion port whose packets are kept in user space (core/packet_queue.h) and whose operations are SQEs.
// Its ring belongs to one thread (SINGLE_ISSUER): the thread of a private port, the driver of a shared one. Only it calls io_uring_enter.
// Under a shared port's mutex any thread writes SQEs and reads CQEs: both are plain memory, of which the kernel looks at no more than was
// published to it (`*sq.ktail`, `*cq.khead`).
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <liburing.h>

#include "core/file_pool.h"
#include "posix/posix_port.h"

namespace cp {

struct UringFeatures {
  bool single_issuer = false;  // IORING_SETUP_SINGLE_ISSUER, Linux 6.0
  bool defer_taskrun = false;  // IORING_SETUP_DEFER_TASKRUN, 6.1
  bool taskrun_flag = false;   // IORING_SETUP_TASKRUN_FLAG, 5.19
  bool submit_all = false;     // IORING_SETUP_SUBMIT_ALL, 5.18
  bool ext_arg = false;        // IORING_FEAT_EXT_ARG, 5.11
  bool statx = false;          // IORING_OP_STATX, 5.6
  bool ftruncate = false;      // IORING_OP_FTRUNCATE, 6.9
};

class UringPort final : public posix::PosixPort {
 public:
  // Null: see *error.
  static std::unique_ptr<UringPort> Create(const PortOptions& options, CreateError* error);
  ~UringPort() override;

  const char* name() const override { return "io_uring"; }
  std::vector<std::pair<std::string, bool>> features() const override;
  int notification_fd() const override { return event_fd_; }
  void ClearNotification() override;
  void RaiseNotification() override;
  bool WatchLoop(int fd) override;

 protected:
  void Begin(Operation& op) override;
  void RequestCancel(Operation& op) override;
  void Withdraw(Operation& op) override;
  int Flush(bool reap) override;
  int Wait(double timeout_ms) override;
  bool Notify(bool on) override;
  bool Settle() override;
  void Kick() override;
  int BindHandle(Handle& handle) override;
  void ReleaseHandle(Handle& handle, bool busy, bool reset) override;
  bool Abandon(Operation& op) override;
  void Finish() override;
  void BackendStats(Control& control) override;

 private:
  // What pool threads and the port share; outlives both sides.
  struct PoolChannel {
    std::mutex mutex;
    std::vector<std::pair<uint64_t, Outcome>> done;  // user data of the operation
    int event_fd = -1;
    ~PoolChannel();
  };

  explicit UringPort(const PortOptions& options) : PosixPort(options) {}
  bool Open(CreateError* error) override;
  void Drive() override;
  void DriveOnce(unsigned submit, double wait_ms);
  int SetUp(const PortOptions& options);
  bool RunNop(CreateError* error);

  io_uring_sqe* TakeSqe();
  bool Submit(bool reap);
  void Pump();
  bool Begun(Operation& op);
  bool BeginOnPool(Operation& op);
  void PrepareFile(Operation& op, io_uring_sqe* sqe);
  void PrepareSocket(Operation& op, io_uring_sqe* sqe);
  bool MakeRoom(Operation& op);
  void Reap();
  void Ended(Operation& op, int32_t result);
  void EndedAccept(Operation& op, int32_t result);
  void DrainPool();
  bool Hinted() const;

  io_uring ring_{};
  bool ring_open_ = false;
  UringFeatures features_;
  int event_fd_ = -1;  // private: tells the event loop; shared: wakes the driver
  bool kick_watched_ = false;
  uint64_t kicks_ = 0;                // read into, never looked at
  __kernel_timespec wait_timeout_{};  // of the driver's wait where EXT_ARG is missing
  int last_error_ = 0;
  bool loop_watched_ = false;
  Backlog backlog_;                                    // begun when the ring has room again
  std::deque<std::pair<uint32_t, uint32_t>> cancels_;  // slot and generation, the same
  uint32_t cancels_asked_ = 0, submits_ = 0;           // for the tests
  std::vector<int> close_later_;                       // closed when the kernel has taken every prepared entry
  std::shared_ptr<PoolChannel> pool_;
  pool::Share pool_share_{options_.pool_threads};
  uint32_t pool_jobs_ = 0;
  bool pool_watched_ = false;
};

// Why io_uring can't be used here, in words, with what to do: for create, `auto` and doctor.
std::string ExplainUringError(int32_t native_code, const char* call);

}  // namespace cp
