// See file_pool.h. One pool for the process. It is never destroyed: a job may still wait for a disk when the process ends.
#include "core/file_pool.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "core/assert.h"
#include "core/os.h"
#include "core/port.h"

namespace cp::pool {

void Jobs::Push(Job& job) {
  job.previous = last;
  job.next = nullptr;
  (last != nullptr ? last->next : first) = &job;
  last = &job;
  job.list = this;
  count++;
}

void Jobs::Remove(Job& job) {
  (job.previous != nullptr ? job.previous->next : first) = job.next;
  (job.next != nullptr ? job.next->previous : last) = job.previous;
  job.previous = job.next = nullptr;
  job.list = nullptr;
  count--;
}

namespace {

constexpr double kStandstillMs = 100;
constexpr auto kIdleMax = std::chrono::seconds(1);

void Work();
void WorkBeside();

struct Pool {
  std::mutex mutex;
  std::condition_variable wake;
  Jobs ready;  // a thread may take them
  unsigned threads = 0;
  unsigned idle = 0;
  unsigned working = 0;                       // of the threads, those in a job
  unsigned threads_max = 1;                   // the largest share's
  unsigned shares[kPoolThreadsMax + 1] = {};  // how many there are of each size
  // Threads beyond those, one a share at most.
  std::condition_variable wake_beside;
  unsigned beside = 0;
  unsigned beside_idle = 0;
  unsigned starved = 0;  // shares with jobs that are ready, and none that runs
  double moved = 0;      // when one of the others last began or ended a job, by MonotonicMs

  // A thread for one more job that is ready, if there is none to take it. `freed`: threads that are about to look for a job. False: there is no
  // thread that comes to it, and none could be started.
  bool Provide(unsigned freed) {
    if (idle + freed > ready.count || threads >= threads_max) return true;
    if (!os::StartThread("cp-file-pool", &Work)) return threads > 0 || beside_idle > 0;
    threads++;
    return true;
  }
  void Admit(Job& job) {
    ready.Push(job);
    job.share->ready++;
    Counted(*job.share, job.share->running == 0);
    wake.notify_one();
  }
  // A job of the share has ended, or was taken back from those that a thread may take: the next one's turn.
  void Leave(ShareState& share, unsigned freed) {
    Job* next = share.held.first;
    if (next == nullptr) {
      share.busy--;
      return;
    }
    share.held.Remove(*next);
    Provide(freed);  // where no thread can be started now, the next job that is submitted asks again
    Admit(*next);
  }

