// Clauses about a private port itself: posts, gets, batches, order, timeouts, cancels, closes, buffers, limits. One rule a case, in a moment each;
// what takes many rounds to show is in port_cases.cc. Files, sockets and errors: clause_io_cases.cc; threads: clause_thread_cases.cc.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <set>
#include <thread>

#include "posix/sockets.h"
#include "test/harness.h"

namespace cp::test {

namespace {

constexpr auto kInvalid = static_cast<int32_t>(Status::kEINVAL);
constexpr auto kBadHandle = static_cast<int32_t>(Status::kEBADF);
constexpr auto kClosed = static_cast<uint16_t>(EndedBy::kClose);
constexpr size_t kHuge = 8 << 20;  // more than the buffers of a connection on loopback take

TestPortOptions Owned(uint64_t owner) {
  TestPortOptions options;
  options.owner = owner;
  return options;
}

int Zero() { return open("/dev/zero", O_RDONLY | O_CLOEXEC); }

std::vector<double> Keys(const std::vector<CompletionEntry>& packets) {
  std::vector<double> keys;
  for (const CompletionEntry& packet : packets) keys.push_back(packet.key);
  return keys;
}

}  // namespace

// ---- port, association ------------------------------------------------------------------------------------------------------

CASE(Port01, "PORT-01", "a port has its backend's name and features; two ports are independent") {
  TestPort one, two(Owned(2));
  CHECK(std::string(one.port().name()) == Backend() && !one.port().features().empty());
  CHECK(one.Post(1));
  CHECK(two.Get(8, 0).empty());
  CHECK_EQ(one.GetOne().key, 1.0);
}

CASE(Port03, "PORT-03", "ports created and closed leave no descriptor") {
  const int before = OpenDescriptors();
  for (uint32_t i = context.Count(200); i > 0; i--) {
    TestPort test;
    CHECK(test.Post(i));
  }
  CHECK_EQ(OpenDescriptors(), before);
}

CASE(Port04, "PORT-04", "a closed port takes no post, start or handle; closing twice is harmless") {
  TestPort test;
  Handle& zero = test.Adopt(HandleKind::kFile, Zero(), 1);
  Handle* late = HandleTable::Process().Create(1, HandleKind::kFile, Zero());
  CHECK(test.Post(1));
  test.port().Close();
  test.port().Close();
  CHECK(!test.Post(2));
  CHECK(test.port().Associate(*late, 2) != 0);
  test.Start(Opcode::kRead, zero, 0, 64);
  CHECK(test.Get(8, 0).empty());
  CHECK_EQ(test.port().in_kernel(), 0u);
  CHECK((test.control().flags & kControlClosing) != 0);
}

CASE(Port05, "PORT-05/descriptors", "a port that can't be made says why, and leaves nothing: the next one is made") {
  const int before = OpenDescriptors();
  {
    Fenced block(kBlockBytes);
    PortOptions options;
    options.block = block.span();
    const std::vector<int> taken = TakeDescriptors();
    CreateError error;
    CHECK(MakePort(options, &error) == nullptr);
    CHECK_EQ(error.native_code, EMFILE);
    CHECK(!error.reason.empty());
    for (const int fd : taken) close(fd);
  }
  {
    TestPort test;
    CHECK(test.Post(1));
  }
  CHECK_EQ(OpenDescriptors(), before);
}

CASE(Assoc01, "ASSOC-01", "a handle's key comes with each of its packets, from 0 to 2^53-1") {
  TestPort test;
  for (const double key : {0.0, 1.0, 4294967296.0, kSafeIntegerMax}) {
    Handle& zero = test.Adopt(HandleKind::kFile, Zero(), key);
    for (int i = 0; i < 3; i++) {
      test.Start(Opcode::kRead, zero, 0, 16);
      CHECK_EQ(test.GetOne().key, key);
    }
  }
}

CASE(Assoc03, "ASSOC-03", "many handles: each packet has its own handle's key; and several handles of one key") {
  TestPort test;
  const uint32_t count = context.Count(1000);
  std::vector<double> key_of(4096, -1);
  for (uint32_t i = 0; i < count; i++) {
    const double key = i < count / 2 ? i : 7;
    key_of[test.Start(Opcode::kRead, test.Adopt(HandleKind::kFile, Zero(), key), 0, 1)] = key;
  }
  for (const CompletionEntry& packet : test.GetExactly(count)) CHECK_EQ(packet.key, key_of[packet.slot]);
}

CASE(Assoc04, "ASSOC-04", "an operation on a handle without a port starts nothing; the handle stays usable") {
  TestPort test;
  Handle* zero = HandleTable::Process().Create(1, HandleKind::kFile, Zero());
  test.Start(Opcode::kRead, *zero, 0, 16);
  CHECK_EQ(test.GetOne().status, kBadHandle);
  CHECK_EQ(test.port().Associate(*zero, 3), 0);
  test.Start(Opcode::kRead, *zero, 0, 16);
  const CompletionEntry packet = test.GetOne();
  CHECK(packet.status == kOk && packet.bytes == 16 && packet.key == 3);
}

// A handle on the descriptor's number `fd`, which is free: what is at the other end.
static std::pair<Handle*, int> PairAt(TestPort& test, int fd, double key) {
  int pair[2];
  TcpPair(pair);
  if (pair[0] != fd) {
    CHECK_EQ(dup2(pair[0], fd), fd);
    close(pair[0]);
    CHECK_EQ(fcntl(fd, F_SETFD, FD_CLOEXEC), 0);
  }
  return {&test.Adopt(HandleKind::kSocket, fd, key), pair[1]};
}

CASE(Assoc05, "ASSOC-05",
     "association ends with the handle's close: a new handle on the number has its own key, and nothing of the old one") {
  TestPort test;
  auto [old, old_peer] = test.Pair(1);
  const auto fd = static_cast<int>(old->os);
  test.Start(Opcode::kRecv, *old, 0, 16);
  test.Submit();
  test.Close(*old, true);
  CHECK_EQ(test.GetOne().key, 1.0);
  auto [fresh, peer] = PairAt(test, fd, 2);
  test.Start(Opcode::kRecv, *fresh, 0, 16);
  WriteAll(peer, "ab", 2);
  const CompletionEntry packet = test.GetOne();
  CHECK(packet.key == 2 && packet.bytes == 2);
  CHECK(test.Get(8, 0).empty());
}

CASE(Assoc06, "ASSOC-06", "an accepted socket isn't associated by itself; it takes its own key") {
  TestPort test;
  sockaddr_in address;
  Handle& listener = test.Adopt(HandleKind::kListener, Listening(&address), 1);
  const int client = Connected(address);
  test.Start(Opcode::kAccept, listener, 0, 0);
  Handle& made = TestPort::Made(test.GetOne());
  CHECK(!made.associated && made.port.load() == nullptr);
  CHECK_EQ(test.port().Associate(made, 77), 0);
  test.Start(Opcode::kRecv, made, 0, 16);
  WriteAll(client, "x", 1);
  CHECK_EQ(test.GetOne().key, 77.0);
}

// ---- gets -------------------------------------------------------------------------------------------------------------------

CASE(Get01, "GET-01", "an empty port and no time: nothing, at once") {
  TestPort test;
  const double started = MonotonicMs();
  for (int i = 0; i < 100; i++) CHECK(test.Get(8, 0).empty());
  CHECK(MonotonicMs() - started < 1000);
}

CASE(Get02, "GET-02", "a timed get ends with nothing, not before its time and not long after it; fractions count") {
  TestPort test;
  for (const double timeout : {0.25, 1.0, 10.5, 40.0}) {
    const double started = MonotonicMs();
    CHECK(test.Get(8, timeout).empty());
    const double took = MonotonicMs() - started;
    CHECK(took >= timeout);
    CHECK(took < timeout + 1000);  // 50 ms is for an idle machine
  }
}

CASE(Get03, "GET-03", "a failed operation is a packet, with its key, its operation and its error") {
  TestPort test;
  Handle* socket = HandleTable::Process().Create(1, HandleKind::kSocket, NewSocket());
  CHECK_EQ(test.port().Associate(*socket, 5), 0);
  const uint32_t slot = test.Start(Opcode::kRecv, *socket, 0, 16);
  const CompletionEntry packet = test.GetOne();
  CHECK(packet.key == 5 && packet.slot == slot && packet.operation_id == slot);
  CHECK_EQ(packet.status, static_cast<int32_t>(Status::kENOTCONN));
  CHECK_EQ(packet.native_code, ENOTCONN);
}

CASE(Get10, "GET-10", "times of 2^31, 2^32-1 and 2^53-1 ms don't end early, of gets and of operations") {
  TestPort test;
  for (const double timeout : {2147483648.0, 4294967295.0, kSafeIntegerMax}) {
    auto [socket, peer] = test.Pair(1);
    test.Start(Opcode::kRecv, *socket, 0, 16, 0, timeout);
    CHECK(test.Get(8, 20).empty());
    const double started = MonotonicMs();  // before the thread that will write: this one may be kept off its processor
    std::thread writer([fd = peer] {
      SleepMs(30);
      WriteAll(fd, "x", 1);
    });
    const std::vector<CompletionEntry> packets = test.Get(8, timeout);
    const double took = MonotonicMs() - started;
    writer.join();
    CHECK_EQ(packets.size(), size_t{1});
    CHECK(packets[0].status == kOk && packets[0].bytes == 1);
    CHECK(took >= 15 && took < 5'000);
  }
}

CASE(Get11, "GET-11", "gets on several ports in one thread: a flood at one doesn't keep the other's packets") {
  TestPort flood, other(Owned(2));
  auto [socket, peer] = other.Pair(2);
  for (int i = 0; i < 100; i++) {
    for (int k = 0; k < 50; k++) CHECK(flood.Post(1));
    other.Start(Opcode::kRecv, *socket, 0, 16);
    WriteAll(peer, "x", 1);
    CHECK_EQ(flood.Get(8, 0).size(), size_t{8});
    CHECK_EQ(other.GetOne().key, 2.0);
  }
}

CASE(Ex01, "EX-01", "a get of many returns what is there up to max, in order, and doesn't wait to fill up") {
  TestPort test;
  for (int i = 0; i < 10; i++) CHECK(test.Post(i));
  const double started = MonotonicMs();
  CHECK(Keys(test.Get(4, 5'000)) == (std::vector<double>{0, 1, 2, 3}));
  CHECK(Keys(test.Get(100, 5'000)) == (std::vector<double>{4, 5, 6, 7, 8, 9}));
  CHECK(MonotonicMs() - started < 2'000);
}

CASE(Ex02, "EX-02", "max 0 takes nothing and loses nothing; max above the queue's length returns the queue") {
  TestPort test;
  for (int i = 0; i < 3; i++) CHECK(test.Post(i));
  CHECK(test.Get(0, 0).empty());
  CHECK(Keys(test.Get(0xffff'ffff, 0)) == (std::vector<double>{0, 1, 2}));
}

CASE(Ex04, "EX-04", "a thousand queued packets come out in batches of 64, none lost, repeated or moved") {
  TestPort test;
  for (int i = 0; i < 1000; i++) CHECK(test.Post(i));
  double next = 0;
  for (size_t left = 1000; left > 0;) {
    const std::vector<CompletionEntry> packets = test.Get(64, 0);
    CHECK_EQ(packets.size(), std::min(left, size_t{64}));
    for (const CompletionEntry& packet : packets) CHECK_EQ(packet.key, next++);
    left -= packets.size();
  }
  CHECK(test.Get(64, 0).empty());
}

CASE(Wake01, "WAKE-01", "an event loop asleep on the port's descriptor is woken by I/O alone") {
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  for (int round = 0; round < 20; round++) {
    test.Start(Opcode::kRecv, *socket, 0, 16);
    std::thread writer([fd = peer] {
      SleepMs(2);
      WriteAll(fd, "x", 1);
    });
    std::vector<CompletionEntry> packets;
    bool woken = true;
    const double deadline = MonotonicMs() + 5'000;
    while (packets.empty() && MonotonicMs() < deadline) {
      // Nothing there: the next thing that comes makes the descriptor readable. It may be so for nothing.
      test.Enter(kEnterWantUser | kEnterWantInternal | kEnterArm, 0);
      pollfd watched = {test.port().notification_fd(), POLLIN, 0};
      if (test.control().queued == 0) woken = poll(&watched, 1, 5'000) > 0;
      test.port().ClearNotification();
      packets = test.Get(8, 0);
    }
    writer.join();
    CHECK(woken);
    CHECK(packets.size() == 1 && packets[0].status == kOk);
  }
}

CASE(Flush01, "FLUSH-01", "what is submitted is under way without any get") {
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  std::memset(test.arena(), 'f', 100);
  test.Start(Opcode::kSend, *socket, 0, 100);
  test.Submit();
  char got[100];
  ReadAll(peer, got, 100);
  CHECK(std::all_of(got, got + 100, [](char c) { return c == 'f'; }));
  CHECK_EQ(test.GetOne().bytes, 100.0);
}

CASE(Flush02, "FLUSH-02", "a get that waits submits first") {
  TestPort test;
  Handle& zero = test.Adopt(HandleKind::kFile, Zero(), 1);
  test.Start(Opcode::kRead, zero, 0, 64);
  const std::vector<CompletionEntry> packets = test.Get(8, 5'000);
  CHECK_EQ(packets.size(), size_t{1});
  CHECK_EQ(packets[0].bytes, 64.0);
}

// ---- posts, order -----------------------------------------------------------------------------------------------------------

CASE(Post01, "POST-01", "key, bytes and operation id come back as given, to the ends of their ranges") {
  TestPort test;
  for (const double key : {0.0, 1.0, 4294967296.0, kSafeIntegerMax})
    for (const double bytes : {0.0, 1.0, 2147483648.0, 4294967295.0}) {
      CHECK(test.Post(key, bytes, kSafeIntegerMax - key));
      const CompletionEntry packet = test.GetOne();
      CHECK(packet.key == key && packet.bytes == bytes && packet.operation_id == kSafeIntegerMax - key);
      CHECK_EQ(packet.status, kOk);
    }
}

CASE(Post02, "POST-02", "posts that nobody reads are only memory, and come out in order") {
  TestPort test;
  const uint32_t count = context.Count(200'000);
  for (uint32_t i = 0; i < count; i++) CHECK(test.Post(i));
  for (uint32_t i = 0; i < count;)
    for (const CompletionEntry& packet : test.Get(512, 0)) CHECK_EQ(packet.key, static_cast<double>(i++));
  CHECK(test.Get(1, 0).empty());
}

CASE(Post04, "POST-04", "posts of a packet's handler come after what was queued") {
  TestPort test;
  for (int i = 1; i <= 3; i++) CHECK(test.Post(i));
  CHECK_EQ(test.Get(1, 0)[0].key, 1.0);
  CHECK(test.Post(4));
  CHECK(Keys(test.Get(8, 0)) == (std::vector<double>{2, 3, 4}));
}

CASE(Post06, "POST-06", "a post says that it is one, and what it is of is the poster's; an operation's packet says what that was") {
  TestPort test;
  Handle& zero = test.Adopt(HandleKind::kFile, Zero(), 1);
  CHECK(test.Post(1, 2, 3));
  CHECK_EQ(test.GetOne().kind, static_cast<uint8_t>(Opcode::kPost));
  test.Start(Opcode::kRead, zero, 0, 16);
  CHECK_EQ(test.GetOne().kind, static_cast<uint8_t>(Opcode::kRead));
}

// A reactor's operation finishes when its poller sees it.
CASE_ON(Post07, "POST-07", "an operation that finished before a post is dequeued before it", On::kUring) {
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  for (int i = 0; i < 100; i++) {
    test.Start(Opcode::kRecv, *socket, 0, 16);
    test.Submit();
    WriteAll(peer, "x", 1);
    CHECK(test.Post(2));
    CHECK(Keys(test.GetExactly(2)) == (std::vector<double>{1, 2}));
  }
}

CASE(Post08, "POST-08", "a post with the id of a pending operation leaves that pending, with its own packet to come") {
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  const uint32_t slot = test.Start(Opcode::kRecv, *socket, 0, 16);
  test.Submit();
  CHECK(test.Post(9, 0, slot));
  CompletionEntry packet = test.GetOne();
  CHECK(packet.kind == 0 && packet.key == 9 && packet.operation_id == slot);
  CHECK_EQ(test.port().in_kernel(), 1u);
  WriteAll(peer, "abc", 3);
  packet = test.GetOne();
  CHECK(packet.slot == slot && packet.operation_id == slot && packet.bytes == 3);
}

CASE(Order01, "ORDER-01", "packets leave in the order of entry, posts and I/O in one queue") {
  TestPort test;
  auto [socket, peer] = test.Pair(100);
  for (int round = 0; round < 10; round++) {
    CHECK(test.Post(1));
    test.Start(Opcode::kRecv, *socket, 0, 16);
    WriteAll(peer, "x", 1);
    test.AwaitQueued(2);
    CHECK(test.Post(2));
    CHECK(Keys(test.Get(8, 0)) == (std::vector<double>{1, 100, 2}));
  }
}

CASE(Order03, "ORDER-03", "of a stream bytes are taken, and packets enter, in starting order") {
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  std::vector<uint32_t> slots;
  for (uint32_t i = 0; i < 50; i++) slots.push_back(test.Start(Opcode::kRecv, *socket, i * 64, 2));
  test.Submit();
  for (uint32_t i = 0; i < 50; i++) {
    const char pair[2] = {static_cast<char>(i), static_cast<char>(i + 1)};
    WriteAll(peer, pair, 2);
  }
  // One that takes a single byte shifts those behind it, and leaves the order.
  double at = 0;
  for (uint32_t i = 0; i < 50; i++) {
    const CompletionEntry packet = test.GetOne();
    CHECK_EQ(packet.slot, slots[i]);
    CHECK(packet.status == kOk && (packet.bytes == 1 || packet.bytes == 2));
    for (uint32_t k = 0; k < static_cast<uint32_t>(packet.bytes); k++, at++)
      CHECK_EQ(static_cast<double>(test.arena()[i * 64 + k]), std::floor(at / 2) + std::fmod(at, 2));
    if (at >= 100) break;
  }
}

// ---- cancels ----------------------------------------------------------------------------------------------------------------

CASE(Cancel01, "CANCEL-01", "a cancelled recv, accept or connect is ECANCELED once, without bytes") {
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  sockaddr_in address, full;
  Handle& listener = test.Adopt(HandleKind::kListener, Listening(&address), 2);
  std::vector<int> fillers;
  const int jammed = ListeningFull(&full, &fillers);
  Handle* connecting = HandleTable::Process().Create(1, HandleKind::kSocket, NewSocket());
  CHECK_EQ(test.port().Associate(*connecting, 3), 0);
  for (const uint32_t slot :
       {test.Start(Opcode::kRecv, *socket, 0, 16), test.Start(Opcode::kAccept, listener, 0, 0), test.Connect(*connecting, full)}) {
    CHECK(test.Get(8, 5).empty());
    CHECK(test.Cancel(slot));
    const CompletionEntry packet = test.GetOne();
    CHECK(packet.slot == slot && packet.status == kCanceled && packet.bytes == 0);
    CHECK(test.Get(8, 0).empty());
  }
  close(jammed);
}

CASE(Cancel01Send, "CANCEL-01/send", "a cancelled send reports the bytes that were moved, which the peer gets, and no others") {
  TestPortOptions options;
  options.arena_bytes = kHuge;
  TestPort test(options);
  auto [socket, peer] = test.Pair(1);
  const uint32_t slot = test.Start(Opcode::kSend, *socket, 0, kHuge);
  CHECK(test.Get(8, 10).empty());
  CHECK(test.Cancel(slot));
  const CompletionEntry packet = test.GetOne();
  CHECK_EQ(packet.status, kCanceled);
  CHECK(packet.bytes > 0 && packet.bytes < kHuge);
  test.Close(*socket, false);
  double taken = 0;
  std::vector<char> sink(1 << 16);
  for (ssize_t count = read(peer, sink.data(), sink.size()); count > 0; count = read(peer, sink.data(), sink.size()))
    taken += static_cast<double>(count);
  CHECK_EQ(taken, packet.bytes);
}

CASE(Cancel02, "CANCEL-02", "to cancel what has finished, or never was, is false and harms nothing") {
  TestPort test;
  Handle& zero = test.Adopt(HandleKind::kFile, Zero(), 1);
  const uint32_t slot = test.Start(Opcode::kRead, zero, 0, 16), generation = test.generation(slot);
  test.AwaitQueued(1);
  CHECK(!test.Cancel(slot));
  CHECK_EQ(test.GetOne().status, kOk);
  Port& port = test.port();
  CHECK(!port.Cancel(port.first(), slot, generation, EndedBy::kCancel));
  CHECK(!port.Cancel(port.first(), slot, test.generation(slot), EndedBy::kCancel));
  CHECK(!port.Cancel(port.first(), 4095, 1, EndedBy::kCancel));
  CHECK(!port.Cancel(port.first(), 0xffff'ffff, 0, EndedBy::kCancel));
  CHECK(test.Get(8, 0).empty());
}

CASE(Cancel03, "CANCEL-03", "to cancel a handle's operations says how many, and touches no other handle, of the same socket neither") {
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  auto [other, other_peer] = test.Pair(2);
  Handle& twin = test.Adopt(HandleKind::kSocket, fcntl(static_cast<int>(socket->os), F_DUPFD_CLOEXEC, 0), 3);
  for (uint32_t i = 0; i < 5; i++) test.Start(Opcode::kRecv, *socket, i * 64, 16);
  test.Start(Opcode::kRecv, *other, 1024, 16);
  test.Start(Opcode::kRecv, twin, 2048, 16);
  test.Submit();
  Port& port = test.port();
  CHECK_EQ(port.CancelHandle(port.first(), socket->index, socket->last_generation, EndedBy::kCancel), int64_t{5});
  for (const CompletionEntry& packet : test.GetExactly(5)) CHECK(packet.key == 1 && packet.status == kCanceled);
  CHECK_EQ(port.CancelHandle(port.first(), socket->index, socket->last_generation, EndedBy::kCancel), int64_t{0});
  CHECK(test.Get(8, 5).empty());
  WriteAll(peer, "x", 1);
  CHECK_EQ(test.GetOne().key, 3.0);
  WriteAll(other_peer, "x", 1);
  CHECK_EQ(test.GetOne().key, 2.0);
}

CASE(Cancel04, "CANCEL-04", "a cancel and the data race: one packet, success with its bytes or ECANCELED, and no byte is lost") {
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  Random random(context.seed);
  uint32_t sent = 0, taken = 0;
  for (uint32_t round = context.Count(2000); round > 0; round--) {
    const uint32_t slot = test.Start(Opcode::kRecv, *socket, 0, 16);
    if (random.OneIn(2)) test.Submit();
    if (random.OneIn(2)) {
      WriteAll(peer, "x", 1);
      sent++;
    }
    test.Cancel(slot);
    const CompletionEntry packet = test.GetOne();
    CHECK(packet.slot == slot && (packet.status == kOk ? packet.bytes > 0 : packet.status == kCanceled && packet.bytes == 0));
    taken += static_cast<uint32_t>(packet.bytes);
  }
  while (taken < sent) {
    test.Start(Opcode::kRecv, *socket, 0, 4096);
    taken += static_cast<uint32_t>(test.GetOne().bytes);
  }
  CHECK_EQ(taken, sent);
  CHECK(test.Get(8, 0).empty());
}

CASE(Cancel05, "CANCEL-05", "a cancel of what was started and not submitted gives its packet, too") {
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  const uint32_t slot = test.Start(Opcode::kRecv, *socket, 0, 16);
  CHECK(test.Cancel(slot));
  const CompletionEntry packet = test.GetOne();
  CHECK(packet.slot == slot && packet.status == kCanceled);
}

CASE(Cancel06, "CANCEL-06", "with a signal that is aborted at the start nothing is done, and the packet says so") {
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  SubmissionEntry entry{};
  entry.opcode = static_cast<uint8_t>(Opcode::kSend);
  entry.flags = kSubmissionAborted;
  entry.length = 16;
  test.Start(entry, *socket);
  const CompletionEntry packet = test.GetOne();
  CHECK(packet.status == kCanceled && packet.bytes == 0);
  CHECK_EQ(packet.ended_by, static_cast<uint16_t>(EndedBy::kSignal));
  pollfd watched = {peer, POLLIN, 0};
  CHECK_EQ(poll(&watched, 1, 20), 0);
}

CASE(Cancel07, "CANCEL-07", "a cancelled accept that wins anyway leaks no descriptor") {
  const int before = OpenDescriptors();
  {
    TestPort test;
    Random random(context.seed);
    sockaddr_in address;
    Handle& listener = test.Adopt(HandleKind::kListener, Listening(&address), 1);
    const int inside = OpenDescriptors();
    int waiting = 0;  // connections that nobody has taken
    for (uint32_t round = context.Count(200); round > 0; round--) {
      const uint32_t slot = test.Start(Opcode::kAccept, listener, 0, 0);
      if (random.OneIn(2)) test.Submit();
      if (waiting == 0) {
        ResetNow(Connected(address));
        waiting++;
      }
      test.Cancel(slot);
      const CompletionEntry packet = test.GetOne();
      CHECK(packet.status == kOk || packet.status == kCanceled);
      if (packet.status != kOk) continue;
      waiting--;
      Handle& made = TestPort::Made(packet);
      CHECK_EQ(test.port().Associate(made, 2), 0);
      test.Close(made, true);
    }
    CHECK_EQ(OpenDescriptors(), inside);
  }
  CHECK_EQ(OpenDescriptors(), before);
}

CASE(Cancel08, "CANCEL-08", "cancelling one leaves the handle's others pending, also while the queue to the kernel is full") {
  TestPortOptions options;
  options.ring_entries = 8;
  TestPort test(options);
  auto [socket, peer] = test.Pair(1);
  std::vector<uint32_t> slots;
  for (uint32_t i = 0; i < 100; i++) slots.push_back(test.Start(Opcode::kRecv, *socket, i * 64, 1));
  for (uint32_t i = 0; i < 100; i += 2) CHECK(test.Cancel(slots[i]));
  std::set<uint32_t> ended;
  for (const CompletionEntry& packet : test.GetExactly(50)) {
    CHECK_EQ(packet.status, kCanceled);
    ended.insert(packet.slot);
  }
  for (uint32_t i = 0; i < 100; i++) CHECK_EQ(ended.count(slots[i]), size_t{i % 2 == 0});
  CHECK(test.Get(8, 0).empty());
  const std::string data(50, 'x');
  WriteAll(peer, data.data(), data.size());
  for (uint32_t i = 1; i < 100; i += 2) {
    const CompletionEntry packet = test.GetOne();
    CHECK(packet.slot == slots[i] && packet.bytes == 1);
  }
}

CASE(Cancel09, "CANCEL-09", "an operation's own time ends it with ETIMEDOUT, once and never early; data that is there wins") {
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  for (const double timeout : {0.0, 1.0, 20.0}) {
    const double started = MonotonicMs();
    test.Start(Opcode::kRecv, *socket, 0, 16, 0, timeout);
    const CompletionEntry packet = test.GetOne();
    CHECK(MonotonicMs() - started >= timeout);
    CHECK(packet.status == kTimedOut && packet.bytes == 0);
    CHECK_EQ(packet.ended_by, static_cast<uint16_t>(EndedBy::kTimeout));
  }
  test.Start(Opcode::kRecv, *socket, 0, 16, 0, 2'000);
  WriteAll(peer, "x", 1);
  CHECK_EQ(test.GetOne().bytes, 1.0);
  CHECK(test.Get(8, 0).empty());
}

// ---- closes -----------------------------------------------------------------------------------------------------------------

CASE(Close02, "CLOSE-02", "a port's close ends what is in flight, drops what is queued, and doesn't wait") {
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  for (uint32_t i = 0; i < 10; i++) test.Start(Opcode::kRecv, *socket, i * 64, 16);
  test.Submit();
  CHECK(test.Post(1));
  const double started = MonotonicMs();
  test.port().Close();
  CHECK(MonotonicMs() - started < 1'000);
  CHECK(test.Get(8, 0).empty());
  CHECK_EQ(test.port().in_kernel(), 0u);  // sockets alone: all have let go
}

CASE(Close03, "CLOSE-03", "handles outlive a private port") {
  Handle* zero;
  {
    Fenced block(kBlockBytes);
    PortOptions options;
    options.block = block.span();
    options.max_operations = 16;
    CreateError error;
    const std::unique_ptr<Port> port = MakePort(options, &error);
    CHECK(port != nullptr);
    zero = HandleTable::Process().Create(99, HandleKind::kFile, Zero());
    CHECK_EQ(port->Associate(*zero, 1), 0);
    port->CloseAndWait();
  }
  CHECK(HandleTable::Process().Find(zero->index, zero->last_generation) == zero);
  CHECK(zero->port.load() == nullptr && zero->associated);
  char byte = 1;
  CHECK(read(static_cast<int>(zero->os), &byte, 1) == 1 && byte == 0);
}

CASE(Close04, "CLOSE-04", "closing a handle ends each pending operation once, with its key: ECANCELED, by the close") {
  TestPortOptions options;
  options.arena_bytes = kHuge;
  TestPort test(options);
  sockaddr_in address;
  Handle& listener = test.Adopt(HandleKind::kListener, Listening(&address), 8);
  auto [socket, peer] = test.Pair(7);
  std::set<uint32_t> slots;
  for (uint32_t i = 0; i < 3; i++) {
    slots.insert(test.Start(Opcode::kRecv, *socket, i * 64, 16));
    slots.insert(test.Start(Opcode::kAccept, listener, 0, 0));
    slots.insert(test.Start(Opcode::kSend, *socket, 0, kHuge));
  }
  test.Submit();
  CHECK(test.Close(*socket, false) && test.Close(listener, false));
  for (const CompletionEntry& packet : test.GetExactly(9)) {
    CHECK(packet.status == kCanceled && packet.ended_by == kClosed);
    CHECK_EQ(packet.key, packet.kind == static_cast<uint8_t>(Opcode::kAccept) ? 8.0 : 7.0);
    CHECK_EQ(slots.erase(packet.slot), size_t{1});
  }
  CHECK(test.Get(8, 0).empty());
}

CASE(Close06, "CLOSE-06", "rounds of close and reopen on one number, with operations pending: nothing is reported for another") {
  TestPort test;
  auto [socket, peer] = test.Pair(0);
  const auto fd = static_cast<int>(socket->os);
  Random random(context.seed);
  for (uint32_t round = 0; round < context.Count(300); round++) {
    const uint32_t taker = test.Start(Opcode::kRecv, *socket, 0, 1), loser = test.Start(Opcode::kRecv, *socket, 64, 1);
    const char byte = static_cast<char>(round);
    if (random.OneIn(2)) test.Submit();
    WriteAll(peer, &byte, 1);
    const bool wait = random.OneIn(2);
    if (wait) {
      const CompletionEntry packet = test.GetOne();
      CHECK(packet.slot == taker && packet.key == round && static_cast<char>(test.arena()[0]) == byte);
    }
    const double old = socket->id();
    test.Close(*socket, true);
    close(peer);
    const std::pair<Handle*, int> fresh = PairAt(test, fd, round + 1);
    CHECK(fresh.first->id() != old);
    for (const CompletionEntry& packet : test.GetExactly(wait ? 1 : 2)) {
      CHECK(packet.key == round && packet.handle_id == old);
      CHECK(packet.slot == loser ? packet.status == kCanceled : packet.slot == taker);
    }
    socket = fresh.first;
    peer = fresh.second;
  }
  CHECK(test.Get(8, 0).empty());
}

CASE(Close07, "CLOSE-07", "a close is seen by the peer, and the address can be listened on again, with no further get") {
  TestPort test;
  sockaddr_in address;
  AddressEntry entry{};
  Handle& listener = test.Adopt(HandleKind::kListener, Listening(&address), 1);
  entry.family = 4;
  entry.port = ntohs(address.sin_port);
  std::memcpy(entry.bytes, &address.sin_addr, 4);
  auto [socket, peer] = test.Pair(2);
  test.Start(Opcode::kAccept, listener, 0, 0);
  test.Start(Opcode::kRecv, *socket, 0, 16);
  test.Submit();
  test.Close(listener, false);
  test.Close(*socket, false);
  pollfd watched = {peer, POLLIN, 0};
  CHECK_EQ(poll(&watched, 1, 5'000), 1);
  char byte;
  CHECK_EQ(read(peer, &byte, 1), ssize_t{0});
  const int again = posix::Listen(entry, 16, false, false);
  CHECK(again >= 0);
  close(again);
  test.GetExactly(2);
}

CASE(Close08, "CLOSE-08", "packets that a close drops leak no accepted socket and no opened file") {
  const int before = OpenDescriptors();
  for (uint32_t round = 0; round < 20; round++) {
    sockaddr_in address;
    const int listening = Listening(&address);
    std::vector<int> clients;
    {
      TestPort test;
      Handle& listener = test.Adopt(HandleKind::kListener, listening, 1);
      for (int i = 0; i < 3; i++) {
        clients.push_back(Connected(address));
        test.Start(Opcode::kAccept, listener, 0, 0);
      }
      test.Open("/dev/zero", O_RDONLY, 2);
      test.AwaitQueued(4);
      test.port().Close();
      CHECK(test.Get(8, 0).empty());
    }
    for (const int client : clients) close(client);
  }
  CHECK_EQ(OpenDescriptors(), before);
}

CASE(Close10, "CLOSE-10", "the name of a closed handle finds nothing, whatever is asked of it") {
  TestPort test;
  Port& port = test.port();
  Handle& zero = test.Adopt(HandleKind::kFile, Zero(), 1);
  const uint32_t index = zero.index, generation = zero.last_generation;
  CHECK(test.Close(zero, false));
  CHECK(HandleTable::Process().Find(index, generation) == nullptr);
  CHECK(!port.CloseHandle(port.first(), index, generation, false));
  CHECK_EQ(port.CancelHandle(port.first(), index, generation, EndedBy::kCancel), int64_t{-1});
  // The slot goes to another, which the old name isn't.
  Handle& other = test.Adopt(HandleKind::kFile, Zero(), 2);
  SubmissionEntry entry{};
  entry.opcode = static_cast<uint8_t>(Opcode::kRead);
  entry.slot = test.TakeSlot();
  entry.slot_generation = test.generation(entry.slot);
  entry.handle_index = index;
  entry.handle_generation = generation;
  entry.length = 16;
  test.Stage(entry);
  CHECK_EQ(test.GetOne().status, kBadHandle);
  CHECK(!port.CloseHandle(port.first(), index, generation, false) && other.os != kOsHandleNone);
}

// ---- operations, buffers, limits --------------------------------------------------------------------------------------------

CASE(Op01, "OP-01", "an operation that completes at once still queues its packet") {
  TestPort test;
  Handle& zero = test.Adopt(HandleKind::kFile, Zero(), 1);
  for (uint32_t i = 0; i < 100; i++) test.Start(Opcode::kRead, zero, 0, 64);
  CHECK_EQ(test.GetExactly(100).size(), size_t{100});
  CHECK(test.Get(8, 0).empty());
}

CASE(Op02, "OP-02",
     "a slot is reusable behind its packet, on any handle and kind; started while pending it is refused, and nothing is disturbed") {
  TestPortOptions options;
  options.max_operations = 1;
  TestPort test(options);
  Handle& zero = test.Adopt(HandleKind::kFile, Zero(), 1);
  auto [socket, peer] = test.Pair(2);
  for (int round = 0; round < 20; round++) {
    test.Start(Opcode::kRead, zero, 0, 16);
    CHECK_EQ(test.GetOne().key, 1.0);
    test.Start(Opcode::kRecv, *socket, 0, 16);
    test.Submit();
    SubmissionEntry again{};
    again.opcode = static_cast<uint8_t>(Opcode::kRead);
    again.slot_generation = test.generation(0);
    again.handle_index = zero.index;
    again.handle_generation = zero.last_generation;
    again.length = 16;
    const uint32_t rejected = test.control().rejected;
    test.Stage(again);
    CHECK(test.Get(8, 0).empty());
    CHECK_EQ(test.control().rejected, rejected + 1);
    WriteAll(peer, "x", 1);
    const CompletionEntry packet = test.GetOne();
    CHECK(packet.key == 2 && packet.bytes == 1);
  }
}

CASE(Op03, "OP-03", "a packet names the operation that was started") {
  TestPort test;
  Handle& zero = test.Adopt(HandleKind::kFile, Zero(), 1);
  std::set<uint32_t> slots;
  for (uint32_t i = 0; i < 200; i++) {
    SubmissionEntry entry{};
    entry.opcode = static_cast<uint8_t>(Opcode::kRead);
    entry.length = 16;
    entry.operation_id = kSafeIntegerMax - i;
    CHECK(slots.insert(test.Start(entry, zero)).second);
  }
  std::set<double> ids;
  for (const CompletionEntry& packet : test.GetExactly(200)) {
    CHECK_EQ(slots.erase(packet.slot), size_t{1});
    CHECK(ids.insert(packet.operation_id).second && packet.operation_id > kSafeIntegerMax - 200);
  }
}

CASE(Op05, "OP-05", "thousands of operations through a ring of 8: none is lost") {
  TestPortOptions options;
  options.ring_entries = 8;
  TestPort test(options);
  Handle& zero = test.Adopt(HandleKind::kFile, Zero(), 1);
  for (uint32_t round = 0; round < context.Count(5); round++) {
    for (uint32_t i = 0; i < 4000; i++) test.Start(Opcode::kRead, zero, i * 64 % test.arena_bytes(), 64);
    for (const CompletionEntry& packet : test.GetExactly(4000)) CHECK(packet.status == kOk && packet.bytes == 64);
    CHECK(test.Get(8, 0).empty());
  }
}

CASE(Op06, "OP-06", "a failure to start is one packet, like any other failure") {
  TestPort test;
  Handle& zero = test.Adopt(HandleKind::kFile, Zero(), 4);
  // Of a kind that a file hasn't; then of no kind at all.
  test.Start(Opcode::kRecv, zero, 0, 16);
  CompletionEntry packet = test.GetOne();
  CHECK_EQ(packet.status, kBadHandle);
  SubmissionEntry entry{};
  entry.opcode = 200;
  test.Start(entry, zero);
  CHECK_EQ(test.GetOne().status, kInvalid);
  test.Start(Opcode::kRead, zero, 0, 16, -5);
  packet = test.GetOne();
  CHECK(packet.status == kInvalid && packet.key == 4);
  CHECK(test.Get(8, 0).empty());
  CHECK_EQ(test.port().in_kernel(), 0u);
}

CASE(Op07, "OP-07", "lengths above 2^31-4096 are refused; slot generations wrap around") {
  TestPortOptions options;
  options.max_operations = 1;
  TestPort test(options);
  Handle& zero = test.Adopt(HandleKind::kFile, Zero(), 1);
  for (const double length : {static_cast<double>(kLengthMax) + 1, 4294967296.0, kSafeIntegerMax}) {
    SubmissionEntry entry{};
    entry.opcode = static_cast<uint8_t>(Opcode::kRead);
    entry.length = length;
    test.Start(entry, zero);
    CHECK_EQ(test.GetOne().status, kInvalid);
  }
  bool wrapped = false;
  for (uint32_t round = 0; round < 3 * kSlotGenerationMax; round++) {
    const uint32_t last = test.generation(0);
    test.Start(Opcode::kRead, zero, 0, 16);
    CHECK_EQ(test.GetOne().bytes, 16.0);
    wrapped = wrapped || test.generation(0) < last;
    CHECK(test.generation(0) != last && test.generation(0) != 0 && test.generation(0) <= kSlotGenerationMax);
  }
  CHECK(wrapped);
}

CASE(Buf02, "BUF-02", "a range that isn't within its memory, or of no memory, is refused before anything starts") {
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  WriteAll(peer, "abcd", 4);
  const auto bytes = static_cast<double>(test.arena_bytes());
  const double ranges[][2] = {{bytes, 1}, {bytes - 1, 2}, {-1, 2}, {0, bytes + 1}, {0.5, 4}, {0, std::nan("")}, {kSafeIntegerMax, 4}};
  for (const auto& [offset, length] : ranges) {
    SubmissionEntry entry{};
    entry.opcode = static_cast<uint8_t>(Opcode::kRecv);
    entry.offset = offset;
    entry.length = length;
    test.Start(entry, *socket);
    CHECK_EQ(test.GetOne().status, kInvalid);
  }
  for (const uint32_t memory : {1u, 77u, kMemoryNone}) {
    SubmissionEntry entry{};
    entry.opcode = static_cast<uint8_t>(Opcode::kRecv);
    entry.memory_id = memory;
    entry.length = 4;
    test.Start(entry, *socket);
    CHECK_EQ(test.GetOne().status, kInvalid);
  }
  test.Start(Opcode::kRecv, *socket, test.arena_bytes() - 4, 4);
  CHECK_EQ(test.GetOne().bytes, 4.0);  // none has taken a byte
}

CASE(Buf03, "BUF-03", "zero bytes: read, write and send complete; a recv when data is there, of which it takes none") {
  TestPort test;
  Handle& file = test.Adopt(HandleKind::kFile, TempFile(), 1);
  auto [socket, peer] = test.Pair(2);
  for (const Opcode kind : {Opcode::kRead, Opcode::kWrite}) {
    test.Start(kind, file, 0, 0);
    const CompletionEntry packet = test.GetOne();
    CHECK(packet.status == kOk && packet.bytes == 0);
  }
  test.Start(Opcode::kSend, *socket, 0, 0);
  CHECK_EQ(test.GetOne().status, kOk);
  test.Start(Opcode::kRecv, *socket, 0, 0);
  CHECK(test.Get(8, 20).empty());
  WriteAll(peer, "ab", 2);
  CompletionEntry packet = test.GetOne();
  CHECK(packet.status == kOk && packet.bytes == 0);
  test.Start(Opcode::kRecv, *socket, 0, 16);
  CHECK_EQ(test.GetOne().bytes, 2.0);
}

CASE(Buf04, "BUF-04", "operations share a buffer's disjoint parts, to the byte") {
  TestPort test;
  auto [one, one_peer] = test.Pair(1);
  auto [two, two_peer] = test.Pair(2);
  std::memset(test.arena(), '.', 16);
  test.Start(Opcode::kRecv, *one, 3, 5);
  test.Start(Opcode::kRecv, *two, 8, 5);
  WriteAll(two_peer, "BBBBB", 5);
  WriteAll(one_peer, "AAAAA", 5);
  for (const CompletionEntry& packet : test.GetExactly(2)) CHECK_EQ(packet.bytes, 5.0);
  CHECK(std::memcmp(test.arena(), "...AAAAABBBBB...", 16) == 0);
}

CASE(Buf05, "BUF-05", "bytes beyond those that were transferred are untouched, and after the packet nothing is written") {
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  std::memset(test.arena(), 0xa5, 8192);
  test.Start(Opcode::kRecv, *socket, 64, 4096);
  WriteAll(peer, "abc", 3);
  CHECK_EQ(test.GetOne().bytes, 3.0);
  WriteAll(peer, "defghi", 6);
  CHECK(test.Get(8, 20).empty());
  for (size_t i = 0; i < 8192; i++) CHECK(test.arena()[i] == (i - 64 < 3 ? std::byte("abc"[i - 64]) : std::byte{0xa5}));
}

CASE(Buf06, "BUF-06/unregister", "memory that is unregistered under an operation is the owner's again only behind its packet") {
  TestPort test;
  Port& port = test.port();
  auto [socket, peer] = test.Pair(1);
  Fenced own(4096);
  const uint32_t id = port.RegisterMemory(port.first(), own.span());
  CHECK(id != 0);
  SubmissionEntry entry{};
  entry.opcode = static_cast<uint8_t>(Opcode::kRecv);
  entry.memory_id = id;
  entry.length = 16;
  const uint32_t slot = test.Start(entry, *socket);
  test.Submit();
  CHECK(port.UnregisterMemory(port.first(), id));
  CHECK(!port.UnregisterMemory(port.first(), id));
  std::vector<uint32_t> freed;
  port.TakeFreedMemory(port.first(), &freed);
  CHECK(freed.empty());
  CHECK(test.Cancel(slot));
  test.GetOne();
  port.TakeFreedMemory(port.first(), &freed);
  CHECK(freed == std::vector<uint32_t>{id});
  // And its name is nobody's.
  test.Start(entry, *socket);
  CHECK_EQ(test.GetOne().status, kInvalid);
}

CASE(Buf08, "BUF-08", "a full arena refuses; what is released can be had again, without growth") {
  TestPort test;
  Port& port = test.port();
  std::vector<uint64_t> blocks;
  for (uint64_t offset = port.ArenaAllocate(4096); offset != Arena::kNone; offset = port.ArenaAllocate(4096)) {
    CHECK(offset + 4096 <= test.arena_bytes());
    blocks.push_back(offset);
  }
  const size_t room = blocks.size();
  CHECK(room > 100 && std::set<uint64_t>(blocks.begin(), blocks.end()).size() == room);
  Handle& zero = test.Adopt(HandleKind::kFile, Zero(), 1);
  test.Start(Opcode::kRead, zero, blocks[0], 64);
  CHECK_EQ(test.GetOne().bytes, 64.0);
  for (const uint64_t offset : blocks) CHECK(port.ArenaRelease(offset));
  for (uint32_t i = 0; i < 20'000; i++) {
    const uint64_t offset = port.ArenaAllocate(1 + i % 9000);
    CHECK(offset != Arena::kNone && port.ArenaRelease(offset));
  }
  for (size_t i = 0; i < room; i++) CHECK(port.ArenaAllocate(4096) != Arena::kNone);
  CHECK(port.ArenaAllocate(4096) == Arena::kNone);
}

CASE(Buf09, "BUF-09", "a block that is released under an operation is handed out again only behind the packet; twice isn't released") {
  TestPort test;
  Port& port = test.port();
  auto [socket, peer] = test.Pair(1);
  const uint64_t block = port.ArenaAllocate(64);
  CHECK(block != Arena::kNone);
  const uint32_t slot = test.Start(Opcode::kRecv, *socket, block, 64);
  test.Submit();
  CHECK(port.ArenaRelease(block));
  CHECK(!port.ArenaRelease(block));
  CHECK(!port.ArenaRelease(block + 1));
  const auto again = [&] {
    bool found = false;
    for (uint64_t offset = port.ArenaAllocate(64); offset != Arena::kNone; offset = port.ArenaAllocate(64))
      found = found || offset == block;
    return found;
  };
  CHECK(!again());
  CHECK(test.Cancel(slot));
  CHECK(!again());
  test.GetOne();
  CHECK(again());
}

CASE(Sec01, "SEC-01", "random entries fail alone, and a slot that was taken ends") {
  TestPortOptions options;
  options.max_operations = 32;
  TestPort test(options);
  Random random(context.seed);
  Handle& zero = test.Adopt(HandleKind::kFile, Zero(), 1);
  for (uint32_t round = context.Count(5000); round > 0; round--) {
    SubmissionEntry entry;
    auto* bytes = reinterpret_cast<unsigned char*>(&entry);
    for (size_t i = 0; i < sizeof(entry); i++) bytes[i] = static_cast<unsigned char>(random.Next());
    if (random.OneIn(2)) {
      entry.slot = random.Below(33);
      entry.slot_generation = entry.slot < 32 ? test.generation(entry.slot) : 1;
      entry.handle_index = zero.index;
      entry.handle_generation = zero.last_generation;
      entry.memory_id = random.Below(2);
      entry.opcode = random.OneIn(2) ? static_cast<uint8_t>(Opcode::kRead) : static_cast<uint8_t>(random.Below(20));
    }
    test.Stage(entry);
    for (const CompletionEntry& packet : test.Get(64, 0)) CHECK(packet.slot < 32);
  }
  const double deadline = MonotonicMs() + 5'000;
  while (test.port().in_kernel() > 0 && MonotonicMs() < deadline) test.Get(64, 10);
  CHECK_EQ(test.port().in_kernel(), 0u);
  while (!test.Get(64, 0).empty()) {
  }
  test.Start(Opcode::kRead, zero, 0, 64);
  CHECK_EQ(test.GetOne().bytes, 64.0);
}

}  // namespace cp::test
