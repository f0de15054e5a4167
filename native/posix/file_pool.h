// A bounded pool of threads for what an OS can only do by blocking: the files of a reactor, and what io_uring has no request for. Its threads
// serve all ports of the process; they start on demand and end after a second without work. Each port has a share: so many of its jobs run at
// once, the others wait for one of them. There are at most as many threads as the largest share says. A job may touch nothing that belongs to an
// environment but memory that its operation pins: whoever ends an environment waits for that operation.
#pragma once

#include <functional>
#include <memory>

namespace cp::posix {

struct PoolJob;

// Jobs in the order of their submission; the pool's, under its mutex.
struct PoolJobs {
  PoolJob* first = nullptr;
  PoolJob* last = nullptr;
  unsigned count = 0;

  void Push(PoolJob& job);
  void Remove(PoolJob& job);
};

// What a share's jobs refer to; outlives it while one of them runs.
struct PoolShareState {
  const unsigned jobs_max;
  unsigned busy = 0;  // jobs that run, or that a thread may take
  PoolJobs held;      // the others, while `busy` is at its bound
};

// What a pool thread does once. It belongs to whoever submitted it, and stays where it is until Run has told its owner of the end; the pool
// doesn't touch it from then on.
struct PoolJob {
  virtual ~PoolJob() = default;
  virtual void Run() = 0;

  std::shared_ptr<PoolShareState> share;  // the rest is the pool's, under its mutex
  PoolJob* previous = nullptr;
  PoolJob* next = nullptr;
  PoolJobs* list = nullptr;  // null: it runs, has run, or was taken back
};

// A port's part of the pool. Any thread may call its functions.
class PoolShare {
 public:
  // `jobs_max`: 1 to kPoolThreadsMax.
  explicit PoolShare(unsigned jobs_max);
  ~PoolShare();
  PoolShare(const PoolShare&) = delete;
  PoolShare& operator=(const PoolShare&) = delete;

  // False: no thread could be started, and nothing is queued.
  bool Submit(PoolJob& job);
  // A job that nobody takes back. False as above.
  bool Run(std::function<void()> job);

 private:
  std::shared_ptr<PoolShareState> state_;
};

// Any thread may call it. True: the job had not begun, and never will; false: it runs, or has run.
bool Withdraw(PoolJob& job);

}  // namespace cp::posix