  // What each change of a share's `ready` and `running` is followed by. `starves`: from here on.
  void Counted(ShareState& share, bool starves) {
    if (starves == share.starves) return;
    share.starves = starves;
    starved = starves ? starved + 1 : starved - 1;
    if (starves && beside_idle > 0) wake_beside.notify_all();  // one that waits for its time to come would not hand it on
  }
  void Unready(Job& job) {
    ShareState& share = *job.share;
    ready.Remove(job);
    share.ready--;
    Counted(share, share.ready > 0 && share.running == 0);
  }
  std::shared_ptr<ShareState> Begin(Job& job) {
    std::shared_ptr<ShareState> share = std::move(job.share);
    ready.Remove(job);
    share->ready--;
    share->running++;
    Counted(*share, false);
    return share;
  }
  void End(ShareState& share, unsigned freed) {
    share.running--;
    Counted(share, share.ready > 0 && share.running == 0);
    Leave(share, freed);
  }
  // Somebody looks after shares that starve while every thread is in a job. Where none can be started now, the next change asks again.
  void SeeToStarved() {
    if (starved == 0 || working < threads || threads < threads_max || beside_idle > 0) return;
    if (!os::StartThread("cp-file-pool", &WorkBeside)) return;
    beside++;
    beside_idle++;
  }
  Job* FirstStarved() const {
    if (starved == 0) return nullptr;
    Job* job = ready.first;
    while (!job->share->starves) job = job->next;
    return job;
  }
};

Pool& ThePool() {
  static Pool* pool = new Pool;
  return *pool;
}

void Work() {
  Pool& pool = ThePool();
  std::unique_lock lock(pool.mutex);
  for (;;) {
    // The share that asked for so many is gone.
    if (pool.threads > pool.threads_max) break;
    if (pool.ready.first == nullptr) {
      pool.idle++;
      const bool work = pool.wake.wait_for(lock, kIdleMax, [&] { return pool.ready.first != nullptr; });
      pool.idle--;
      if (!work) break;
    }
    Job& job = *pool.ready.first;
    const std::shared_ptr<ShareState> share = pool.Begin(job);
    pool.working++;
    pool.moved = MonotonicMs();
    pool.SeeToStarved();
    lock.unlock();
    job.Run();  // and it may be gone
    lock.lock();
    pool.working--;
    pool.moved = MonotonicMs();
    pool.End(*share, 1);
  }
  pool.threads--;
  pool.SeeToStarved();
}

// Beside the others, while nothing moves there: whatever hangs may be one port's.
void WorkBeside() {
  Pool& pool = ThePool();
  std::unique_lock lock(pool.mutex);
  for (double idle_since = MonotonicMs();;) {
    Job* job = pool.FirstStarved();
    const double now = MonotonicMs(), left = pool.moved + kStandstillMs - now;
    if (job != nullptr && left <= 0) {
      pool.beside_idle--;
      const std::shared_ptr<ShareState> share = pool.Begin(*job);
      pool.SeeToStarved();
      lock.unlock();
      job->Run();
      lock.lock();
      pool.beside_idle++;
      pool.End(*share, 0);
      idle_since = MonotonicMs();
      continue;
    }
    if (job != nullptr) idle_since = now;
    if (now - idle_since >= 1e3) break;
    pool.wake_beside.wait_for(lock, std::chrono::duration<double, std::milli>(job != nullptr ? left : 1e3));
  }
  pool.beside_idle--;
  pool.beside--;
}

}  // namespace

Share::Share(unsigned jobs_max) : state_(std::make_shared<ShareState>(jobs_max)) {
  CP_ASSERT(jobs_max >= 1 && jobs_max <= kPoolThreadsMax);
  Pool& pool = ThePool();
  std::lock_guard lock(pool.mutex);
  pool.shares[jobs_max]++;
  if (jobs_max > pool.threads_max) pool.threads_max = jobs_max;
}

Share::~Share() {
  Pool& pool = ThePool();
  std::lock_guard lock(pool.mutex);
  pool.shares[state_->jobs_max]--;
  while (pool.threads_max > 1 && pool.shares[pool.threads_max] == 0) pool.threads_max--;
}

bool Share::Submit(Job& job) {
  Pool& pool = ThePool();
  std::lock_guard lock(pool.mutex);
  job.share = state_;
  if (state_->busy == state_->jobs_max) {
    state_->held.Push(job);
    return true;
  }
  if (!pool.Provide(0)) return false;
  pool.Admit(job);
  state_->busy++;
  pool.SeeToStarved();
  return true;
}

bool Withdraw(Job& job) {
  Pool& pool = ThePool();
  std::lock_guard lock(pool.mutex);
  if (job.list == nullptr) return false;
  if (job.list == &pool.ready) {
    pool.Unready(job);
    pool.Leave(*job.share, 0);
  } else {
    job.list->Remove(job);
  }
  return true;
}

namespace {
struct FunctionJob final : Job {
  std::function<void()> function;
  void Run() override {
    const std::unique_ptr<FunctionJob> self(this);
    function();
  }
};
}  // namespace

bool Share::Run(std::function<void()> function) {
  auto job = std::make_unique<FunctionJob>();
  job->function = std::move(function);
  if (!Submit(*job)) return false;
  job.release();  // it is its own from here on
  return true;
}

}  // namespace cp::pool
