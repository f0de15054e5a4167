// The poller of Linux where io_uring can't be used: epoll(7), edge-triggered. A descriptor is registered once, for both directions, and Arm
// costs nothing: in steady state there is no epoll_ctl.
#pragma once

#include <memory>

#include "core/port.h"
#include "posix/poller.h"

namespace cp {

// Null: see *error.
std::unique_ptr<posix::Poller> MakeEpollPoller(CreateError* error);

}  // namespace cp
