// The program: runs the cases, prints one line each and a closing `N passed, N failed`.
//
//   cp_native_test [--backend NAME] [--filter TEXT] [--seed N] [--scale X] [--list]
//
// A run is about one backend, the build's first unless named; what has none (arena, queues, tables) is a part of the run on the first.
#include <csetjmp>
#include <cstdlib>
#include <string_view>

#include "test/harness.h"

namespace cp::test {

namespace {
std::jmp_buf leave;
std::string failure;
}  // namespace

// The locals of the failed case leak; the program ends soon and reports the failure, which is what matters.
void Fail(const char* file, int line, const std::string& what) {
  failure = std::string(file) + ":" + std::to_string(line) + ": " + what;
  std::longjmp(leave, 1);
}

// In a function of its own, without locals that change: what setjmp asks of its caller.
static bool Holds(const Case& each, const Context& context) {
  if (setjmp(leave) != 0) return false;
  each.run(context);
  return true;
}

static bool Belongs(const Case& each) {
  const std::string_view backend = Backend(), id = each.id;
  if (each.on != On::kAny) return (backend == "io_uring") == (each.on == On::kUring);
  for (const std::string_view family : {"arena/", "operations/", "timers/model", "packets/", "handles/"})
    if (id.substr(0, family.size()) == family) return backend == kBackends[0];
  return true;
}

static const char* Named(const std::string& name) {
  for (const char* each : kBackends)
    if (name == each) return each;
  return nullptr;
}

static int Main(int argc, char** argv) {
  Context context;
  std::string filter;
  for (int i = 1; i < argc; i++) {
    const std::string option = argv[i];
    if (option == "--list") {
      for (const Case& each : Cases()) std::printf("%-28s %s\n", each.id, each.rule);
      return 0;
    }
    if (i + 1 < argc && option == "--backend" && Named(argv[i + 1]) != nullptr) {
      ChooseBackend(Named(argv[++i]));
    } else if (i + 1 < argc && option == "--filter") {
      filter = argv[++i];
    } else if (i + 1 < argc && option == "--seed") {
      context.seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (i + 1 < argc && option == "--scale") {
      context.scale = std::strtod(argv[++i], nullptr);
    } else {
      std::fprintf(stderr, "usage: %s [--backend NAME] [--filter TEXT] [--seed N] [--scale X] [--list]\n", argv[0]);
      return 2;
    }
  }
  std::printf("%s, seed %llu, scale %g\n", Backend(), static_cast<unsigned long long>(context.seed), context.scale);
  int passed = 0, failed = 0;
  for (const Case& each : Cases()) {
    if (!Belongs(each) || std::string(each.id).find(filter) == std::string::npos) continue;
    const double started = MonotonicMs();
    if (Holds(each, context)) {
      passed++;
      std::printf("pass  %-28s %s (%.0f ms)\n", each.id, each.rule, MonotonicMs() - started);
    } else {
      failed++;
      std::printf("FAIL  %-28s %s\n      %s\n", each.id, each.rule, failure.c_str());
    }
    std::fflush(stdout);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace cp::test

int main(int argc, char** argv) { return cp::test::Main(argc, argv); }
