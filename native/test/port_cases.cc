// A backend under stress: races, full queues, narrow generations, hostile entries. Races are asserted by invariants: exactly one
// packet an operation, and bytes reported are bytes taken.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <cmath>
#include <limits>
#include <set>
#include <thread>

#include "core/test_hooks.h"
#include "test/harness.h"

namespace cp::test {

static Register post("post/fifo", "posts come out as given, in order, through any number of gets", [](const Context& context) {
  TestPort test;
  const uint32_t count = context.Count(200'000);
  uint32_t out = 0;
  Random random(context.seed);
  for (uint32_t in = 0; out < count;) {
    for (uint32_t burst = random.Below(300); burst > 0 && in < count; burst--, in++) {
      test.control().post_key = in;
      test.control().post_bytes = 4294967295.0;
      test.control().post_operation_id = kSafeIntegerMax;
      test.control().post_tag = kNoTag;
      CHECK(test.port().Post(test.port().first()));
    }
    for (const CompletionEntry& packet : test.Get(1 + random.Below(512), 0)) {
      CHECK_EQ(packet.key, static_cast<double>(out));
      CHECK_EQ(packet.bytes, 4294967295.0);
      CHECK_EQ(packet.operation_id, kSafeIntegerMax);
      out++;
    }
  }
});

// One recv, one byte sent by the peer, one cancel, in random order: the packet says success with the byte or cancelled without it.
static void CancelRecv(const Context& context, const std::string& disable) {
  TestPortOptions options;
  options.disable = disable;
  TestPort test(options);
  Random random(context.seed);
  auto [socket, peer] = test.Pair(5);
  uint32_t sent = 0, received = 0, canceled = 0;
  const uint32_t rounds = context.Count(100'000);
  std::atomic<uint32_t> go{0}, gone{0};
  std::atomic<bool> stop{false};
  // The peer writes from its own thread, so that the byte arrives at any moment of the cancel.
  std::thread writer([&, fd = peer] {
    uint32_t done = 0;
    while (!stop.load()) {
      if (go.load(std::memory_order_acquire) == done) {
        std::this_thread::yield();
        continue;
      }
      const char byte = static_cast<char>(done);
      [[maybe_unused]] const ssize_t written = write(fd, &byte, 1);
      done++;
      gone.store(done, std::memory_order_release);
    }
  });
  for (uint32_t round = 0; round < rounds; round++) {
    const uint32_t slot = test.Start(Opcode::kRecv, *socket, 0, 1);
    if (random.OneIn(2)) test.Submit();
    const bool send = received == sent;  // at most one byte is on its way
    if (send) go.store(++sent, std::memory_order_release);
    if (random.OneIn(3))
      while (gone.load(std::memory_order_acquire) != sent) std::this_thread::yield();
    for (uint32_t spin = random.Below(200); spin > 0; spin--) std::atomic_signal_fence(std::memory_order_seq_cst);
    test.Cancel(slot);
    const CompletionEntry packet = test.GetExactly(1)[0];
    if (packet.slot != slot || packet.key != 5) stop = true;
    if (packet.status == kOk) {
      if (packet.bytes != 1 || static_cast<char>(test.arena()[0]) != static_cast<char>(received)) stop = true;
      received++;
    } else {
      if (packet.status != kCanceled || packet.bytes != 0 || packet.ended_by != 1) stop = true;
      canceled++;
    }
    if (stop.load()) break;
  }
  const bool sound = !stop.load();
  stop = true;
  writer.join();
  const bool nothing_left = test.Get(10, 0).empty();
  close(peer);
  CHECK(sound);
  CHECK(nothing_left);
  CHECK(rounds < 1000 || (received > 0 && canceled > 0));  // both sides of the race were seen
}
static Register cancel_recv("cancel/recv", "a cancel and the data race: exactly one packet, no byte lost",
                            [](const Context& context) { CancelRecv(context, ""); });
static Register cancel_plain(
    "cancel/recv-plain-ring", "the same on a ring without deferred task work, as before Linux 6.1",
    [](const Context& context) {
      Context tenth = context;
      tenth.scale /= 10;
      CancelRecv(tenth, "defer_taskrun,taskrun_flag,single_issuer,submit_all,ext_arg");
    },
    On::kUring);

static Register cancel_send("cancel/send", "a cancelled send reports the bytes that the peer really gets", [](const Context& context) {
  Random random(context.seed);
  TestPortOptions options;
  options.arena_bytes = 8 << 20;
  TestPort test(options);
  std::vector<char> sink(1 << 20);
  for (uint32_t round = 0; round < context.Count(300); round++) {
    auto [socket, peer] = test.Pair(1);
    const size_t bytes = 4 << 20;
    const uint32_t slot = test.Start(Opcode::kSend, *socket, 0, bytes);
    test.Submit();
    uint64_t taken = 0;
    for (uint32_t reads = random.Below(8); reads > 0; reads--) {
      const ssize_t count = recv(peer, sink.data(), sink.size(), MSG_DONTWAIT);
      if (count > 0) taken += static_cast<uint64_t>(count);
    }
    const bool asked = test.Cancel(slot);
    const CompletionEntry packet = test.GetExactly(1)[0];
    CHECK(packet.status == kCanceled || (packet.status == kOk && packet.bytes == static_cast<double>(bytes)));
    CHECK(asked || packet.status == kOk);
    test.Close(*socket, false);
    for (;;) {
      const ssize_t count = read(peer, sink.data(), sink.size());
      CHECK(count >= 0);
      if (count == 0) break;
      taken += static_cast<uint64_t>(count);
    }
    CHECK_EQ(static_cast<double>(taken), packet.bytes);
    close(peer);
  }
});

static Register close_race("close/in-flight", "closing ends each operation once, the peer sees it, nothing is left open",
                           [](const Context& context) {
                             Random random(context.seed);
                             const int before = OpenDescriptors();
                             {
                               TestPort test;
                               const int inside = OpenDescriptors();
                               for (uint32_t round = 0; round < context.Count(5000); round++) {
                                 auto [socket, peer] = test.Pair(round);
                                 uint32_t started = 0;
                                 for (uint32_t n = random.Below(4); n > 0; n--, started++)
                                   test.Start(Opcode::kRecv, *socket, 64 * started, random.Below(3));
                                 for (uint32_t n = random.Below(3); n > 0; n--, started++)
                                   test.Start(Opcode::kSend, *socket, 0, random.Below(2000));
                                 if (random.OneIn(2)) test.Submit();
                                 if (random.OneIn(2)) WriteAll(peer, "ab", 2);
                                 const uint32_t index = socket->index, generation = socket->last_generation;
                                 test.Close(*socket, random.OneIn(4));
                                 CHECK(HandleTable::Process().Find(index, generation) == nullptr);
                                 // The end or a reset, before any further get. Data that was sent comes first.
                                 char sink[8192];
                                 ssize_t count;
                                 do count = read(peer, sink, sizeof(sink));
                                 while (count > 0);
                                 CHECK(count == 0 || errno == ECONNRESET);
                                 if (started > 0)
                                   for (const CompletionEntry& packet : test.GetExactly(started)) {
                                     CHECK_EQ(packet.key, static_cast<double>(round));
                                     CHECK(packet.status == kOk || (packet.status == kCanceled && packet.ended_by == 4));
                                   }
                                 close(peer);
                               }
                               CHECK(test.Get(10, 0).empty());
                               CHECK_EQ(OpenDescriptors(), inside);
                             }
                             CHECK_EQ(OpenDescriptors(), before);
                           });

static Register full("queue/full", "thousands in flight through a ring of 8: none lost, cancels work while it is full",
                     [](const Context& context) {
                       TestPortOptions options;
                       options.ring_entries = 8;
                       TestPort test(options);
                       Handle& zero = test.Adopt(HandleKind::kFile, open("/dev/zero", O_RDONLY | O_CLOEXEC), 1);
                       for (uint32_t round = 0; round < context.Count(50); round++) {
                         for (uint32_t i = 0; i < 4000; i++) test.Start(Opcode::kRead, zero, i * 64 % test.arena_bytes(), 64);
                         for (const CompletionEntry& packet : test.GetExactly(4000)) CHECK(packet.status == kOk && packet.bytes == 64);
                       }
                       std::vector<int> peers;
                       std::vector<uint32_t> slots;
                       for (uint32_t i = 0; i < 200; i++) {
                         auto [socket, peer] = test.Pair(i);
                         peers.push_back(peer);
                         slots.push_back(test.Start(Opcode::kRecv, *socket, 0, 64));
                       }
                       for (const uint32_t slot : slots) CHECK(test.Cancel(slot));
                       for (const CompletionEntry& packet : test.GetExactly(200)) CHECK_EQ(packet.status, kCanceled);
                       for (const int peer : peers) close(peer);
                     });

static Register ends_many("queue/ends-many", "a hundred thousand operations of one handle are ended from the last to the first",
                          [](const Context& context) {
                            TestPortOptions options;
                            options.max_operations = context.Count(100'000);
                            options.ring_entries = 8;
                            TestPort test(options);
                            auto [socket, peer] = test.Pair(1);
                            std::vector<uint32_t> slots;
                            for (uint32_t i = 0; i < options.max_operations; i++)
                              slots.push_back(test.Start(Opcode::kRecv, *socket, 0, 64));
                            test.Submit();
                            for (size_t i = slots.size(); i-- > slots.size() / 2;) CHECK(test.Cancel(slots[i]));
                            test.Close(*socket, false);
                            std::set<uint32_t> ended;
                            for (const CompletionEntry& packet : test.GetExactly(options.max_operations)) {
                              CHECK_EQ(packet.status, kCanceled);
                              CHECK(ended.insert(packet.slot).second);
                            }
                            close(peer);
                          });

static Register wrap("slots/wrap", "a slot's generation wraps around without mixing operations up", [](const Context& context) {
  TestPortOptions options;
  options.max_operations = 1;
  TestPort test(options);
  Handle& zero = test.Adopt(HandleKind::kFile, open("/dev/zero", O_RDONLY | O_CLOEXEC), 1);
  uint32_t last = 0;
  for (uint32_t round = 0; round < context.Count(5000); round++) {
    test.Start(Opcode::kRead, zero, 0, 64);
    CHECK_EQ(test.GetExactly(1)[0].status, kOk);
    CHECK(test.generation(0) != last && test.generation(0) <= kSlotGenerationMax);
    last = test.generation(0);
  }
  // The slot's former name starts nothing.
  SubmissionEntry stale{};
  stale.opcode = static_cast<uint8_t>(Opcode::kRead);
  stale.slot_generation = last == 1 ? kSlotGenerationMax : last - 1;
  stale.handle_index = zero.index;
  stale.handle_generation = zero.last_generation;
  const uint32_t rejected = test.control().rejected;
  test.Stage(stale);
  CHECK(test.Get(1, 0).empty());
  CHECK_EQ(test.control().rejected, rejected + 1);
});

static Register fences("memory/fences", "no byte outside [offset, offset + bytes) is written", [](const Context& context) {
  Random random(context.seed);
  TestPort test;
  auto [socket, peer] = test.Pair(1);
  Handle& zero = test.Adopt(HandleKind::kFile, open("/dev/zero", O_RDONLY | O_CLOEXEC), 2);
  const size_t bytes = test.arena_bytes();
  for (uint32_t round = 0; round < context.Count(2000); round++) {
    const size_t length = 1 + random.Below(4096);
    const size_t offset = random.OneIn(2) ? bytes - length : random.Below(static_cast<uint32_t>(bytes - length));
    const size_t from = offset < 64 ? 0 : offset - 64, to = std::min(bytes, offset + length + 64);
    std::memset(test.arena() + from, 0xa5, to - from);
    size_t moved = length;
    if (random.OneIn(2)) {
      moved = 1 + random.Below(static_cast<uint32_t>(length));
      const std::string data(moved, '\0');
      test.Start(Opcode::kRecv, *socket, offset, length);
      WriteAll(peer, data.data(), moved);
      moved = static_cast<size_t>(test.GetExactly(1)[0].bytes);
      size_t rest = data.size() - moved;
      for (size_t i = offset + moved; i < to; i++) CHECK(test.arena()[i] == std::byte{0xa5});
      while (rest > 0) {
        test.Start(Opcode::kRecv, *socket, 0, rest);
        rest -= static_cast<size_t>(test.GetExactly(1)[0].bytes);
      }
      if (from < 4096) continue;
    } else {
      test.Start(Opcode::kRead, zero, offset, length);
      CHECK_EQ(test.GetExactly(1)[0].bytes, static_cast<double>(length));
    }
    for (size_t i = from; i < offset; i++) CHECK(test.arena()[i] == std::byte{0xa5});
    for (size_t i = offset; i < offset + moved; i++) CHECK(test.arena()[i] == std::byte{0});
    for (size_t i = offset + moved; i < to; i++) CHECK(test.arena()[i] == std::byte{0xa5});
  }
  // One byte beyond is refused.
  test.Start(Opcode::kRead, zero, bytes - 63, 64);
  CHECK_EQ(test.GetExactly(1)[0].status, static_cast<int32_t>(Status::kEINVAL));
  close(peer);
});

static Register hostile("entries/hostile", "random entries fail alone; every slot that was taken ends", [](const Context& context) {
  Random random(context.seed);
  TestPortOptions options;
  options.max_operations = 64;
  TestPort test(options);
  auto [socket, peer] = test.Pair(1);
  Handle& file = test.Adopt(HandleKind::kFile, TempFile(), 2);
  const double numbers[] = {0,
                            1,
                            -1,
                            64,
                            1e300,
                            -1e300,
                            4294967296.0,
                            kSafeIntegerMax,
                            0.5,
                            std::nan(""),
                            std::numeric_limits<double>::infinity(),
                            static_cast<double>(test.arena_bytes())};
  const auto number = [&] { return numbers[random.Below(sizeof(numbers) / sizeof(numbers[0]))]; };
  for (uint32_t round = 0; round < context.Count(20'000); round++) {
    const uint32_t count = random.OneIn(100) ? 0xffff'ffff : random.Below(20);
    for (uint32_t i = 0; i < std::min(count, 20u); i++) {
      SubmissionEntry entry;
      auto* bytes = reinterpret_cast<unsigned char*>(&entry);
      for (size_t b = 0; b < sizeof(entry); b++) bytes[b] = static_cast<unsigned char>(random.Next());
      if (!random.OneIn(4)) {
        // Nearly right, so that more than the first check is reached.
        entry.opcode = static_cast<uint8_t>(random.Below(18));
        if (entry.opcode == static_cast<uint8_t>(Opcode::kTruncate)) entry.opcode = 1;  // a petabyte file helps nobody
        entry.segments = static_cast<uint16_t>(random.OneIn(8) ? random.Next() : random.Below(6));
        entry.slot = random.Below(66);
        entry.slot_generation = random.OneIn(8) ? random.Below(20) : entry.slot < 64 ? test.generation(entry.slot) : 1;
        const Handle& handle = random.OneIn(2) ? *socket : file;
        entry.handle_index = handle.index;
        entry.handle_generation = handle.last_generation;
        entry.memory_id = random.OneIn(4) ? random.Below(3) : 0;
        entry.offset = random.OneIn(3) ? number() : random.Below(1000);
        entry.length = random.OneIn(3) ? number() : random.Below(1000);
        entry.position = random.OneIn(3) ? number() : random.Below(1000);
        if (entry.opcode == static_cast<uint8_t>(Opcode::kWrite) || entry.opcode == static_cast<uint8_t>(Opcode::kWritev))
          entry.position = random.Below(1000);
        entry.timeout_ms = number();
      }
      test.Stage(entry);
    }
    test.control().submit_count = count;
    for (const CompletionEntry& packet : test.Get(512, 0)) CHECK(packet.slot < 64);
    if (random.OneIn(50)) test.port().Cancel(test.port().first(), random.Below(70), random.Below(20), EndedBy::kCancel);
    char sink[4096];
    while (recv(peer, sink, sizeof(sink), MSG_DONTWAIT) > 0) {
    }
  }
  test.port().CancelHandle(test.port().first(), socket->index, socket->last_generation, EndedBy::kCancel);
  const double deadline = MonotonicMs() + 10'000;
  while (test.port().in_kernel() > 0 && MonotonicMs() < deadline) test.Get(512, 50);
  CHECK_EQ(test.port().in_kernel(), 0u);
  close(peer);
});

static Register timeouts("timeouts/ops", "a timeout ends its operation once, never early, and loses to data that is there",
                         [](const Context& context) {
                           Random random(context.seed);
                           TestPort test;
                           for (uint32_t round = 0; round < context.Count(200); round++) {
                             auto [socket, peer] = test.Pair(1);
                             const double timeout = random.Below(12);
                             const bool data = random.OneIn(2);
                             const double started = MonotonicMs();
                             test.Start(Opcode::kRecv, *socket, 0, 64, 0, timeout);
                             test.Submit();
                             if (data) WriteAll(peer, "x", 1);
                             const CompletionEntry packet = test.GetExactly(1)[0];
                             if (packet.status == kOk) {
                               CHECK(data && packet.bytes == 1);
                             } else {
                               CHECK_EQ(packet.status, kTimedOut);
                               CHECK_EQ(packet.ended_by, uint16_t{3});
                               CHECK(MonotonicMs() - started >= timeout);
                             }
                             test.Close(*socket, true);
                             close(peer);
                           }
                           CHECK(test.Get(10, 0).empty());
                         });

static Register pool("pool/fallbacks", "truncate and size without their opcodes, closed in between", [](const Context& context) {
  TestPortOptions options;
  options.disable = "ftruncate,statx";
  TestPort test(options);
  for (uint32_t round = 0; round < context.Count(300); round++) {
    Handle& file = test.Adopt(HandleKind::kFile, TempFile(), round);
    test.Start(Opcode::kTruncate, file, 0, 0, 4096 + round);
    if (round % 3 == 0) {
      test.Submit();
      test.Close(file, false);
      CHECK(test.GetExactly(1)[0].key == round);
      continue;
    }
    CHECK_EQ(test.GetExactly(1)[0].status, kOk);
    test.Start(Opcode::kSize, file, 0, 0);
    CHECK_EQ(test.GetExactly(1)[0].result, 4096.0 + round);
    test.Close(file, false);
  }
});

static Register no_memory("port/no-memory",
                          "without memory for it no port is made, on whichever thread that shows: ENOMEM, and nothing is left behind",
                          [](const Context&) {
                            const int before = OpenDescriptors();
                            for (const bool shared : {false, true}) {
                              int32_t refused = 0;
                              for (;; refused++) {
                                Fenced block(kBlockBytes), arena(1 << 16);
                                PortOptions options;
                                options.max_operations = 16;
                                options.owner = 1;
                                options.shared = shared;
                                options.block = block.span();
                                options.arena = arena.span();
                                CreateError error;
                                FailAllocation(refused);
                                const std::unique_ptr<Port> port = MakePort(options, &error);
                                FailAllocation(-1);
                                if (!port) {
                                  CHECK_EQ(error.native_code, ENOMEM);
                                  CHECK(!error.reason.empty());
                                  CHECK_EQ(OpenDescriptors(), before);
                                  CHECK(refused < 100);
                                  continue;
                                }
                                if (shared)
                                  port->Stop();
                                else
                                  port->CloseAndWait();
                                break;
                              }
                              CHECK(refused > 0);
                            }
                            CHECK_EQ(OpenDescriptors(), before);
                          });

static Register pool_descriptors(
    "pool/descriptors", "without a descriptor a job fails and says why, and the next one is done",
    [](const Context&) {
      TestPortOptions options;
      options.disable = "ftruncate";
      // UBSan looks at an object of a class that it sees for the first time through a pipe, and takes it for none where there is no descriptor
      // for that: so each class of the path is used once before.
      {
        TestPort before(options);
        Handle& file = before.Adopt(HandleKind::kFile, TempFile(), 1);
        before.Start(Opcode::kTruncate, file, 0, 0, 10);
        CHECK_EQ(before.GetExactly(1)[0].status, kOk);
      }
      TestPort test(options);
      Handle& file = test.Adopt(HandleKind::kFile, TempFile(), 1);
      const auto truncate = [&](double size) {
        test.Start(Opcode::kTruncate, file, 0, 0, size);
        return test.GetExactly(1)[0].status;
      };
      std::vector<int> fill = TakeDescriptors();
      // None for the wake-up, then one for that and none for the job, then one for each.
      CHECK_EQ(truncate(10), static_cast<int32_t>(Status::kEMFILE));
      close(fill.back());
      fill.pop_back();
      CHECK_EQ(truncate(20), static_cast<int32_t>(Status::kEMFILE));
      close(fill.back());
      fill.pop_back();
      CHECK_EQ(truncate(30), kOk);
      for (const int fd : fill) close(fd);
      test.Start(Opcode::kSize, file, 0, 0);
      CHECK_EQ(test.GetExactly(1)[0].result, 30.0);
    },
    On::kUring);

static Register close_port("port/close", "a port closed with everything in flight lets go of all and leaks nothing",
                           [](const Context& context) {
                             Random random(context.seed);
                             const int before = OpenDescriptors();
                             for (uint32_t round = 0; round < context.Count(200); round++) {
                               std::vector<int> peers;
                               {
                                 TestPort test;
                                 const uint32_t pairs = 1 + random.Below(8);
                                 for (uint32_t i = 0; i < pairs; i++) {
                                   auto [socket, peer] = test.Pair(i);
                                   peers.push_back(peer);
                                   test.Start(Opcode::kRecv, *socket, 0, random.Below(2) * 64, 0, random.OneIn(2) ? 1000 : -1);
                                   test.Start(Opcode::kSend, *socket, 0, 1 << 19);
                                 }
                                 sockaddr_in address;
                                 Handle& accepting = test.Adopt(HandleKind::kListener, Listening(&address, 16), 9);
                                 peers.push_back(Connected(address));
                                 for (int i = 0; i < 3; i++) test.Start(Opcode::kAccept, accepting, 0, 0);
                                 test.Submit();
                                 if (random.OneIn(2)) test.Get(random.OneIn(2) ? 1 : 0, 0);
                                 test.port().Close();
                                 CHECK_EQ(test.port().in_kernel(), 0u);  // sockets alone: all let go at once
                               }
                               for (const int peer : peers) close(peer);
                             }
                             CHECK_EQ(OpenDescriptors(), before);
                           });

static Register two_threads("port/threads", "ports of several threads run side by side, their pools and handles in common",
                            [](const Context& context) {
                              std::vector<std::thread> threads;
                              std::atomic<uint32_t> done{0};
                              const uint32_t rounds = context.Count(2000);
                              for (uint64_t owner = 10; owner < 14; owner++) {
                                threads.emplace_back([owner, rounds, &done] {
                                  TestPortOptions options;
                                  options.owner = owner;
                                  options.disable = "ftruncate";
                                  TestPort test(options);
                                  Handle& zero = test.Adopt(HandleKind::kFile, open("/dev/zero", O_RDONLY | O_CLOEXEC), 1);
                                  Handle& file = test.Adopt(HandleKind::kFile, TempFile(), 2);
                                  for (uint32_t round = 0; round < rounds; round++) {
                                    test.Start(Opcode::kRead, zero, 0, 4096);
                                    if (round % 100 == 0) test.Start(Opcode::kTruncate, file, 0, 0, round);
                                    uint32_t left = round % 100 == 0 ? 2 : 1;
                                    while (left > 0) left -= static_cast<uint32_t>(test.Get(left, 1000).size());
                                    done++;
                                  }
                                });
                              }
                              for (std::thread& thread : threads) thread.join();
                              CHECK_EQ(done.load(), 4 * rounds);
                            });

// As an event loop: enters once for what it starts, and then only when it is called.
static Register refused(
    "port/refused", "what the kernel refused to take for want of memory is begun at last, although the event loop sleeps",
    [](const Context& context) {
      SetRaces(true);
      TestPort test;
      auto [socket, peer] = test.Pair(1);
      const auto enter = [&, port = &test] {
        port->control().enter_flags = kEnterArm | kEnterWantUser;
        port->control().min_complete = 0;
        port->control().max_packets = 16;
        const uint32_t count = port->port().Enter(port->port().first());
        const std::byte* at = port->port().first().block + kControlBytes + kSubmissionsMax * kEntryBytes;
        for (uint32_t i = 0; i < count; i++) {
          CompletionEntry packet;
          std::memcpy(&packet, at + i * kEntryBytes, sizeof(packet));
          port->Delivered(packet);
        }
        return count;
      };
      Random random(context.seed);
      bool slept = false;
      for (uint32_t i = 0; i < context.Count(2'000) && !slept; i++) {
        const uint32_t slot = test.Start(Opcode::kRecv, *socket, 0, 1);
        uint32_t left = 1 - enter();
        const bool cancels = random.OneIn(2);
        if (cancels) {
          test.Cancel(slot);
          if (left > 0) left -= enter();  // a cancel goes with the next call, at the latest at the end of its job
        } else {
          WriteAll(peer, "x", 1);
        }
        while (left > 0 && !slept) {
          pollfd ready = {test.port().notification_fd(), POLLIN, 0};
          slept = poll(&ready, 1, 2000) == 0;
          test.port().ClearNotification();
          left -= enter();
        }
      }
      SetRaces(false);
      close(peer);
      CHECK(!slept);
    },
    On::kUring);

// What is moved at once and what operations move is one stream: a counter's bytes, either way, checked at their other end.
static Register at_once_stream("at-once/stream",
                               "bytes moved at once and by operations, in turns: none lost, doubled or out of order, and none stays behind",
                               [](const Context& context) {
                                 TestPort test;
                                 Random random(context.seed);
                                 auto [socket, peer] = test.Pair(1);
                                 std::vector<std::byte> memory(4096);
                                 const auto value = [](uint64_t at) { return static_cast<std::byte>(at * 31 >> 3); };
                                 uint64_t written = 0, received = 0, sent = 0, read_back = 0, at_once = 0;
                                 const auto expect = [&](const std::byte* data, size_t bytes, uint64_t& from) {
                                   for (size_t i = 0; i < bytes; i++) CHECK(data[i] == value(from + i));
                                   from += bytes;
                                 };
                                 const uint32_t rounds = context.Count(20'000);
                                 for (uint32_t round = 0; round < rounds; round++) {
                                   // To the port. Of what is there by then some is taken at once; the rest, or the wait for it, is an operation's.
                                   const size_t bytes = 1 + random.Below(2048);
                                   for (size_t i = 0; i < bytes; i++) memory[i] = value(written + i);
                                   const bool early = random.OneIn(2);
                                   if (early) WriteAll(peer, memory.data(), bytes);
                                   const bool looks = random.OneIn(2);
                                   const uint32_t slot = test.Start(Opcode::kRecv, *socket, 0, looks ? 0 : 1 + random.Below(512));
                                   test.Submit();
                                   if (!early) {
                                     // Its turn isn't taken from an operation that waits.
                                     if (received == written) CHECK_EQ(test.port().ReceiveNow(*socket, memory), 0u);
                                     WriteAll(peer, memory.data(), bytes);
                                   }
                                   written += bytes;
                                   const CompletionEntry packet = test.GetOne();
                                   CHECK(packet.slot == slot && packet.status == kOk);
                                   CHECK(packet.bytes > 0 || looks);
                                   expect(test.arena(), static_cast<size_t>(packet.bytes), received);
                                   while (received < written && !random.OneIn(4)) {
                                     const uint64_t now = test.port().ReceiveNow(*socket, std::span(memory).first(1 + random.Below(4096)));
                                     if (now == 0) break;  // not every system's loopback has it there at once
                                     at_once += now;
                                     expect(memory.data(), static_cast<size_t>(now), received);
                                   }
                                   // From the port.
                                   const size_t out = 1 + random.Below(2048);
                                   for (size_t i = 0; i < out; i++) test.arena()[4096 + i] = value(sent + i);
                                   uint64_t gone = 0;
                                   if (random.OneIn(2))
                                     gone = test.port().SendNow(
                                         *socket, std::span(test.arena() + 4096, 1 + random.Below(static_cast<uint32_t>(out))));
                                   at_once += gone;
                                   if (gone < out) {
                                     test.Start(Opcode::kSend, *socket, 4096 + gone, out - gone);
                                     const CompletionEntry done = test.GetOne();
                                     CHECK(done.status == kOk && done.bytes == static_cast<double>(out - gone));
                                   }
                                   sent += out;
                                   ReadAll(peer, memory.data(), out);
                                   expect(memory.data(), out, read_back);
                                 }
                                 while (received < written) {
                                   test.Start(Opcode::kRecv, *socket, 0, 4096);
                                   const CompletionEntry packet = test.GetOne();
                                   CHECK(packet.status == kOk && packet.bytes > 0);
                                   expect(test.arena(), static_cast<size_t>(packet.bytes), received);
                                 }
                                 CHECK_EQ(read_back, sent);
                                 CHECK(at_once > 0);
                                 // Nothing is there; then the end, which only an operation tells.
                                 CHECK_EQ(test.port().ReceiveNow(*socket, memory), 0u);
                                 shutdown(peer, SHUT_WR);
                                 test.Start(Opcode::kRecv, *socket, 0, 0);
                                 CHECK_EQ(test.GetOne().status, kOk);
                                 CHECK_EQ(test.port().ReceiveNow(*socket, memory), 0u);
                                 test.Start(Opcode::kRecv, *socket, 0, 16);
                                 const CompletionEntry end = test.GetOne();
                                 CHECK(end.status == kOk && end.bytes == 0);
                                 close(peer);
                               });

static Register at_once_errors("at-once/errors", "an error that a move at once meets is told by the next operation, and by every later one",
                               [](const Context&) {
                                 TestPort test;
                                 std::byte memory[64] = {};
                                 {
                                   auto [socket, peer] = test.Pair(1);
                                   ResetNow(peer);
                                   CHECK_EQ(test.port().ReceiveNow(*socket, memory), 0u);
                                   for (int i = 0; i < 2; i++) {
                                     test.Start(Opcode::kRecv, *socket, 0, 16);
                                     CHECK_EQ(test.GetOne().status, kReset);
                                     CHECK_EQ(test.port().ReceiveNow(*socket, memory), 0u);
                                   }
                                 }
                                 {
                                   auto [socket, peer] = test.Pair(1);
                                   ResetNow(peer);
                                   CHECK_EQ(test.port().SendNow(*socket, memory), 0u);
                                   for (int i = 0; i < 2; i++) {
                                     test.Start(Opcode::kSend, *socket, 0, 16);
                                     const int32_t status = test.GetOne().status;
                                     CHECK(status == kReset || status == static_cast<int32_t>(Status::kEPIPE));
                                     CHECK_EQ(test.port().SendNow(*socket, memory), 0u);
                                   }
                                 }
                                 // A side that was shut moves nothing.
                                 auto [socket, peer] = test.Pair(1);
                                 test.Start(Opcode::kShutdown, *socket, 0, 0, 2);
                                 CHECK_EQ(test.GetOne().status, kOk);
                                 CHECK_EQ(test.port().SendNow(*socket, memory), 0u);
                                 CHECK_EQ(test.port().ReceiveNow(*socket, memory), 0u);
                                 close(peer);
                               });

}  // namespace cp::test
