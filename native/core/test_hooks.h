// Hooks of the test build (CP_TEST_BUILD); in the shipped build they are constants and cost nothing. COMPLETION_PORT_MUTANT breaks the
// port in one named way, so that the conformance suite can be shown to notice; COMPLETION_PORT_TEST_STALL=MS makes a `sync` take that
// long on a pool thread, where it can't be cancelled; COMPLETION_PORT_TEST_SLOW_DISK=MS makes every job of the reactor's pool take that long, in
// front of its call; COMPLETION_PORT_TEST_LATE_TASKRUN=1 leaves the ring's flag for task work behind, as
// the kernel does where the work has run before the flag is set; COMPLETION_PORT_TEST_RACES=1 makes rare moments of io_uring
// frequent and long: between a submission of the driver's and its wait, a cancel that finds its operation between two tries, a submission that
// the kernel has no memory for.
#pragma once

#include <cstdint>

namespace cp {

enum class Mutant : uint8_t {
  kNone,
  kLostPacket,
  kNoRoomForPosts,  // not wrong, but out of memory
  kDoubleCancel,
  kKey32Bit,
  kLifoQueue,
  kEarlyClose,
  kNoFin,
  // Of a shared port.
  kWakesAll,
  kFifoWaiters,
  kGivesAway,
  kForgetsPlace,
  kCountsBlocked,
  kMissedPost,
  kNullDoesNotCount,
  kLosesHanded,
  kClosesWithCreator,
  kIgnoresLimit,
  kLoopsFirst,
  kCancelsAllOfThread,
  kJobNeverEnds,
  kAnySecret,
  kForgetsOtherPort,
  kForgetsResumed,
  kKeepsClaims,
  kLateSubmit,
  kDozesOn,
  kOwnMemoryStays,
  kSlotStays,
};

#if defined(CP_TEST_BUILD)
Mutant ActiveMutant();
uint32_t StallMs();
bool LateTaskrun();
bool Races();
// On a pool thread, in front of its call: as long as a disk takes.
void AwaitDisk();
// For native/test.
void SetRaces(bool on);
void HoldDisk(bool on);  // while on, calls wait in AwaitDisk
uint32_t HeldByDisk();   // how many do
inline bool MutantIs(Mutant mutant) { return ActiveMutant() == mutant; }
#else
inline constexpr uint32_t StallMs() { return 0; }
inline constexpr bool LateTaskrun() { return false; }
inline constexpr bool Races() { return false; }
inline void AwaitDisk() {}
inline constexpr bool MutantIs(Mutant) { return false; }
#endif

}  // namespace cp
