// Reads /proc/self/task/TID/stat and schedstat (proc(5)). The state alone would take a thread that stands in the way of a garbage collection
// for a blocked one; two equal counts of turns on a processor, a tick apart, say that it has not run between.
#include "posix/thread_sample.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace cp {

namespace {

// False: not there. `text` ends with a null.
bool ReadFile(uint64_t thread, const char* name, char* text, size_t bytes) {
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/self/task/%llu/%s", static_cast<unsigned long long>(thread), name);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const ssize_t length = read(fd, text, bytes - 1);
  close(fd);
  if (length <= 0) return false;
  text[length] = 0;
  return true;
}

}  // namespace

ThreadSample SampleThreadState(uint64_t thread) {
  ThreadSample sample;
  char text[512];
  if (!ReadFile(thread, "stat", text, sizeof(text))) return sample;
  // The name stands in parentheses and may contain anything.
  const char* end = std::strrchr(text, ')');
  if (end == nullptr || end[1] != ' ') return sample;
  const char state = end[2];
  if (!ReadFile(thread, "schedstat", text, sizeof(text))) return sample;
  // Time on a processor, time in wait for one, turns.
  char* at = text;
  const uint64_t ran = std::strtoull(at, &at, 10);
  std::strtoull(at, &at, 10);
  const uint64_t turns = std::strtoull(at, &at, 10);
  sample.known = true;
  sample.sleeping = state == 'S' || state == 'D';
  sample.switches = turns + ran;
  return sample;
}

uint64_t CurrentThread() { return static_cast<uint64_t>(syscall(SYS_gettid)); }

}  // namespace cp
