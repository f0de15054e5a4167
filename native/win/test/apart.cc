// See test/harness.h: a case in a process of its own. There is no fork: the program is started anew for the one case (--exactly), and tells its failure
// in a file (--report).
#include <algorithm>
#include <cstdio>
#include <string>

#include "test/harness.h"
#include "win/winsock.h"

namespace cp::test {

namespace {
std::string report_to;  // in a case's process

std::string ReadFileText(const std::string& name) {
  std::string text;
  if (std::FILE* file = std::fopen(name.c_str(), "rb")) {
    char part[1024];
    for (size_t count; (count = std::fread(part, 1, sizeof(part), file)) > 0;) text.append(part, count);
    std::fclose(file);
  }
  return text;
}
}  // namespace

void PrepareProcess(const char* report) {
  if (report != nullptr) report_to = report;
  // A crash ends the process, and shows nobody a window that somebody would have to close.
  SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX);
  CP_ASSERT(win::StartWinsock() == 0);
}

bool ReportFailure(const std::string& text) {
  if (report_to.empty()) return false;
  if (std::FILE* file = std::fopen(report_to.c_str(), "wb")) {
    std::fwrite(text.data(), 1, text.size(), file);
    std::fclose(file);
  }
  return true;
}

std::string RunApart(const Apart& apart, const std::function<void()>&) {
  char folder[MAX_PATH + 1], report[MAX_PATH + 1], program[MAX_PATH + 1];
  if (GetTempPathA(sizeof(folder), folder) == 0 || GetTempFileNameA(folder, "cpt", 0, report) == 0) return "no file for its report";
  if (GetModuleFileNameA(nullptr, program, sizeof(program)) == 0) return "the program has no name";
  char scale[32];
  std::snprintf(scale, sizeof(scale), "%.17g", apart.context.scale);
  std::string command = std::string("\"") + program + "\" --in-process --exactly " + apart.each.id + " --backend " + Backend() +
                        " --repeat " + std::to_string(apart.repeat) + " --seed " + std::to_string(apart.context.seed) + " --scale " +
                        scale + " --seconds 86400 --report \"" + report + "\"";
  STARTUPINFOA start{};
  start.cb = sizeof(start);
  PROCESS_INFORMATION made{};
  std::string wrong;
  if (!CreateProcessA(nullptr, command.data(), nullptr, nullptr, FALSE, CREATE_NO_WINDOW, nullptr, nullptr, &start, &made)) {
    wrong = "no process: error " + std::to_string(GetLastError());
  } else {
    const DWORD ms = static_cast<DWORD>(std::clamp(apart.until - MonotonicMs(), 0.0, 1e8));
    if (WaitForSingleObject(made.hProcess, ms) != WAIT_OBJECT_0) {
      TerminateProcess(made.hProcess, 1);
      WaitForSingleObject(made.hProcess, 10'000);
      wrong = "not done in its time, ended";
    } else {
      DWORD code = 0;
      GetExitCodeProcess(made.hProcess, &code);
      wrong = ReadFileText(report);
      if (wrong.empty() && code != 0) wrong = "exit code " + std::to_string(code);
    }
    CloseHandle(made.hThread);
    CloseHandle(made.hProcess);
  }
  DeleteFileA(report);
  return wrong;
}

}  // namespace cp::test
