// The poller of macOS and FreeBSD: kqueue(2), one-shot. Nothing is registered until an operation has to wait for a direction; what has to wait
// is gathered, and handed over with the call that waits. So the kernel looks anew each time, and no edge can be lost.
#pragma once

#include <memory>

#include "core/port.h"
#include "posix/poller.h"

namespace cp {

// Null: see *error.
std::unique_ptr<posix::Poller> MakeKqueuePoller(CreateError* error);

}  // namespace cp
