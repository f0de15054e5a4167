// A bounded pool of threads for what an OS can only do by blocking: the files of a reactor, and what io_uring and I/O completion
// ports have no request for. One pool
// serves all ports of the process. Threads start on demand, at most kThreadsMax, and end after a second without work. A job may touch nothing
// that belongs to an environment but memory that its operation pins: whoever ends an environment waits for that operation.
#pragma once

#include <functional>

namespace cp::pool {

inline constexpr unsigned kThreadsMax = 4;

// What a pool thread does once. It belongs to whoever submitted it, and stays where it is until Run has told its owner of the end; the pool
// doesn't touch it from then on.
struct Job {
  virtual ~Job() = default;
  virtual void Run() = 0;

  Job* previous = nullptr;  // the rest is the pool's, under its mutex
  Job* next = nullptr;
  bool queued = false;
};

// Any thread may call these three. Submit: false: no thread could be started, and nothing is queued. Withdraw: true: the job had not begun,
// and never will; false: it runs, or has run.
bool Submit(Job& job);
bool Withdraw(Job& job);
// A job that nobody takes back. False: no thread could be started.
bool RunOnPool(std::function<void()> job);

}  // namespace cp::pool
