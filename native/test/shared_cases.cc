// A shared port with many threads: who gets packets, how many run, what is cancelled, closed and left behind. Asserted by invariants, for
// ThreadSanitizer above all: each packet exactly once, never more threads at once than `concurrency`, nothing lost when a thread leaves.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "core/test_hooks.h"
#include "posix/loop_notifier.h"
#include "posix/sockets.h"
#include "test/members.h"

namespace cp::test {

static Register posts("shared/posts",
                      "eight threads, four posters: each packet once, each poster's in order, never more than `concurrency` at once",
                      [](const Context& context) {
                        for (const uint32_t concurrency : {1u, 2u, 4u}) {
                          const uint32_t each = context.Count(20'000);
                          constexpr uint32_t kPosters = 4, kTakers = 8;
                          SharedPort shared(concurrency);
                          std::vector<std::atomic<uint8_t>> seen(kPosters * each);
                          std::atomic<uint32_t> taken{0};
                          std::atomic<int32_t> running{0};
                          Wrong wrong;
                          std::vector<std::thread> threads;
                          for (uint32_t t = 0; t < kTakers; t++)
                            threads.emplace_back([&, t] {
                              Member member(shared.port(), kOwner + t);
                              std::vector<double> last(kPosters, -1);
                              Random random(context.seed + t);
                              while (taken.load() < kPosters * each) {
                                const auto packets = member.Get(1 + random.Below(4), 20);
                                if (packets.empty()) continue;
                                // Between a get that returned with packets and the next: a place.
                                EXPECT(wrong, running.fetch_add(1) < static_cast<int32_t>(concurrency));
                                for (const CompletionEntry& packet : packets) {
                                  const auto poster = static_cast<uint32_t>(packet.operation_id);
                                  EXPECT(wrong, packet.key > last[poster]);
                                  last[poster] = packet.key;
                                  EXPECT(wrong, seen[poster * each + static_cast<uint32_t>(packet.key)].fetch_add(1) == 0);
                                }
                                taken += static_cast<uint32_t>(packets.size());
                                if (random.OneIn(64)) std::this_thread::yield();
                                running--;
                              }
                              member.Leave();
                            });
                          for (uint32_t p = 0; p < kPosters; p++)
                            threads.emplace_back([&, p] {
                              Member member(shared.port(), kOwner + 100 + p);
                              for (uint32_t i = 0; i < each; i++) EXPECT(wrong, member.Post(i, p));
                              member.Leave();
                            });
                          for (std::thread& thread : threads) thread.join();
                          CHECK_NONE(wrong);
                          CHECK_EQ(taken.load(), kPosters * each);
                        }
                      });

static Register lifo("shared/lifo", "blocked threads are released newest first, also after waits of several slices, one for each packet",
                     [](const Context& context) {
                       constexpr uint32_t kThreads = 6;
                       SharedPort shared(kThreads);
                       for (uint32_t round = 0; round < context.Count(20); round++) {
                         std::atomic<uint32_t> order{0};
                         std::vector<uint32_t> got(kThreads, 0);
                         std::vector<std::thread> threads;
                         for (uint32_t t = 0; t < kThreads; t++) {
                           std::atomic<bool> waits{false};
                           threads.emplace_back([&, t] {
                             Member member(shared.port(), kOwner + t);
                             waits = true;
                             const auto packets = member.Get(1, 10'000, 1);
                             got[t] = packets.size() == 1 ? static_cast<uint32_t>(packets[0].key) : 99;
                             order++;
                             member.Leave();
                           });
                           for (;;) {
                             shared.port().WriteStats(shared.first().attachment());
                             if (waits.load() && shared.first().control().stats[kStatWaiting] == t + 1) break;
                             std::this_thread::yield();
                           }
                         }
                         for (uint32_t i = 0; i < kThreads; i++) CHECK(shared.first().Post(i));
                         for (std::thread& thread : threads) thread.join();
                         for (uint32_t t = 0; t < kThreads; t++) CHECK_EQ(got[t], kThreads - 1 - t);
                       }
                       shared.port().WriteStats(shared.first().attachment());
                       CHECK_EQ(shared.first().control().stats[kStatReleases], static_cast<double>(kThreads * context.Count(20)));
                       CHECK_EQ(shared.first().control().stats[kStatRunning], 0.0);
                     });

static Register io("shared/io", "recvs, sends, cancels and timeouts of eight threads: each operation one packet, taken by any of them",
                   [](const Context& context) {
                     constexpr uint32_t kThreads = 8;
                     SharedPort shared(kThreads);
                     const uint32_t rounds = context.Count(4'000);
                     std::atomic<uint64_t> started{0}, ended{0};
                     std::atomic<uint32_t> working{kThreads};
                     Wrong wrong;
                     std::vector<std::thread> threads;
                     for (uint32_t t = 0; t < kThreads; t++) {
                       int pair[2];
                       TcpPair(pair);
                       Handle& socket = shared.Adopt(HandleKind::kSocket, pair[0], t);
                       threads.emplace_back([&, t, peer = pair[1], index = socket.index, generation = socket.last_generation] {
                         Member member(shared.port(), kOwner + t);
                         Random random(context.seed * 31 + t);
                         for (uint32_t i = 0; i < rounds; i++) {
                           uint32_t slot = 0;
                           const bool timed = random.OneIn(16);
                           if (!member.Start(Opcode::kRecv, index, generation, kMemoryArena, t * 4096, 1, t, timed ? 1 : -1, &slot)) {
                             // As many as there may be are in flight, or wait in the queue: somebody has to take them.
                             EXPECT(wrong, member.control().refusal == kRefusalFull);
                             ended += member.Get(8, 1).size();
                             continue;
                           }
                           started++;
                           const bool writes = random.OneIn(2);
                           if (writes) EXPECT(wrong, write(peer, "x", 1) == 1);
                           if (!writes || random.OneIn(4)) member.Cancel(slot);
                           for (const CompletionEntry& packet : member.Get(4, i % 4 == 0 ? 2 : 0)) {
                             ended++;
                             const auto status = static_cast<Status>(packet.status);
                             EXPECT(wrong, status == Status::kOk
                                               ? packet.bytes == 1
                                               : (status == Status::kECANCELED || status == Status::kETIMEDOUT) && packet.bytes == 0);
                             EXPECT(wrong, packet.key == packet.operation_id);
                           }
                         }
                         // A recv that took the byte of its successor has left that without one.
                         EXPECT(wrong, shared.port().CancelHandle(member.attachment(), index, generation, EndedBy::kCancel) >= 0);
                         working--;
                         const double deadline = MonotonicMs() + 10'000;
                         while ((working.load() > 0 || ended.load() < started.load()) && MonotonicMs() < deadline)
                           ended += member.Get(8, 1).size();
                         close(peer);
                         member.Leave();
                       });
                     }
                     for (std::thread& thread : threads) thread.join();
                     CHECK_NONE(wrong);
                     CHECK_EQ(ended.load(), started.load());
                   });

static Register closes("shared/close-handle",
                       "a handle is closed while threads start operations on it: each start is refused or has one packet",
                       [](const Context& context) {
                         constexpr uint32_t kThreads = 6;
                         SharedPort shared(kThreads + 1);
                         const int before = OpenDescriptors();
                         for (uint32_t round = 0; round < context.Count(150); round++) {
                           int pair[2];
                           TcpPair(pair);
                           Handle& socket = shared.Adopt(HandleKind::kSocket, pair[0], 1);
                           const uint32_t index = socket.index, generation = socket.last_generation;
                           std::atomic<uint32_t> started{0}, ended{0}, ready{0};
                           Wrong wrong;
                           std::vector<std::thread> threads;
                           for (uint32_t t = 0; t < kThreads; t++)
                             threads.emplace_back([&, t] {
                               Member member(shared.port(), kOwner + t);
                               ready++;
                               for (;;) {
                                 if (!member.Start(t % 2 == 0 ? Opcode::kRecv : Opcode::kSend, index, generation, kMemoryArena, 0, 16, 7))
                                   break;
                                 started++;
                                 for (const CompletionEntry& packet : member.Get(4, 0)) {
                                   ended++;
                                   EXPECT(wrong, packet.key == 1 && packet.operation_id == 7);
                                 }
                                 if (started.load() - ended.load() > 200) ended += member.Get(8, 1).size();
                               }
                               EXPECT(wrong, member.control().refusal == kRefusalHandle);
                               member.Leave();
                             });
                           while (ready.load() < kThreads) std::this_thread::yield();
                           CHECK(shared.port().CloseHandle(shared.first().attachment(), index, generation, round % 2 == 0));
                           for (std::thread& thread : threads) thread.join();
                           const double deadline = MonotonicMs() + 5'000;
                           while (ended.load() < started.load() && MonotonicMs() < deadline) ended += shared.first().Get(64, 1).size();
                           CHECK_EQ(ended.load(), started.load());
                           CHECK(shared.first().Get(1, 0).empty());
                           CHECK_NONE(wrong);
                           close(pair[1]);
                         }
                         CHECK_EQ(OpenDescriptors(), before);
                       });

static Register leaves("shared/leave",
                       "threads come and go with operations in memory of their own, fenced: no byte is written after they left, and every "
                       "operation has its packet",
                       [](const Context& context) {
                         SharedPort shared(4);
                         int pair[2];
                         TcpPair(pair);
                         Handle& socket = shared.Adopt(HandleKind::kSocket, pair[0], 3);
                         const uint32_t index = socket.index, generation = socket.last_generation;
                         std::atomic<uint32_t> started{0};
                         std::atomic<bool> over{false};
                         CHECK_EQ(posix::SetNonBlocking(pair[1]), 0);
                         std::thread writer([&, peer = pair[1]] {
                           while (!over.load()) {
                             if (write(peer, "y", 1) < 0) std::this_thread::yield();
                           }
                         });
                         Wrong wrong;
                         for (uint32_t round = 0; round < context.Count(400); round++) {
                           std::vector<std::thread> threads;
                           for (uint32_t t = 0; t < 3; t++)
                             threads.emplace_back([&, t] {
                               Fenced own(4096);
                               Member member(shared.port(), kOwner + t);
                               const uint32_t memory = shared.port().RegisterMemory(member.attachment(), own.span());
                               EXPECT(wrong, memory != 0);
                               for (uint32_t i = 0; i <= t; i++) {
                                 if (member.Start(Opcode::kRecv, index, generation, memory, i * 64, 64, 5)) started++;
                               }
                               if (t == 2) member.Get(1, 0).empty() ? void() : void(started--);
                               member.Leave();  // and `own` is unmapped
                             });
                           for (std::thread& thread : threads) thread.join();
                           uint32_t ended = 0;
                           const double deadline = MonotonicMs() + 5'000;
                           while (ended < started.load() && MonotonicMs() < deadline)
                             ended += static_cast<uint32_t>(shared.first().Get(8, 1).size());
                           CHECK_EQ(ended, started.load());
                           started = 0;
                         }
                         over = true;
                         writer.join();
                         CHECK_NONE(wrong);
                         close(pair[1]);
                       });

static Register hand("shared/handed",
                     "a packet that was handed to a thread which leaves without fetching it goes to another, first in line",
                     [](const Context& context) {
                       SharedPort shared(2);
                       for (uint32_t round = 0; round < context.Count(500); round++) {
                         {
                           Member member(shared.port(), kOwner + 1);
                           // A slice of a wait that ends empty: it stands among those that wait.
                           member.control().enter_flags = kEnterWantUser | kEnterGoesOn;
                           member.control().min_complete = 1;
                           member.control().timeout_ms = 0.01;
                           member.control().max_packets = 1;
                           CHECK_EQ(shared.port().Enter(member.attachment()), 0u);
                           CHECK(shared.first().Post(round));
                           CHECK(shared.first().Post(round + 0.5));
                           CHECK(!member.Leave());
                         }
                         const auto packets = shared.first().Get(2, 1'000);
                         CHECK_EQ(packets.size(), size_t{2});
                         CHECK_EQ(packets[0].key, static_cast<double>(round));
                       }
                     });

static Register ends("shared/close", "a close ends every wait, in every thread, while others post and start", [](const Context& context) {
  for (uint32_t round = 0; round < context.Count(60); round++) {
    SharedPort shared(3);
    int pair[2];
    TcpPair(pair);
    Handle& socket = shared.Adopt(HandleKind::kSocket, pair[0], 1);
    const uint32_t index = socket.index, generation = socket.last_generation;
    std::atomic<uint32_t> ready{0};
    Wrong wrong;
    std::vector<std::thread> threads;
    for (uint32_t t = 0; t < 6; t++)
      threads.emplace_back([&, t] {
        Member member(shared.port(), kOwner + t);
        ready++;
        const double deadline = MonotonicMs() + 10'000;
        bool closed = false;
        while (!closed && MonotonicMs() < deadline) {
          if (t < 2) {
            closed = !member.Post(1);
          } else if (t < 4) {
            member.Get(2, 10'000);
            closed = member.closing();
          } else {
            closed = !member.Start(Opcode::kRecv, index, generation, kMemoryArena, 0, 8, 1) && member.closing();
            if (!closed) member.Get(4, 0);
          }
        }
        EXPECT(wrong, closed);
        member.Leave();
      });
    while (ready.load() < 6) std::this_thread::yield();
    shared.port().Close();
    for (std::thread& thread : threads) thread.join();
    CHECK_NONE(wrong);
    close(pair[1]);
  }
});

// The driver dozes while packets wait and operations begin: starts of a thread with more packets before it are left to the end of the doze, or to
// its next call (Port::Postpone). At a random moment of that the thread leaves, the handle or the port is closed.
static Register dozing(
    "shared/dozing", "a thread leaves, a handle or the port is closed, while starts are postponed: each has its packet, no byte comes late",
    [](const Context& context) {
      Random random(context.seed);
      const int before = OpenDescriptors();
      for (uint32_t round = 0; round < context.Count(200); round++) {
        enum What { kLeaves, kStops, kClosesHandle, kClosesPort };
        const auto what = static_cast<What>(round % 4);
        SharedPort shared(4);
        int pair[2];
        TcpPair(pair);
        Handle& socket = shared.Adopt(HandleKind::kSocket, pair[0], 1);
        const uint32_t index = socket.index, generation = socket.last_generation;
        const uint32_t posts = 40;
        for (uint32_t i = 0; i < posts; i++) CHECK(shared.first().Post(i, 99));
        Wrong wrong;
        std::atomic<uint32_t> taken{0};
        uint32_t own_starts = 0, arena_starts = 0;
        const uint32_t pause_us = random.Below(1500), starts = 2 + random.Below(18);
        std::thread thread([&] {
          Fenced own(4096);
          Member member(shared.port(), kOwner + 1);
          const uint32_t memory = shared.port().RegisterMemory(member.attachment(), own.span());
          taken += static_cast<uint32_t>(member.Get(1, 1'000).size());
          EXPECT(wrong, taken.load() == 1);
          for (uint32_t i = 0; i < starts; i++) {
            const bool in_own = i % 2 == 0;
            EXPECT(wrong, member.Start(Opcode::kRecv, index, generation, in_own ? memory : kMemoryArena, 64 * i, 64, in_own ? 1 : 2));
            (in_own ? own_starts : arena_starts)++;
            if (i == 0) SleepMs(0.05);  // the driver has its turn, and dozes
          }
          SleepMs(pause_us / 1e3);
          if (what == kClosesPort) shared.port().Close();
          if (what == kClosesHandle) EXPECT(wrong, shared.port().CloseHandle(member.attachment(), index, generation, false));
          member.Leave();
          // `own` is unmapped
        });
        thread.join();
        CHECK_NONE(wrong);
        if (what == kLeaves || what == kClosesHandle) {
          if (what == kLeaves) {
            // What works in the arena goes on.
            const std::string bytes(64 * arena_starts, 'x');
            WriteAll(pair[1], bytes.data(), bytes.size());
          }
          uint32_t posted = 0, own_ended = 0, arena_ended = 0;
          const double deadline = MonotonicMs() + 5'000;
          const auto over = [&] { return posted == posts - 1 && own_ended == own_starts && arena_ended == arena_starts; };
          while (!over() && MonotonicMs() < deadline)
            for (const CompletionEntry& packet : shared.first().Get(8, 10)) {
              if (packet.kind == static_cast<uint8_t>(Opcode::kPost)) {
                posted++;
                continue;
              }
              CHECK(packet.key == 1);
              if (packet.operation_id == 1) {
                own_ended++;
                CHECK(packet.status == kCanceled && packet.bytes == 0);
              } else {
                arena_ended++;
                if (what == kLeaves) CHECK_EQ(packet.status, kOk);
                if (what == kClosesHandle) CHECK_EQ(packet.status, kCanceled);
              }
            }
          CHECK(over());
        }
        close(pair[1]);
        // And the port stops, within a moment, in each of these states.
      }
      CHECK_EQ(OpenDescriptors(), before);
    });

// Two that notify, so that the second's call falls between the two halves of the clearing that the first one's brought about.
static Register notified("shared/notified", "an event loop hears of everything that is published before a Notify",
                         [](const Context& context) {
                           int error = 0;
                           const std::shared_ptr<posix::LoopNotifier> notifier = posix::LoopNotifier::Create(&error);
                           CHECK(notifier != nullptr);
                           const uint32_t rounds = context.Count(200'000);
                           std::atomic<uint32_t> published{0}, seen{0};
                           std::atomic<bool> lost{false};
                           std::vector<std::thread> threads;
                           for (uint32_t t = 0; t < 2; t++)
                             threads.emplace_back([&] {
                               for (uint32_t i = 0; i < rounds && !lost.load(); i++) {
                                 const uint32_t mine = published.fetch_add(1) + 1;
                                 notifier->Notify();
                                 while (seen.load() < mine && !lost.load()) std::this_thread::yield();
                               }
                             });
                           while (seen.load() < 2 * rounds) {
                             pollfd ready = {notifier->notification_fd(), POLLIN, 0};
                             if (poll(&ready, 1, 5000) == 0) {
                               lost.store(true);
                               break;
                             }
                             notifier->ClearNotification();
                             seen.store(published.load());
                           }
                           for (std::thread& thread : threads) thread.join();
                           CHECK(!lost.load());
                         });

// What a thread sleeps by, and what stands in for the descriptor of its event loop.
struct Bed {
  Bed() {
    int error = 0;
    notifier = posix::LoopNotifier::Create(&error);
    CHECK(notifier != nullptr);
    CHECK(loop.Open());
  }
  std::shared_ptr<posix::LoopNotifier> notifier;
  posix::SignalDescriptor loop;
};

// Sleeps of a few intervals, so that calls fall before, into and behind every one of their steps.
static Register slept("shared/slept",
                      "a thread that sleeps on its condition, or in the kernel, is woken by each Unpark, and leaves it where it has to",
                      [](const Context& context) {
                        Bed bed;
                        const auto& notifier = bed.notifier;
                        posix::SignalDescriptor& loop = bed.loop;
                        std::atomic<uint32_t> published{0}, seen{0}, looks{0};
                        std::atomic<bool> stop{false}, leave{false};
                        struct Asked {
                          std::atomic<uint32_t>& looks;
                          std::atomic<bool>& leave;
                        } asked{looks, leave};
                        std::atomic<uint32_t> left{0};
                        constexpr auto kEvery = std::chrono::milliseconds(1);
                        std::thread thread([&] {
                          const auto must_leave = [](void* data) {
                            static_cast<Asked*>(data)->looks++;
                            return static_cast<Asked*>(data)->leave.load();
                          };
                          notifier->LookAfter(
                              {.must_leave = must_leave, .loop_descriptor = loop.descriptor(), .data = &asked, .every = kEvery});
                          while (!stop.load()) {
                            if (!notifier->Park(30'000)) left++;
                            seen.store(published.load());
                          }
                        });
                        const auto wake = [&](uint32_t mine) {
                          notifier->Unpark();
                          const double deadline = MonotonicMs() + 10'000;
                          while (seen.load() < mine && MonotonicMs() < deadline) std::this_thread::yield();
                          return seen.load() >= mine;
                        };
                        Random random(context.seed);
                        bool woken = true;
                        const uint32_t rounds = context.Count(1000);
                        for (uint32_t i = 1; i <= rounds && woken; i++) {
                          std::this_thread::sleep_for(std::chrono::microseconds(random.Below(2500)));
                          published.store(i);
                          woken = wake(i);
                          if (random.OneIn(16)) loop.Raise();
                        }
                        const uint32_t before = left.load();
                        leave.store(true);
                        loop.Raise();  // as whoever terminates it does
                        const double deadline = MonotonicMs() + 10'000;
                        while (left.load() == before && MonotonicMs() < deadline) std::this_thread::yield();
                        const bool told = left.load() > before;
                        stop.store(true);
                        notifier->Unpark();
                        thread.join();
                        CHECK(woken);
                        CHECK(told);
                        CHECK(looks.load() > 0);
                      });

static Register called(
    "shared/called", "a long sleep without looks ends whenever the thread's event loop is called; where it may not hear of that it looks",
    [](const Context& context) {
      Bed bed;
      const auto& notifier = bed.notifier;
      posix::SignalDescriptor& loop = bed.loop;
      struct Asked {
        std::atomic<uint32_t> looks{0};
        std::atomic<bool> called{false};
      } asked;
      const auto look = [](void* data) {
        static_cast<Asked*>(data)->looks++;
        return false;
      };
      const auto is_called = [](void* data) { return static_cast<Asked*>(data)->called.load(); };
      notifier->LookAfter({.must_leave = look,
                           .loop_descriptor = loop.descriptor(),
                           .is_called = is_called,
                           .data = &asked,
                           .every = std::chrono::milliseconds(5)});
      // The first look, and few where the time ends, or every 25 looks' time before that; there would be 60.
      for (const double end = MonotonicMs() + 300; MonotonicMs() < end;) notifier->Park(end - MonotonicMs());
      CHECK(asked.looks.load() <= 12);
      // Into a sleep that looks no more, again and again; the descriptor stays readable from the first on.
      Random random(context.seed);
      for (uint32_t i = 0; i < 5; i++) {
        std::atomic<bool> raised{false};
        std::thread caller([&, ms = 200 + random.Below(100)] {
          SleepMs(ms);
          raised.store(true);
          loop.Raise();
        });
        const double deadline = MonotonicMs() + 20'000;
        bool left = false;
        while (!(left && raised.load()) && MonotonicMs() < deadline) left = !notifier->Park(5'000);
        caller.join();
        CHECK(left);
      }
      // Whoever sends again wouldn't be heard: it looks, and every 25 looks' time it leaves for all else.
      asked.called.store(true);
      asked.looks.store(0);
      for (uint32_t i = 0; i < 10 && asked.looks.load() < 25; i++) CHECK(!notifier->Park(60'000));
      CHECK(asked.looks.load() >= 10);
    },
    On::kUring);

// The driver sleeps in the kernel as soon as nothing stands in the CQ, so what another thread takes out of it just before must leave the driver
// nothing to do without calling it: a cancel that has to be asked again, the time that the driver has set itself. One thread starts recvs and
// cancels them, or lets their time run out; one posts, and reaps with that; one takes the packets, so that the posts call nobody.
static void TakenBeforeItSleeps(const Context& context, const std::string& disable) {
  SetRaces(true);
  SharedPort shared(8, 512, 64, disable);
  int pair[2];
  TcpPair(pair);
  Handle& socket = shared.Adopt(HandleKind::kSocket, pair[0], 1);
  std::atomic<uint32_t> ended{0};
  std::atomic<bool> stop{false};
  Wrong wrong;
  std::thread taker([&] {
    Member member(shared.port(), kOwner + 1);
    while (!stop.load())
      for (const CompletionEntry& packet : member.Get(1, 20)) ended += packet.kind == static_cast<uint8_t>(Opcode::kPost) ? 0u : 1u;
    member.Leave();
  });
  std::thread poster([&] {
    Member member(shared.port(), kOwner + 2);
    while (!stop.load()) {
      shared.port().WriteStats(member.attachment());
      if (member.control().stats[kStatWaiting] == 1) EXPECT(wrong, member.Post(1));
      std::this_thread::yield();
    }
    member.Leave();
  });
  Random random(context.seed);
  Member& first = shared.first();
  for (uint32_t i = 1; i <= context.Count(500); i++) {
    uint32_t slot = 0;
    const bool timed = random.OneIn(4);
    EXPECT(wrong, first.Start(Opcode::kRecv, socket.index, socket.last_generation, kMemoryArena, 0, 8, 1, timed ? 1 : -1, &slot));
    if (!timed) EXPECT(wrong, first.Cancel(slot));
    const double deadline = MonotonicMs() + 5'000;
    while (ended.load() < i && MonotonicMs() < deadline) std::this_thread::yield();
    EXPECT(wrong, ended.load() == i);
    if (wrong.what.load() != nullptr) break;
  }
  stop = true;
  taker.join();
  poster.join();
  SetRaces(false);
  close(pair[1]);
  CHECK_NONE(wrong);
}

static Register taken(
    "shared/taken-early", "what another thread takes out of the CQ before the driver sleeps leaves nothing undone",
    [](const Context& context) { TakenBeforeItSleeps(context, ""); }, On::kUring);
static Register taken_old(
    "shared/taken-early-old", "the same on a kernel without EXT_ARG and deferred task work",
    [](const Context& context) { TakenBeforeItSleeps(context, "ext_arg,single_issuer,taskrun_flag"); }, On::kUring);

}  // namespace cp::test
