// One pool for the process. It is never destroyed: a job may still wait for a disk when the process ends.
#include "posix/file_pool.h"

#include <pthread.h>
#include <signal.h>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>

namespace cp::posix {

namespace {

struct Pool {
  std::mutex mutex;
  std::condition_variable ready;
  std::deque<std::function<void()>> jobs;
  unsigned threads = 0;
  unsigned idle = 0;
};

Pool& ThePool() {
  static Pool* pool = new Pool;
  return *pool;
}

void* Work(void*) {
  Pool& pool = ThePool();
  std::unique_lock lock(pool.mutex);
  for (;;) {
    while (pool.jobs.empty()) {
      pool.idle++;
      const bool work = pool.ready.wait_for(lock, std::chrono::seconds(1), [&] { return !pool.jobs.empty(); });
      pool.idle--;
      if (work) break;
      pool.threads--;
      return nullptr;
    }
    std::function<void()> job = std::move(pool.jobs.front());
    pool.jobs.pop_front();
    lock.unlock();
    job();
    job = nullptr;
    lock.lock();
  }
}

bool StartThread() {
  // Signals are the program's business: none is handled on a pool thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  const bool started = pthread_create(&thread, &attributes, Work, nullptr) == 0;
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
#if defined(__linux__)
  if (started) pthread_setname_np(thread, "cp-file-pool");
#endif
  return started;
}

}  // namespace

bool RunOnPool(std::function<void()> job) {
  Pool& pool = ThePool();
  std::lock_guard lock(pool.mutex);
  if (pool.idle <= pool.jobs.size() && pool.threads < kThreadsMax) {
    if (StartThread())
      pool.threads++;
    else if (pool.threads == 0)
      return false;
  }
  pool.jobs.push_back(std::move(job));
  pool.ready.notify_one();
  return true;
}

}  // namespace cp::posix
