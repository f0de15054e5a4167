// What a thread of this process does now, for the watcher of a shared port (core/waiters.h).
#pragma once

#include <cstdint>

#include "core/waiters.h"

namespace cp {

// `thread`: as gettid(2). Not known: it has ended, or /proc isn't there.
ThreadSample SampleThreadState(uint64_t thread);
// Of the calling thread.
uint64_t CurrentThread();

}  // namespace cp
