// Description: what the two halves of the shim share: which kernel it behaves as, and the dice.
#pragma once

#include <cstdint>

namespace kqueue_shim {

// COMPLETION_PORT_KQUEUE_SHIM: 'freebsd', else XNU's.
bool IsFreeBsd();
// True about once in as many calls as COMPLETION_PORT_KQUEUE_FAULTS says; never without it. Any thread.
bool Misbehaves();
// True about once in as many calls as kqueue_shim_refuse says.
bool Refuses();
// 0 to limit - 1.
uint32_t Below(uint32_t limit);
// A connect was begun on the descriptor: write filters of it that had been silent look again.
void Connecting(int fd);

}  // namespace kqueue_shim

// For tests: from here on about one registration of a socket in so many has no memory (kevent(2), ENOMEM); 0, as it begins: none. Any thread.
extern "C" void kqueue_shim_refuse(uint32_t one_in);
