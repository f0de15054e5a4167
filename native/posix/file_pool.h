// A small pool of threads for what an OS can only do by blocking: here a truncate before Linux 6.9. Threads start on demand, at most
// kThreadsMax, and end after a second without work. A job may touch nothing that belongs to an environment (DESIGN, "Memory").
#pragma once

#include <functional>

namespace cp::posix {

inline constexpr unsigned kThreadsMax = 4;

// Runs the job on a pool thread. Any thread may call this. False: no thread could be started.
bool RunOnPool(std::function<void()> job);

}  // namespace cp::posix
