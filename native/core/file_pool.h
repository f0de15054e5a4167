// A bounded pool of threads for what an OS can only do by blocking: the files of a reactor, and what io_uring and I/O
// completion ports have no request for. Its threads serve all ports of the process; they start on demand and end after a second without work. Each port has a share: so many of its jobs run at
// once, the others wait for one of them. There are at most as many threads as the largest share says, and they take jobs in their order, whosever
// they are; but where nothing moves for a tenth of a second, and a share has jobs in line and none that runs, one of them gets a thread beyond
// that: ports whose calls hang keep no other from the disk. A job may touch nothing that belongs to an environment but memory that its
// operation pins, and that only until the operation is taken from it (ReactorPort::Abandon).
#pragma once

#include <functional>
#include <memory>

namespace cp::pool {

struct Job;

// Jobs in the order of their submission; the pool's, under its mutex.
struct Jobs {
  Job* first = nullptr;
  Job* last = nullptr;
  unsigned count = 0;

  void Push(Job& job);
  void Remove(Job& job);
};

// What a share's jobs refer to; outlives it while one of them runs.
struct ShareState {
  explicit ShareState(unsigned jobs_max_) : jobs_max(jobs_max_) {}
  const unsigned jobs_max;
  unsigned busy = 0;     // jobs that run, or that a thread may take:
  unsigned ready = 0;    // that a thread may take
  unsigned running = 0;  // that run
  bool starves = false;  // some are ready, none runs
  Jobs held;             // the others, while `busy` is at its bound
};

// What a pool thread does once. It belongs to whoever submitted it, and stays where it is until Run has told its owner of the end; the pool
// doesn't touch it from then on.
struct Job {
  virtual ~Job() = default;
  virtual void Run() = 0;

  std::shared_ptr<ShareState> share;  // the rest is the pool's, under its mutex
  Job* previous = nullptr;
  Job* next = nullptr;
  Jobs* list = nullptr;  // null: it runs, has run, or was taken back
};

// A port's part of the pool. Any thread may call its functions.
class Share {
 public:
  // `jobs_max`: 1 to kPoolThreadsMax.
  explicit Share(unsigned jobs_max);
  ~Share();
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;

  // False: no thread could be started, and nothing is queued.
  bool Submit(Job& job);
  // A job that nobody takes back. False as above.
  bool Run(std::function<void()> job);

 private:
  std::shared_ptr<ShareState> state_;
};

// Any thread may call it. True: the job had not begun, and never will; false: it runs, or has run.
bool Withdraw(Job& job);

}  // namespace cp::pool
