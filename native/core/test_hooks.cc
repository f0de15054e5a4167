// The environment variables of the test build, read once.
#include "core/test_hooks.h"

#if defined(CP_TEST_BUILD)
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <string_view>
#include <thread>

namespace cp {

Mutant ActiveMutant() {
  static const Mutant active = [] {
    const char* value = std::getenv("COMPLETION_PORT_MUTANT");
    const std::string_view name = value == nullptr ? "" : value;
    if (name == "no-room-for-posts") return Mutant::kNoRoomForPosts;
    if (name == "lost-packet") return Mutant::kLostPacket;
    if (name == "double-cancel") return Mutant::kDoubleCancel;
    if (name == "key-32bit") return Mutant::kKey32Bit;
    if (name == "lifo-queue") return Mutant::kLifoQueue;
    if (name == "early-close") return Mutant::kEarlyClose;
    if (name == "no-fin") return Mutant::kNoFin;
    if (name == "wakes-all") return Mutant::kWakesAll;
    if (name == "fifo-waiters") return Mutant::kFifoWaiters;
    if (name == "gives-away") return Mutant::kGivesAway;
    if (name == "forgets-place") return Mutant::kForgetsPlace;
    if (name == "counts-blocked") return Mutant::kCountsBlocked;
    if (name == "missed-post") return Mutant::kMissedPost;
    if (name == "null-does-not-count") return Mutant::kNullDoesNotCount;
    if (name == "loses-handed") return Mutant::kLosesHanded;
    if (name == "closes-with-creator") return Mutant::kClosesWithCreator;
    if (name == "ignores-limit") return Mutant::kIgnoresLimit;
    if (name == "loops-first") return Mutant::kLoopsFirst;
    if (name == "cancels-all-of-thread") return Mutant::kCancelsAllOfThread;
    if (name == "job-never-ends") return Mutant::kJobNeverEnds;
    if (name == "any-secret") return Mutant::kAnySecret;
    if (name == "forgets-other-port") return Mutant::kForgetsOtherPort;
    if (name == "forgets-resumed") return Mutant::kForgetsResumed;
    if (name == "keeps-claims") return Mutant::kKeepsClaims;
    if (name == "late-submit") return Mutant::kLateSubmit;
    if (name == "dozes-on") return Mutant::kDozesOn;
    if (name == "own-memory-stays") return Mutant::kOwnMemoryStays;
    if (name == "slot-stays") return Mutant::kSlotStays;
    return Mutant::kNone;
  }();
  return active;
}

uint32_t StallMs() {
  static const uint32_t ms = [] {
    const char* value = std::getenv("COMPLETION_PORT_TEST_STALL");
    return value == nullptr ? 0u : static_cast<uint32_t>(std::strtoul(value, nullptr, 10));
  }();
  return ms;
}

bool LateTaskrun() {
  static const bool late = std::getenv("COMPLETION_PORT_TEST_LATE_TASKRUN") != nullptr;
  return late;
}

static std::atomic<bool>& RacesSwitch() {
  static std::atomic<bool> on{std::getenv("COMPLETION_PORT_TEST_RACES") != nullptr};
  return on;
}

bool Races() { return RacesSwitch().load(std::memory_order_relaxed); }
void SetRaces(bool on) { RacesSwitch().store(on, std::memory_order_relaxed); }

namespace {
struct Disk {
  std::mutex mutex;
  std::condition_variable changed;
  bool held = false;
  uint32_t waiting = 0;
};
Disk& TheDisk() {
  static Disk* disk = new Disk;  // a pool thread may be in there when the process ends
  return *disk;
}
}  // namespace

void AwaitDisk() {
  static const long ms = [] {
    const char* value = std::getenv("COMPLETION_PORT_TEST_SLOW_DISK");
    return value == nullptr ? 0 : std::strtol(value, nullptr, 10);
  }();
  if (ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(ms));
  Disk& disk = TheDisk();
  std::unique_lock lock(disk.mutex);
  disk.waiting++;
  disk.changed.wait(lock, [&] { return !disk.held; });
  disk.waiting--;
}

void HoldDisk(bool on) {
  Disk& disk = TheDisk();
  std::lock_guard lock(disk.mutex);
  disk.held = on;
  disk.changed.notify_all();
}

uint32_t HeldByDisk() {
  Disk& disk = TheDisk();
  std::lock_guard lock(disk.mutex);
  return disk.waiting;
}

}  // namespace cp
#endif
