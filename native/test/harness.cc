// See harness.h.
#include "test/harness.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <new>
#include <string_view>

#if defined(CP_BACKEND_LINUX)
#include "linux/epoll_poller.h"
#include "linux/uring_port.h"
#else
#include "mac/kqueue_poller.h"
#endif
#include "posix/reactor_port.h"
#include "posix/sockets.h"

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
  void* base = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
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
    if (handle.os != kOsHandleNone) close(static_cast<int>(handle.os));  // else its port has left it to a job
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

Handle& TestPort::Adopt(HandleKind kind, int fd, double key) {
  CHECK(fd >= 0);
  Handle* handle = HandleTable::Process().Create(owner_, kind, fd);
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

int NewSocket() {
  const int fd = posix::Socket(4, nullptr);
  CHECK(fd >= 0);
  return fd;
}

int Listening(sockaddr_in* address, int backlog) {
  const int listener = NewSocket();
  *address = {};
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(*address);
  CHECK(bind(listener, reinterpret_cast<sockaddr*>(address), length) == 0 && listen(listener, backlog) == 0);
  CHECK(getsockname(listener, reinterpret_cast<sockaddr*>(address), &length) == 0);
  return listener;
}

int Connected(const sockaddr_in& address) {
  const int fd = NewSocket();
  CHECK(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  return fd;
}

int ListeningFull(sockaddr_in* address, std::vector<int>* fillers) {
  // How many connections a backlog of 1 holds is each system's own matter (listen(2)); macOS takes 0 for the largest.
  const int listener = Listening(address, 1);
  for (int i = 0; i < 64; i++) {
    const int fd = NewSocket();
    fillers->push_back(fd);
    CHECK_EQ(posix::SetNonBlocking(fd), 0);
    if (connect(fd, reinterpret_cast<const sockaddr*>(address), sizeof(*address)) == 0) continue;
    CHECK_EQ(errno, EINPROGRESS);
    pollfd watched = {fd, POLLOUT, 0};
    if (poll(&watched, 1, 100) == 0) return listener;
  }
  Fail(__FILE__, __LINE__, "a backlog of 1 takes 64 connections");
}

void ResetNow(int fd) {
  const linger now = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  close(fd);
}

void WriteAll(int fd, const void* data, size_t bytes) {
  const auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = write(fd, at, bytes);
    CHECK(written > 0);
    at += written;
    bytes -= static_cast<size_t>(written);
  }
}

void ReadAll(int fd, void* data, size_t bytes) {
  auto* at = static_cast<char*>(data);
  while (bytes > 0) {
    pollfd watched = {fd, POLLIN, 0};
    CHECK(poll(&watched, 1, 10'000) > 0);
    const ssize_t got = read(fd, at, bytes);
    CHECK(got > 0);
    at += got;
    bytes -= static_cast<size_t>(got);
  }
}

int TempFile() {
  char name[] = "/tmp/cp-native-test-XXXXXX";
  const int fd = mkstemp(name);
  CHECK(fd >= 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0);
  unlink(name);
  return fd;
}

void SleepMs(double ms) {
  timespec span = {static_cast<time_t>(ms / 1e3), static_cast<long>(std::fmod(ms, 1e3) * 1e6)};
  while (nanosleep(&span, &span) != 0 && errno == EINTR) {
  }
}

void TcpPair(int out[2]) {
  sockaddr_in address;
  const int listener = Listening(&address, 1);
  out[0] = Connected(address);
  out[1] = accept(listener, nullptr, nullptr);
  CHECK(out[1] >= 0 && fcntl(out[1], F_SETFD, FD_CLOEXEC) == 0);
  close(listener);
  const int on = 1;
  for (int i = 0; i < 2; i++) setsockopt(out[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  // A reset at the end keeps the port numbers from running out in TIME_WAIT over many thousand pairs.
  const linger now = {1, 0};
  setsockopt(out[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

// Not out of /proc or /dev/fd: FreeBSD has neither unless it is mounted (fdescfs(5)).
int OpenDescriptors() {
  const long limit = std::min(sysconf(_SC_OPEN_MAX), 65'536L);
  int count = 0;
  for (int fd = 0; fd < limit; fd++) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

std::vector<int> TakeDescriptors() {
  std::vector<int> taken;
  for (int fd = dup(0); fd >= 0; fd = dup(0)) taken.push_back(fd);
  return taken;
}

static std::atomic<int32_t> failing{-1};

void FailAllocation(int32_t nth) { failing.store(nth); }

static bool HasMemory() { return failing.load() < 0 || failing.fetch_sub(1) != 0; }

}  // namespace cp::test

void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return cp::test::HasMemory() ? ::operator new(bytes) : nullptr; }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return cp::test::HasMemory() ? ::operator new[](bytes) : nullptr; }
