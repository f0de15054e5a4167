// Description: what the two halves of the shim share: which kernel it behaves as, and the dice.
#pragma once

#include <cstdint>

namespace kqueue_shim {

// COMPLETION_PORT_KQUEUE_SHIM: 'freebsd', else XNU's.
bool IsFreeBsd();
// True about once in as many calls as COMPLETION_PORT_KQUEUE_FAULTS says; never without it. Any thread.
bool Misbehaves();
// 0 to limit - 1.
uint32_t Below(uint32_t limit);
// A connect was begun on the descriptor: write filters of it that had been silent look again.
void Connecting(int fd);

}  // namespace kqueue_shim
