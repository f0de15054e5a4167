// The program: runs the cases, prints one line each and a closing `N passed, N failed`.
//
// Each case has a process of its own (apart_posix.cc), so that on a kernel that nobody has seen a crash, a hang or a leak is one case's failure and no
// other's. This process makes no thread and runs no case, unless it is told to (--in-process, for a debugger).
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "test/harness.h"

namespace cp::test {

namespace {

constexpr const char* kUsage = R"(usage: %s [options]

  --backend NAME  io_uring or epoll on Linux, kqueue on FreeBSD and macOS; default: all that this program has
  --filter TEXT   cases whose id contains it, stress cases among them
  --stress        the stress cases, too
  --repeat N      each case N times, with seeds that follow on each other (1)
  --seed N        of what is random (1)
  --scale X       multiplies the counts inside cases (1)
  --seconds N     when they are over the program ends, with exit code 1 if cases remain (60); a single case may take a quarter of them
  --list          names the cases
  --in-process    no process for each case: for a debugger; ends with the first failure
examples:
  %s
  %s --filter CANCEL --repeat 100 --seed 7
  %s --stress --seconds 600
Exit code 0: all passed; 1: otherwise; 2: wrong use.
)";

constexpr double kCaseMsMin = 5'000;

const Case* current = nullptr;
uint64_t current_seed = 0;

struct Options {
  std::string backend, filter;
  std::string exactly, report;  // of a case's process on Windows
  bool stress = false, list = false, in_process = false;
  uint32_t repeat = 1;
  double seconds = 60;
  Context context;
};

}  // namespace

void Fail(const char* file, int line, const std::string& what) {
  const std::string text = std::string(file) + ":" + std::to_string(line) + ": " + what + " (seed " + std::to_string(current_seed) + ")";
  if (!ReportFailure(text)) {
    std::printf("FAIL  %-28s %s\n      %s\n", current == nullptr ? "" : current->id, current == nullptr ? "" : current->rule, text.c_str());
    std::fflush(stdout);
  }
  std::_Exit(1);  // without destructors and exit handlers: other threads may be at work
}

static void RunHere(const Case& each, const Options& options) {
  current = &each;
  Context context = options.context;
  for (uint32_t i = 0; i < options.repeat; i++, context.seed++) {
    current_seed = context.seed;
    each.run(context);
  }
}

static bool Belongs(const Case& each, const Options& options) {
  const std::string_view backend = Backend(), id = each.id;
  if (!options.exactly.empty()) return id == options.exactly;
  if (id.find(options.filter) == std::string_view::npos) return false;
  if (!each.clause() && !options.stress && options.filter.empty()) return false;
  if (each.on != On::kAny) return (backend == "io_uring") == (each.on == On::kUring);
  // What has no backend is a part of the run on the first.
  for (const std::string_view family : {"arena/", "operations/", "timers/model", "packets/", "handles/"})
    if (id.substr(0, family.size()) == family) return backend == kBackends[0];
  return true;
}

static const char* Named(const std::string& name) {
  for (const char* each : kBackends)
    if (name == each) return each;
  return nullptr;
}

// A number from `least` on, or false.
static bool Number(const char* text, double least, double* out) {
  char* end = nullptr;
  *out = std::strtod(text, &end);
  return end != text && *end == '\0' && std::isfinite(*out) && *out >= least;
}

// -1: go on; else the exit code.
static int Read(int argc, char** argv, Options* options) {
  const auto wrong = [&](const std::string& what) {
    std::fprintf(stderr, "%s; see %s --help\n", what.c_str(), argv[0]);
    return 2;
  };
  for (int i = 1; i < argc; i++) {
    const std::string option = argv[i];
    if (option == "--help") {
      std::printf(kUsage, argv[0], argv[0], argv[0], argv[0]);
      return 0;
    }
    bool* const flag = option == "--list"         ? &options->list
                       : option == "--stress"     ? &options->stress
                       : option == "--in-process" ? &options->in_process
                                                  : nullptr;
    if (flag != nullptr) {
      *flag = true;
      continue;
    }
    const bool known = option == "--backend" || option == "--filter" || option == "--repeat" || option == "--seed" || option == "--scale" ||
                       option == "--seconds" || option == "--exactly" || option == "--report";
    if (!known) return wrong("unknown option " + option);
    if (i + 1 == argc) return wrong(option + " takes a value");
    const char* value = argv[++i];
    double number = 0;
    if (option == "--backend") {
      if (Named(value) == nullptr) return wrong(std::string("no backend ") + value + " in this program");
      options->backend = value;
    } else if (option == "--filter") {
      options->filter = value;
    } else if (option == "--exactly" || option == "--report") {
      (option == "--exactly" ? options->exactly : options->report) = value;
    } else if (option == "--scale" || option == "--seconds") {
      if (!Number(value, 1e-6, &number)) return wrong(option + " takes a number above 0");
      (option == "--scale" ? options->context.scale : options->seconds) = number;
    } else {
      const double least = option == "--repeat" ? 1 : 0;
      if (!Number(value, least, &number) || number != std::floor(number) || number > 4294967295.0)
        return wrong(option + " takes a whole number from " + (least == 1 ? "1" : "0") + " on");
      if (option == "--repeat")
        options->repeat = static_cast<uint32_t>(number);
      else
        options->context.seed = static_cast<uint64_t>(number);
    }
  }
  return -1;
}

