// Which system's own calls are used where POSIX has none. The test build of the kqueue backend runs on Linux over a stand-in for kqueue
// (CP_KQUEUE_SHIM); it takes the branches that macOS and the BSDs take, so that they are run.
#pragma once

#if defined(__linux__) && !defined(CP_KQUEUE_SHIM)
#define CP_LINUX 1
#else
#define CP_LINUX 0
#endif
