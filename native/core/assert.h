// Assertions. CP_ASSERT states an invariant whose breach would let the kernel write into memory that is not ours: it stays on in release
// builds. CP_DEBUG_ASSERT is for what costs too much on the hot path; it is compiled in by `npm run build -- --debug` and in the tests.
#pragma once

#include <cstdio>
#include <cstdlib>

#define CP_ASSERT(condition)                                                                                   \
  do {                                                                                                         \
    if (!(condition)) [[unlikely]] {                                                                           \
      std::fprintf(stderr, "completion-port: assertion failed: %s (%s:%d)\n", #condition, __FILE__, __LINE__); \
      std::abort();                                                                                            \
    }                                                                                                          \
  } while (0)

#if defined(CP_DEBUG) || defined(CP_TEST_BUILD)
#define CP_DEBUG_ASSERT(condition) CP_ASSERT(condition)
#else
#define CP_DEBUG_ASSERT(condition) \
  do {                             \
  } while (0)
#endif
