// A shared port with the threads that are attached to it: what JavaScript does for one thread, and checks that other threads may make.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "posix/thread_sample.h"
#include "test/harness.h"

namespace cp::test {

inline constexpr uint64_t kOwner = 500;

class QuietWake final : public Wake {
 public:
  void Notify() override { notified.fetch_add(1); }
  std::atomic<uint32_t> notified{0};
};

// One thread's side: a control block, its slots.
class Member {
 public:
  Member(Port& port, uint64_t owner) : port_(port), block_(kBlockBytes), wake(std::make_shared<QuietWake>()) {
    attachment_ = port.Attach(owner, block_.span(), wake, CurrentThread());
    if (attachment_ == nullptr) return;
    for (uint32_t slot = port.options().max_operations; slot > 0; slot--) free_.push_back(slot - 1);
    generations_.assign(port.options().max_operations, 1);
  }
  // True: it was the last.
  bool Leave() {
    const bool last = port_.Detach(*attachment_);
    attachment_ = nullptr;
    return last;
  }
  Port& port() { return port_; }
  bool in() const { return attachment_ != nullptr; }
  Control& control() { return *attachment_->control; }
  Attachment& attachment() { return *attachment_; }

  bool Post(double key, double id = 0) {
    control().post_key = key;
    control().post_bytes = 0;
    control().post_operation_id = id;
    control().post_tag = kNoTag;
    return port_.Post(*attachment_);
  }

  // Starts an operation; false: refused (control().refusal says why) or the port is closed.
  bool Start(Opcode opcode, uint32_t index, uint32_t generation, uint32_t memory_id, uint64_t offset, uint64_t length, double id,
             double timeout_ms = -1, uint32_t* slot_out = nullptr) {
    if (free_.empty()) {
      // Others took the packets of all of them, or there are as many as there may be.
      control().submit_count = 0;
      control().enter_flags = kEnterSubmitOnly;
      control().min_complete = control().max_packets = 0;
      port_.Enter(*attachment_);
      Hear();
      control().refusal = kRefusalFull;
      if (free_.empty()) return false;
    }
    const uint32_t slot = free_.back();
    free_.pop_back();
    SubmissionEntry entry{};
    entry.opcode = static_cast<uint8_t>(opcode);
    entry.flags = timeout_ms >= 0 ? kSubmissionHasTimeout : 0;
    entry.slot = slot;
    entry.slot_generation = generations_[slot];
    entry.handle_index = index;
    entry.handle_generation = generation;
    entry.memory_id = memory_id;
    entry.offset = static_cast<double>(offset);
    entry.length = static_cast<double>(length);
    entry.timeout_ms = timeout_ms;
    entry.operation_id = id;
    std::memcpy(block_.span().data() + kControlBytes, &entry, sizeof(entry));
    control().submit_count = 1;
    control().enter_flags = kEnterSubmitOnly;
    control().min_complete = control().max_packets = 0;
    port_.Enter(*attachment_);
    Hear();
    CHECK_EQ(control().rejected, 0u);
    if (control().refusal != kRefusalNone || (control().flags & kControlClosing) != 0) {
      free_.push_back(slot);
      return false;
    }
    if (slot_out != nullptr) *slot_out = slot;
    return true;
  }
  bool Cancel(uint32_t slot) { return port_.Cancel(*attachment_, slot, generations_[slot], EndedBy::kCancel); }

  // As getManySync: waits in slices up to timeout_ms.
  std::vector<CompletionEntry> Get(uint32_t max, double timeout_ms, double slice_ms = 5) {
    const double until = MonotonicMs() + timeout_ms;
    for (;;) {
      const double left = until - MonotonicMs();
      control().enter_flags = kEnterWantUser | kEnterWantInternal | (left > 0 ? static_cast<uint32_t>(kEnterGoesOn) : 0u);
      control().min_complete = left > 0 ? 1 : 0;
      control().timeout_ms = std::min(left, slice_ms);
      control().max_packets = max;
      const uint32_t count = port_.Enter(*attachment_);
      Hear();
      std::vector<CompletionEntry> packets(count);
      if (count > 0) {
        control().unseen = 0;  // as JavaScript does with what it looks at
        std::memcpy(packets.data(), block_.span().data() + kControlBytes + kSubmissionsMax * kEntryBytes, count * sizeof(CompletionEntry));
        for (const CompletionEntry& packet : packets)
          if (packet.kind != 0 && (packet.flags & kCompletionForeign) == 0) Free(packet.slot, packet.next_slot_generation);
        return packets;
      }
      if (left <= 0 || (control().flags & kControlClosing) != 0) return {};
    }
  }
  bool closing() { return (control().flags & kControlClosing) != 0; }

 private:
  void Free(uint32_t slot, uint32_t generation) {
    generations_[slot] = generation;
    free_.push_back(slot);
  }
  void Hear() {
    for (uint32_t i = 0; i < control().returned; i++)
      if (control().returns[i].generation != 0) Free(control().returns[i].slot, control().returns[i].generation);
    control().returned = 0;
  }

  Port& port_;
  Fenced block_;
  Attachment* attachment_ = nullptr;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> generations_;

 public:
  std::shared_ptr<QuietWake> wake;
};

// A shared port; the thread that makes it is attached, and is the last to leave.
class SharedPort {
 public:
  explicit SharedPort(uint32_t concurrency, uint32_t max_operations = 512, uint32_t ring_entries = 64, const std::string& disable = "")
      : arena_(1 << 20) {
    PortOptions options;
    options.shared = true;
    options.disable = disable;
    options.concurrency = concurrency;
    options.max_operations = max_operations;
    options.ring_entries = ring_entries;
    options.arena = arena_.span();
    CreateError error;
    port_ = MakePort(options, &error);
    if (!port_) Fail(__FILE__, __LINE__, error.reason);
    first_ = std::make_unique<Member>(*port_, kOwner);
    CHECK(first_->in());
  }
  ~SharedPort() {
    CP_ASSERT(first_->Leave());
    port_->Stop();
  }
  Port& port() { return *port_; }
  Member& first() { return *first_; }
  std::byte* arena() { return arena_.span().data(); }
  Handle& Adopt(HandleKind kind, int fd, double key) {
    Handle* handle = HandleTable::Process().Create(kOwner, kind, fd);
    CHECK(handle != nullptr);
    if (kind == HandleKind::kSocket) handle->connection = Connection::kConnected;
    CHECK_EQ(port_->Associate(*handle, key), 0);
    return *handle;
  }

 private:
  Fenced arena_;
  std::unique_ptr<Port> port_;
  std::unique_ptr<Member> first_;
};

// What threads find wrong, told when all of them have come to their end.
struct Wrong {
  std::atomic<const char*> what{nullptr};
  void Expect(bool good, const char* text) {
    if (!good) what.store(text);
  }
};
#define EXPECT(wrong, condition) (wrong).Expect((condition), #condition)
#define CHECK_NONE(wrong) \
  if ((wrong).what.load() != nullptr) ::cp::test::Fail(__FILE__, __LINE__, (wrong).what.load())

}  // namespace cp::test
