// See harness.h: a case in a process of its own, by fork(2).
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "test/harness.h"

namespace cp::test {

namespace {
constexpr rlim_t kDescriptorsWanted = 4096;  // macOS gives a process 256 (launchctl(1), limit maxfiles)
int report_to = -1;                          // in a case's process: the pipe that its failure is written to
}  // namespace

void PrepareProcess(const char*) {
  // A write to a connection that is gone is an error here; what the port does about it is TCP-06.
  std::signal(SIGPIPE, SIG_IGN);
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < kDescriptorsWanted) {
    limit.rlim_cur = std::min(limit.rlim_max, kDescriptorsWanted);
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

bool ReportFailure(const std::string& text) {
  if (report_to < 0) return false;
  [[maybe_unused]] const ssize_t written = write(report_to, text.data(), text.size());
  return true;
}

std::string RunApart(const Apart& apart, const std::function<void()>& run) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const pid_t child = fork();
  if (child < 0) return std::string("no process: ") + std::strerror(errno);
  if (child == 0) {
    close(ends[0]);
    report_to = ends[1];
    run();
    std::exit(0);  // not _exit: a sanitizer looks for leaks there
  }
  close(ends[1]);
  std::string words;
  bool late = false;
  for (;;) {
    pollfd watched = {ends[0], POLLIN, 0};
    const int ready = poll(&watched, 1, static_cast<int>(std::clamp(apart.until - MonotonicMs(), 0.0, 1e8)));
    if (ready < 0 && errno == EINTR) continue;
    char text[1024];
    const ssize_t count = ready > 0 ? read(ends[0], text, sizeof(text)) : -1;
    late = ready == 0;
    if (count <= 0) break;
    words.append(text, static_cast<size_t>(count));
  }
  close(ends[0]);
  int status = 0;
  pid_t ended = 0;
  while (!late && (ended = waitpid(child, &status, WNOHANG)) == 0) {
    late = MonotonicMs() >= apart.until;
    SleepMs(0.2);
  }
  if (late) {
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return "not done in its time, ended";
  }
  if (!words.empty()) return words;
  if (ended == child && WIFEXITED(status)) return WEXITSTATUS(status) == 0 ? "" : "exit code " + std::to_string(WEXITSTATUS(status));
  return "ended by signal " + std::to_string(WTERMSIG(status));
}

}  // namespace cp::test