// Whether a port can be made here; if not, why.
static bool Available(std::string* reason) {
  Fenced block(kBlockBytes), arena(1 << 16);
  PortOptions options;
  options.max_operations = 16;
  options.owner = 1;
  options.block = block.span();
  options.arena = arena.span();
  CreateError error;
  const std::unique_ptr<Port> port = MakePort(options, &error);
  *reason = error.reason;
  if (port) port->CloseAndWait();
  return port != nullptr;
}

static int Main(int argc, char** argv) {
  Options options;
  if (const int code = Read(argc, argv, &options); code >= 0) return code;
  PrepareProcess(options.report.empty() ? nullptr : options.report.c_str());
  // Clauses first: they are what is wanted of a system that is new.
  std::vector<Case>& cases = Cases();
  std::stable_sort(cases.begin(), cases.end(), [](const Case& a, const Case& b) {
    return a.clause() != b.clause() ? a.clause() : a.clause() && std::string_view(a.id) < b.id;
  });

  const double over = MonotonicMs() + options.seconds * 1e3;
  const double case_ms = std::max(kCaseMsMin, options.seconds * 1e3 / 4) * options.repeat;
  int passed = 0, failed = 0;
  std::vector<std::string> left;
  for (const char* backend : kBackends) {
    if (!options.backend.empty() && options.backend != backend) continue;
    ChooseBackend(backend);
    if (options.list) {
      options.stress = true;
      std::printf("%s\n", backend);
      for (const Case& each : cases)
        if (Belongs(each, options)) std::printf("  %-28s %s\n", each.id, each.rule);
      continue;
    }
    if (std::string reason; !Available(&reason)) {
      std::printf("%s, not run: %s\n", backend, reason.c_str());
      failed += !options.backend.empty();
      continue;
    }
    std::printf("%s, seed %llu, scale %g\n", backend, static_cast<unsigned long long>(options.context.seed), options.context.scale);
    for (const Case& each : cases) {
      if (!Belongs(each, options)) continue;
      const double started = MonotonicMs();
      if (started >= over) {
        left.push_back(std::string(each.id) + " on " + backend);
        continue;
      }
      std::fflush(stdout);  // or the case's process would print it, too
      std::string wrong;
      if (options.in_process)
        RunHere(each, options);
      else
        wrong =
            RunApart({argv[0], each, options.repeat, options.context, std::min(over, started + case_ms)}, [&] { RunHere(each, options); });
      if (wrong.empty()) {
        passed++;
        std::printf("pass  %-28s %s (%.0f ms)\n", each.id, each.rule, MonotonicMs() - started);
      } else {
        failed++;
        std::printf("FAIL  %-28s %s\n      %s\n", each.id, each.rule, wrong.c_str());
      }
      std::fflush(stdout);
    }
  }
  if (options.list) return 0;
  if (!left.empty()) {
    std::printf("%g seconds are over; not run:", options.seconds);
    for (const std::string& each : left) std::printf(" %s%s", each.c_str(), &each == &left.back() ? "\n" : ",");
  }
  if (passed + failed == 0 && left.empty() && !options.filter.empty()) std::printf("no case has '%s' in its id\n", options.filter.c_str());
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && left.empty() && passed > 0 ? 0 : 1;
}

}  // namespace cp::test

int main(int argc, char** argv) { return cp::test::Main(argc, argv); }
