// The memory that JavaScript and native code share: one control block a port, laid out here and in src/abi.ts, which is checked against
// kAbiVersion when the module is loaded. The block is a SharedArrayBuffer of the JS layer: it cannot be detached and it never leaves
// the module, but native code trusts nothing in it. An entry is copied once, then checked (port.cc).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace cp {

inline constexpr uint32_t kAbiVersion = 2;

inline constexpr uint32_t kControlBytes = 512;
inline constexpr uint32_t kEntryBytes = 64;
inline constexpr uint32_t kSubmissionsMax = 1024;  // entries that one enter can take
inline constexpr uint32_t kCompletionsMax = 512;   // packets that one enter can bring
inline constexpr uint32_t kBlockBytes = kControlBytes + (kSubmissionsMax + kCompletionsMax) * kEntryBytes;

inline constexpr uint32_t kSegmentsMax = 1024;  // of one vectored operation: IOV_MAX of Linux (writev(2))
inline constexpr uint32_t kSegmentsPerEntry = 4;

// One operation moves at most this many bytes: MAX_RW_COUNT of Linux (read(2)), taken everywhere.
inline constexpr uint64_t kLengthMax = 0x7fff'f000;
inline constexpr double kSafeIntegerMax = 9007199254740991.0;

inline constexpr uint32_t kMemoryArena = 0;
inline constexpr uint32_t kMemoryNone = 0xffff'ffff;
inline constexpr uint32_t kNoTag = 0xffff'ffff;

// A slot is named by the attached thread that chose it and its number there.
inline constexpr uint32_t kSlotBits = 20;
inline constexpr uint32_t kSlotsMax = 1u << kSlotBits;
inline constexpr uint32_t kAttachmentsMax = 1u << (32 - kSlotBits);

// A handle's id, the same in every thread: generation * 2^20 + index.
inline constexpr uint32_t kHandleIndexBits = 20;
inline constexpr uint32_t kHandlesMax = 1u << kHandleIndexBits;

// Narrow generations in the test build, so that they wrap around within a test (OP-07).
#if defined(CP_TEST_BUILD)
inline constexpr uint32_t kSlotGenerationMax = (1u << 4) - 1;
inline constexpr uint32_t kHandleGenerationMax = (1u << 6) - 1;
#else
inline constexpr uint32_t kSlotGenerationMax = (1u << 24) - 1;  // user data: 24 bits of generation, 32 of slot, 8 of tag
inline constexpr uint32_t kHandleGenerationMax = 0xffff'ffff;
#endif

enum class Opcode : uint8_t {
  kPost = 0,
  kRead,
  kWrite,
  kReadv,
  kWritev,
  kSync,
  kDatasync,
  kTruncate,
  kSize,
  kOpen,
  kAccept,
  kConnect,
  kRecv,
  kSend,
  kSendv,
  kShutdown,
  kCount
};

// Who ended an operation that was ended by us.
enum class EndedBy : uint16_t { kNone = 0, kCancel, kSignal, kTimeout, kClose };

// Aborted: its signal was, before the start; it ends at once, and nothing is done. Deferred: room was promised by Reserve.
enum SubmissionFlags : uint8_t { kSubmissionInternal = 1, kSubmissionHasTimeout = 2, kSubmissionAborted = 4, kSubmissionDeferred = 8 };
// Foreign: another thread started it, so its slot or tag means nothing to this one.
// Delivered, in the queue only: a thread that was given it has ended before it could look, so its slot and memory are free already.
enum CompletionFlags : uint8_t { kCompletionInternal = 1, kCompletionMore = 2, kCompletionForeign = 4, kCompletionDelivered = 8 };

enum EnterFlags : uint32_t {
  kEnterSubmitOnly = 1,    // take the entries and submit them, reap nothing
  kEnterWantUser = 2,      // bring packets of the user's operations and posts
  kEnterWantInternal = 4,  // bring packets of operations that settle promises or streams
  kEnterArm = 8,           // if nothing comes out: switch the event loop's notification on and look once more
  kEnterGoesOn = 16,       // shared: another slice of this wait will follow, so the thread keeps its place among those that wait
  kEnterMore = 64,         // shared: more of what the get before has begun: the thread's place stays as it is
  kEnterJob = 32,          // shared: the packets are for one job of the event loop, at whose end the thread's place is free
};

// Why a shared port took nothing of what was submitted.
enum Refusal : uint32_t { kRefusalNone, kRefusalFull, kRefusalHandle };

enum ControlFlags : uint32_t { kControlClosing = 1, kControlClosed = 2 };

struct SubmissionEntry {
  uint8_t opcode;
  uint8_t flags;
  uint16_t segments;  // of a vectored kind: how many follow, four to an entry
  uint32_t slot;
  uint32_t slot_generation;
  uint32_t handle_index;
  uint32_t handle_generation;
  uint32_t memory_id;
  double offset;  // bytes into that memory
  double length;
  double position;  // in the file, -1: append; truncate: the new size; shutdown: 0 write, 1 read, 2 both
  double timeout_ms;
  double operation_id;
};

struct SegmentEntry {
  uint32_t memory_id;
  uint32_t length;
  double offset;
};

