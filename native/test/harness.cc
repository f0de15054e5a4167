// See harness.h: what is the same on every system.
#include "test/harness.h"

#include <atomic>
#include <cstring>
#include <new>

#include "core/os.h"

namespace cp::test {

std::vector<Case>& Cases() {
  static std::vector<Case> cases;
  return cases;
}

namespace {
const char* the_backend = kBackends[0];
}  // namespace

const char* Backend() { return the_backend; }
void ChooseBackend(const char* name) { the_backend = name; }

TestPort::TestPort(const TestPortOptions& options)
    : owner_(options.owner), block_(kBlockBytes), arena_(options.arena_bytes), generations_(options.max_operations, 1) {
  PortOptions made;
  made.max_operations = options.max_operations;
  made.ring_entries = options.ring_entries;
  made.disable = options.disable;
  made.owner = owner_;
  made.block = block_.span();
  made.arena = arena_.span();
  CreateError error;
  port_ = (options.make != nullptr ? options.make : &MakePort)(made, &error);
  if (!port_) Fail(__FILE__, __LINE__, error.reason);
  for (uint32_t slot = options.max_operations; slot > 0; slot--) free_.push_back(slot - 1);
}

TestPort::~TestPort() {
  port_->CloseAndWait();
  port_.reset();
  HandleTable::Process().ForEachOwned(owner_, [](Handle& handle) {
    if (handle.os != kOsHandleNone) os::Close(handle.kind, handle.os, false);  // else its port has left it to a job
    handle.os = kOsHandleNone;
    HandleTable::Process().Retire(handle);
    HandleTable::Process().Free(handle);
  });
}

uint32_t TestPort::TakeSlot() {
  CHECK(!free_.empty());
  const uint32_t slot = free_.back();
  free_.pop_back();
  return slot;
}

void TestPort::Stage(const SubmissionEntry& entry) {
  if (control().submit_count == kSubmissionsMax) Submit();
  std::memcpy(block_.span().data() + kControlBytes + control().submit_count * kEntryBytes, &entry, sizeof(entry));
  control().submit_count++;
}

uint32_t TestPort::Start(Opcode opcode, const Handle& handle, uint64_t offset, uint64_t length, double position, double timeout_ms) {
  SubmissionEntry entry{};
  entry.opcode = static_cast<uint8_t>(opcode);
  entry.flags = timeout_ms >= 0 ? kSubmissionHasTimeout : 0;
  entry.slot = TakeSlot();
  entry.slot_generation = generations_[entry.slot];
  entry.handle_index = handle.index;
  entry.handle_generation = handle.last_generation;
  entry.memory_id = kMemoryArena;
  entry.offset = static_cast<double>(offset);
  entry.length = static_cast<double>(length);
  entry.position = position;
  entry.timeout_ms = timeout_ms;
  entry.operation_id = entry.slot;
  Stage(entry);
  return entry.slot;
}

uint32_t TestPort::Start(SubmissionEntry entry, const Handle& handle) {
  entry.slot = TakeSlot();
  entry.slot_generation = generations_[entry.slot];
  entry.handle_index = handle.index;
  entry.handle_generation = handle.last_generation;
  Stage(entry);
  return entry.slot;
}

uint32_t TestPort::StartVector(Opcode opcode, const Handle& handle, const std::vector<std::pair<uint32_t, uint32_t>>& parts) {
  SubmissionEntry entry{};
  entry.opcode = static_cast<uint8_t>(opcode);
  entry.segments = static_cast<uint16_t>(parts.size());
  const uint32_t slot = Start(entry, handle);
  for (size_t i = 0; i < parts.size(); i += kSegmentsPerEntry) {
    SubmissionEntry rest{};
    SegmentEntry segments[kSegmentsPerEntry] = {};
    for (size_t k = 0; k < kSegmentsPerEntry && i + k < parts.size(); k++)
      segments[k] = {kMemoryArena, parts[i + k].second, static_cast<double>(parts[i + k].first)};
    std::memcpy(&rest, segments, sizeof(segments));
    Stage(rest);
  }
  return slot;
}

uint32_t TestPort::Connect(const Handle& handle, const sockaddr_in& to) {
  // The address stands behind its entry: both go with one submission.
  if (control().submit_count + 2 > kSubmissionsMax) Submit();
  SubmissionEntry entry{}, where{};
  entry.opcode = static_cast<uint8_t>(Opcode::kConnect);
  AddressEntry target{};
  target.family = 4;
  target.port = ntohs(to.sin_port);
  std::memcpy(target.bytes, &to.sin_addr, 4);
  std::memcpy(&where, &target, sizeof(target));
  const uint32_t slot = Start(entry, handle);
  Stage(where);
  return slot;
}

bool TestPort::Post(double key, double bytes, double operation_id) {
  control().post_key = key;
  control().post_bytes = bytes;
  control().post_operation_id = operation_id;
  control().post_tag = kNoTag;
  return port_->Post(port_->first());
}

uint32_t TestPort::Open(const std::string& path, int flags, double key) {
  const uint32_t slot = TakeSlot();
  CHECK(port_->Open(port_->first(), slot, generations_[slot], path, flags, 0600, key, -1, slot, 0));
  return slot;
}

void TestPort::AwaitQueued(uint32_t count) {
  const double deadline = MonotonicMs() + 10'000;
  do {
    Enter(kEnterWantUser, 0);
    if (control().queued < count) SleepMs(1);
  } while (control().queued < count && MonotonicMs() < deadline);
  CHECK_EQ(control().queued, count);
}

void TestPort::Enter(uint32_t flags, uint32_t max) {
  control().enter_flags = flags;
  control().min_complete = 0;
  control().max_packets = max;
  port_->Enter(port_->first());
}

void TestPort::Submit() { Enter(kEnterSubmitOnly, 0); }

std::vector<CompletionEntry> TestPort::Get(uint32_t max, double timeout_ms) {
  control().enter_flags = kEnterWantUser | kEnterWantInternal;
  control().min_complete = timeout_ms > 0 ? 1 : 0;
  control().timeout_ms = timeout_ms;
  control().max_packets = max;
  const uint32_t count = port_->Enter(port_->first());
  std::vector<CompletionEntry> packets(count);
  if (count > 0)
    std::memcpy(packets.data(), block_.span().data() + kControlBytes + kSubmissionsMax * kEntryBytes, count * sizeof(CompletionEntry));
  for (const CompletionEntry& packet : packets) Delivered(packet);
  return packets;
}

void TestPort::Delivered(const CompletionEntry& packet) {
  if (packet.kind == 0) return;
  generations_[packet.slot] = packet.next_slot_generation;
  free_.push_back(packet.slot);
}

std::vector<CompletionEntry> TestPort::GetExactly(uint32_t count) {
  std::vector<CompletionEntry> all;
  const double deadline = MonotonicMs() + 10'000;
  while (all.size() < count && MonotonicMs() < deadline) {
    for (const CompletionEntry& packet : Get(count - static_cast<uint32_t>(all.size()), 100)) all.push_back(packet);
  }
  CHECK_EQ(all.size(), size_t{count});
  return all;
}

Handle& TestPort::Adopt(HandleKind kind, OsHandle os, double key) {
  CHECK(os >= 0);
  Handle* handle = HandleTable::Process().Create(owner_, kind, os);
  CHECK(handle != nullptr);
  if (kind == HandleKind::kSocket) handle->connection = Connection::kConnected;
  CHECK_EQ(port_->Associate(*handle, key), 0);
  return *handle;
}

Handle& TestPort::Made(const CompletionEntry& packet) {
  const auto generation = static_cast<uint32_t>(packet.result / kHandlesMax);
  const auto index = static_cast<uint32_t>(packet.result - static_cast<double>(generation) * kHandlesMax);
  Handle* handle = HandleTable::Process().Find(index, generation);
  CHECK(handle != nullptr);
  return *handle;
}

std::pair<Handle*, int> TestPort::Pair(double key) {
  int fds[2];
  TcpPair(fds);
  return {&Adopt(HandleKind::kSocket, fds[0], key), fds[1]};
}

static std::atomic<int32_t> failing{-1};

void FailAllocation(int32_t nth) { failing.store(nth); }

static bool HasMemory() { return failing.load() < 0 || failing.fetch_sub(1) != 0; }

}  // namespace cp::test

void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return cp::test::HasMemory() ? ::operator new(bytes) : nullptr; }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return cp::test::HasMemory() ? ::operator new[](bytes) : nullptr; }
