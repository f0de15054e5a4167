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

void Work();

struct Pool {
  std::mutex mutex;
  std::condition_variable wake;
  Jobs ready;  // a thread may take them
  unsigned threads = 0;
  unsigned idle = 0;
  unsigned threads_max = 1;                   // the largest share's
  unsigned shares[kPoolThreadsMax + 1] = {};  // how many there are of each size

  // `freed`: threads that are about to look for a job. False: there is no thread, and none could be started.
  bool Admit(Job& job, unsigned freed) {
    if (idle + freed <= ready.count && threads < threads_max) {
      if (os::StartThread("cp-file-pool", &Work))
        threads++;
      else if (threads == 0)
        return false;
    }
    ready.Push(job);
    wake.notify_one();
    return true;
  }
  // A job of the share has ended, or was taken back from those that a thread may take: the next one's turn.
  void Leave(ShareState& share, unsigned freed) {
    Job* next = share.held.first;
    if (next == nullptr) {
      share.busy--;
      return;
    }
    share.held.Remove(*next);
    const bool admitted = Admit(*next, freed);
    CP_ASSERT(admitted);  // while jobs are ready or run there is a thread
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
      const bool work = pool.wake.wait_for(lock, std::chrono::seconds(1), [&] { return pool.ready.first != nullptr; });
      pool.idle--;
      if (!work) break;
    }
    Job& job = *pool.ready.first;
    pool.ready.Remove(job);
    const std::shared_ptr<ShareState> share = std::move(job.share);
    lock.unlock();
    job.Run();  // and it may be gone
    lock.lock();
    pool.Leave(*share, 1);
  }
  pool.threads--;
}

}  // namespace

Share::Share(unsigned jobs_max) : state_(std::make_shared<ShareState>(ShareState{jobs_max, 0, {}})) {
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
  if (!pool.Admit(job, 0)) return false;
  state_->busy++;
  return true;
}

bool Withdraw(Job& job) {
  Pool& pool = ThePool();
  std::lock_guard lock(pool.mutex);
  if (job.list == nullptr) return false;
  const bool ready = job.list == &pool.ready;
  job.list->Remove(job);
  if (ready) pool.Leave(*job.share, 0);
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