// An address as it stands in the control block's scratch and behind a connect entry.
struct AddressEntry {
  uint16_t family;  // 4 or 6
  uint16_t port;
  uint32_t scope_id;
  uint8_t bytes[16];
};

struct CompletionEntry {
  uint8_t kind;
  uint8_t flags;
  uint16_t ended_by;
  uint32_t slot;  // of a post: its tag
  uint32_t next_slot_generation;
  int32_t status;       // 0, or an index into the table of errors (errors.h)
  int32_t native_code;  // the OS's own number
  uint32_t handle_index;
  double key;
  double bytes;
  double operation_id;
  double handle_id;
  double result;  // accept, open: the new handle's id; size: bytes
};

// A slot (generation: its next one) or a post's tag (generation 0) whose packet another thread took.
struct ReturnedEntry {
  uint32_t slot;
  uint32_t generation;
};
inline constexpr uint32_t kReturnedMax = 28;  // in one enter

struct Control {
  uint32_t submit_count;
  uint32_t min_complete;
  double timeout_ms;
  uint32_t max_packets;
  uint32_t enter_flags;
  uint32_t completions;
  uint32_t in_kernel;
  uint32_t queued;
  uint32_t queued_internal;
  double next_deadline_ms;
  uint32_t rejected;
  int32_t enter_error;
  std::atomic<uint32_t> flags;  // another thread's close sets its bit here, too
  uint32_t refusal;
  double post_key;
  double post_bytes;
  double post_operation_id;
  uint32_t post_tag;
  uint32_t unseen;  // shared: set with packets; 0 again once JavaScript has looked at them
  double stats[20];
  AddressEntry scratch;
  uint32_t returned;
  uint32_t in_flight;  // shared: of all threads
  ReturnedEntry returns[kReturnedMax];
};

// The order of Control::stats.
enum Stat : uint32_t {
  kStatOperationsStarted,
  kStatPackets,
  kStatPosts,
  kStatBytesRead,
  kStatBytesWritten,
  kStatEnters,
  kStatWakeups,
  kStatArenaBytes,
  kStatArenaUsed,
  kStatArenaRegistered,
  kStatRingEntries,
  kStatCqEntries,
  kStatBacklog,
  kStatThreads,
  kStatWaiting,
  kStatRunning,
  kStatReleases,
  kStatSleepsNoticed,
};

static_assert(sizeof(SubmissionEntry) == kEntryBytes && sizeof(CompletionEntry) == kEntryBytes);
static_assert(sizeof(SegmentEntry) * kSegmentsPerEntry == kEntryBytes);
static_assert(offsetof(SubmissionEntry, slot) == 4 && offsetof(SubmissionEntry, slot_generation) == 8);
static_assert(offsetof(SubmissionEntry, handle_index) == 12 && offsetof(SubmissionEntry, handle_generation) == 16);
static_assert(offsetof(SubmissionEntry, memory_id) == 20 && offsetof(SubmissionEntry, offset) == 24);
static_assert(offsetof(SubmissionEntry, length) == 32 && offsetof(SubmissionEntry, position) == 40);
static_assert(offsetof(SubmissionEntry, timeout_ms) == 48 && offsetof(SubmissionEntry, operation_id) == 56);
static_assert(offsetof(CompletionEntry, slot) == 4 && offsetof(CompletionEntry, next_slot_generation) == 8);
static_assert(offsetof(CompletionEntry, status) == 12 && offsetof(CompletionEntry, native_code) == 16);
static_assert(offsetof(CompletionEntry, handle_index) == 20 && offsetof(CompletionEntry, key) == 24);
static_assert(offsetof(CompletionEntry, bytes) == 32 && offsetof(CompletionEntry, operation_id) == 40);
static_assert(offsetof(CompletionEntry, handle_id) == 48 && offsetof(CompletionEntry, result) == 56);
static_assert(offsetof(Control, timeout_ms) == 8 && offsetof(Control, max_packets) == 16);
static_assert(offsetof(Control, enter_flags) == 20 && offsetof(Control, completions) == 24);
static_assert(offsetof(Control, in_kernel) == 28 && offsetof(Control, queued) == 32);
static_assert(offsetof(Control, queued_internal) == 36 && offsetof(Control, next_deadline_ms) == 40);
static_assert(offsetof(Control, rejected) == 48 && offsetof(Control, enter_error) == 52);
static_assert(offsetof(Control, flags) == 56 && offsetof(Control, post_key) == 64);
static_assert(offsetof(Control, post_bytes) == 72 && offsetof(Control, post_operation_id) == 80);
static_assert(offsetof(Control, post_tag) == 88 && offsetof(Control, unseen) == 92 && offsetof(Control, stats) == 96);
static_assert(offsetof(Control, refusal) == 60 && offsetof(Control, returned) == 280 && offsetof(Control, in_flight) == 284);
static_assert(offsetof(Control, returns) == 288 && sizeof(ReturnedEntry) == 8);
static_assert(offsetof(Control, scratch) == 256 && sizeof(AddressEntry) == 24 && sizeof(Control) <= kControlBytes);

inline double HandleId(uint32_t index, uint32_t generation) {
  return static_cast<double>(generation) * kHandlesMax + static_cast<double>(index);
}

}  // namespace cp
