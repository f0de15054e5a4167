// See file_pool.h. One pool for the process. It is never destroyed: a job may still wait for a disk when the process ends.
#include "core/file_pool.h"

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "core/os.h"

namespace cp::pool {

namespace {

struct Pool {
  std::mutex mutex;
  std::condition_variable ready;
  Job* first = nullptr;
  Job* last = nullptr;
  unsigned queued = 0;
  unsigned threads = 0;
  unsigned idle = 0;

  void Push(Job& job) {
    job.previous = last;
    job.next = nullptr;
    (last != nullptr ? last->next : first) = &job;
    last = &job;
    job.queued = true;
    queued++;
  }
  void Remove(Job& job) {
    (job.previous != nullptr ? job.previous->next : first) = job.next;
    (job.next != nullptr ? job.next->previous : last) = job.previous;
    job.previous = job.next = nullptr;
    job.queued = false;
    queued--;
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
    while (pool.first == nullptr) {
      pool.idle++;
      const bool work = pool.ready.wait_for(lock, std::chrono::seconds(1), [&] { return pool.first != nullptr; });
      pool.idle--;
      if (work) break;
      pool.threads--;
      return;
    }
    Job& job = *pool.first;
    pool.Remove(job);
    lock.unlock();
    job.Run();  // and it may be gone
    lock.lock();
  }
}

}  // namespace

bool Submit(Job& job) {
  Pool& pool = ThePool();
  std::lock_guard lock(pool.mutex);
  if (pool.idle <= pool.queued && pool.threads < kThreadsMax) {
    if (os::StartThread("cp-file-pool", &Work))
      pool.threads++;
    else if (pool.threads == 0)
      return false;
  }
  pool.Push(job);
  pool.ready.notify_one();
  return true;
}

bool Withdraw(Job& job) {
  Pool& pool = ThePool();
  std::lock_guard lock(pool.mutex);
  if (!job.queued) return false;
  pool.Remove(job);
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

bool RunOnPool(std::function<void()> function) {
  auto job = std::make_unique<FunctionJob>();
  job->function = std::move(function);
  if (!Submit(*job)) return false;
  job.release();  // it is its own from here on
  return true;
}

}  // namespace cp::pool
