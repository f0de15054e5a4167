// See harness.h.
#include "test/harness.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <csetjmp>
#include <limits>
#include <string_view>

#if defined(CP_BACKEND_LINUX)
#include "linux/epoll_poller.h"
#include "linux/uring_port.h"
#else
#include "mac/kqueue_poller.h"
#endif
#include "posix/reactor_port.h"

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

std::unique_ptr<Port> MakePort(const PortOptions& options, CreateError* error) {
#if defined(CP_BACKEND_LINUX)
  if (std::string_view(the_backend) == "io_uring") return UringPort::Create(options, error);
#endif
  return posix::ReactorPort::Create(options, the_backend, &MakePoller, error);
}

std::unique_ptr<posix::Poller> MakePoller(CreateError* error) {
#if defined(CP_BACKEND_LINUX)
  return MakeEpollPoller(error);
#else
  return MakeKqueuePoller(error);
#endif
}

Fenced::Fenced(size_t bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t rounded = (bytes + page - 1) / page * page;
  mapped_ = rounded + 2 * page;
  void* base = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CP_ASSERT(base != MAP_FAILED);
  base_ = static_cast<std::byte*>(base);
  CP_ASSERT(mprotect(base_ + page, rounded, PROT_READ | PROT_WRITE) == 0);
  data_ = base_ + page;
  bytes_ = rounded;
}

Fenced::~Fenced() { munmap(base_, mapped_); }

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
    close(static_cast<int>(handle.os));
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

void TestPort::Submit() {
  control().enter_flags = kEnterSubmitOnly;
  control().min_complete = 0;
  control().max_packets = 0;
  port_->Enter(port_->first());
}

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

Handle& TestPort::Adopt(HandleKind kind, int fd, double key) {
  CHECK(fd >= 0);
  Handle* handle = HandleTable::Process().Create(owner_, kind, fd);
  CHECK(handle != nullptr);
  if (kind == HandleKind::kSocket) handle->connection = Connection::kConnected;
  CHECK_EQ(port_->Associate(*handle, key), 0);
  return *handle;
}

std::pair<Handle*, int> TestPort::Pair(double key) {
  int fds[2];
  TcpPair(fds);
  return {&Adopt(HandleKind::kSocket, fds[0], key), fds[1]};
}

void TcpPair(int out[2]) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CP_ASSERT(listener >= 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  CP_ASSERT(bind(listener, reinterpret_cast<sockaddr*>(&address), length) == 0 && listen(listener, 1) == 0);
  CP_ASSERT(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  out[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CP_ASSERT(connect(out[0], reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  out[1] = accept(listener, nullptr, nullptr);
  CP_ASSERT(out[1] >= 0);
  close(listener);
  const int on = 1;
  for (int i = 0; i < 2; i++) setsockopt(out[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  // A reset at the end keeps the port numbers from running out in TIME_WAIT over many thousand pairs.
  const linger now = {1, 0};
  setsockopt(out[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

int OpenDescriptors() {
  DIR* folder = opendir("/proc/self/fd");
  CP_ASSERT(folder != nullptr);
  int count = 0;
  while (readdir(folder) != nullptr) count++;
  closedir(folder);
  return count;
}

}  // namespace cp::test
