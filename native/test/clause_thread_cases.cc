// Clauses about a shared port: who gets packets, how many threads run, what a thread's end and a close do. One rule a case; the same under load is
// in shared_cases.cc. Where a thread must not be released, that is looked at for kQuietMs; where it must, there is kPatienceMs for a busy machine.
#include <fcntl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <set>
#include <thread>

#include "test/members.h"

namespace cp::test {

namespace {

constexpr double kQuietMs = 30;
constexpr double kPatienceMs = 10'000;

// A thread with a place of its own at the port.
class Thread {
 public:
  template <typename Run>
  Thread(SharedPort& shared, uint64_t owner, Run run)
      : thread_([&shared, owner, run] {
          Member member(shared.port(), owner);
          CHECK(member.in());
          run(member);
          if (member.in()) member.Leave();
        }) {}
  ~Thread() { thread_.join(); }

 private:
  std::thread thread_;
};

// Another thread does something while this one, which may have a place, computes: if it slept while packets wait, its place would be lent
// (CONC-06).
template <typename Run>
void Elsewhere(SharedPort& shared, uint64_t owner, Run run) {
  std::atomic<bool> over{false};
  Thread other(shared, owner, [&](Member& member) {
    run(member);
    over = true;
  });
  while (!over.load()) {
  }
}

template <typename Condition>
bool Eventually(Condition&& condition) {
  for (const double until = MonotonicMs() + kPatienceMs; MonotonicMs() < until; SleepMs(0.2))
    if (condition()) return true;
  return condition();
}

double StatOf(SharedPort& shared, Stat stat) {
  shared.port().WriteStats(shared.first().attachment());
  return shared.first().control().stats[stat];
}
void AwaitWaiting(SharedPort& shared, uint32_t count) {
  CHECK(Eventually([&] { return StatOf(shared, kStatWaiting) == count; }));
}

// A packet, or the case fails.
CompletionEntry One(Member& member) {
  const std::vector<CompletionEntry> packets = member.Get(1, kPatienceMs);
  CHECK_EQ(packets.size(), size_t{1});
  return packets[0];
}

std::pair<Handle*, int> Pair(SharedPort& shared, double key) {
  int pair[2];
  TcpPair(pair);
  return {&shared.Adopt(HandleKind::kSocket, pair[0], key), pair[1]};
}

bool Recv(Member& member, const Handle& socket, uint64_t offset, double id, uint32_t memory = kMemoryArena) {
  return member.Start(Opcode::kRecv, socket.index, socket.last_generation, memory, offset, 16, id);
}

}  // namespace

CASE(Get04, "GET-04", "a get that waits is ended by a packet that any thread posts, at once") {
  SharedPort shared(2);
  double taken_at = 0;
  double posted_at;
  {
    Thread waiter(shared, kOwner + 1, [&](Member& member) {
      CHECK_EQ(One(member).key, 5.0);
      taken_at = MonotonicMs();
    });
    AwaitWaiting(shared, 1);
    posted_at = MonotonicMs();
    CHECK(shared.first().Post(5));
  }
  CHECK(taken_at - posted_at < 1'000);
}

CASE(Get06, "GET-06", "a packet goes to exactly one get, whoever waits") {
  SharedPort shared(4);
  const uint32_t count = context.Count(2000);
  std::vector<std::atomic<uint32_t>> seen(count);
  std::atomic<uint32_t> taken{0};
  {
    std::vector<std::unique_ptr<Thread>> threads;
    for (uint32_t t = 0; t < 6; t++)
      threads.push_back(std::make_unique<Thread>(shared, kOwner + t, [&, t](Member& member) {
        while (taken.load() < count)
          for (const CompletionEntry& packet : member.Get(1 + t, t % 2 == 0 ? 0 : 20)) {
            seen[static_cast<uint32_t>(packet.key)]++;
            taken++;
          }
      }));
    for (uint32_t i = 0; i < count; i++) CHECK(shared.first().Post(i));
  }
  for (const auto& each : seen) CHECK_EQ(each.load(), 1u);
}

CASE(Get09, "GET-09", "as many run as may: packets are queued, and a get without time has none") {
  SharedPort shared(1);
  CHECK(shared.first().Post(1) && shared.first().Post(2));
  CHECK_EQ(One(shared.first()).key, 1.0);
  Elsewhere(shared, kOwner + 1, [](Member& member) { CHECK(member.Get(8, 0).empty()); });
}

CASE(Ex03, "EX-03", "the packets of one get belong to the thread that called it, in the queue's order") {
  SharedPort shared(2);
  for (int i = 0; i < 10; i++) CHECK(shared.first().Post(i));
  const std::vector<CompletionEntry> mine = shared.first().Get(4, 0);
  std::vector<CompletionEntry> theirs;
  {
    Thread other(shared, kOwner + 1, [&](Member& member) { theirs = member.Get(100, 0); });
  }
  CHECK(mine.size() == 4 && theirs.size() == 6);
  for (size_t i = 0; i < 10; i++) CHECK_EQ((i < 4 ? mine[i] : theirs[i - 4]).key, static_cast<double>(i));
}

CASE(Post03, "POST-03", "a post reaches a port at which every thread waits in a blocking get") {
  SharedPort shared(3);
  std::atomic<uint32_t> got{0};
  std::vector<std::unique_ptr<Thread>> threads;
  for (uint32_t t = 0; t < 3; t++)
    threads.push_back(std::make_unique<Thread>(shared, kOwner + t, [&](Member& member) {
      One(member);
      got++;
    }));
  AwaitWaiting(shared, 3);
  Thread poster(shared, kOwner + 9, [](Member& member) {
    for (int i = 0; i < 3; i++) CHECK(member.Post(i));
  });
  CHECK(Eventually([&] { return got.load() == 3; }));
}

CASE(Post05, "POST-05", "posts of other threads while the port closes succeed or are refused; behind the close all are refused") {
  for (uint32_t round = context.Count(20); round > 0; round--) {
    SharedPort shared(2);
    std::atomic<uint32_t> posting{0};
    std::vector<std::unique_ptr<Thread>> threads;
    for (uint32_t t = 0; t < 3; t++)
      threads.push_back(std::make_unique<Thread>(shared, kOwner + t, [&](Member& member) {
        posting++;
        while (member.Post(1)) {
        }
        for (int i = 0; i < 10; i++) CHECK(!member.Post(2));
      }));
    CHECK(Eventually([&] { return posting.load() == 3; }));
    shared.port().Close();
  }
}

CASE(Order02, "ORDER-02", "each thread's posts keep their order among those of others") {
  SharedPort shared(1);
  constexpr uint32_t kPosters = 4;
  const uint32_t each = context.Count(2000);
  std::vector<std::unique_ptr<Thread>> threads;
  for (uint32_t t = 0; t < kPosters; t++)
    threads.push_back(std::make_unique<Thread>(shared, kOwner + t, [&, t](Member& member) {
      for (uint32_t i = 0; i < each; i++) CHECK(member.Post(i, t));
    }));
  std::vector<double> next(kPosters, 0);
  for (uint32_t taken = 0; taken < kPosters * each;) {
    const std::vector<CompletionEntry> packets = shared.first().Get(64, kPatienceMs);
    CHECK(!packets.empty());
    for (const CompletionEntry& packet : packets) CHECK_EQ(packet.key, next[static_cast<size_t>(packet.operation_id)]++);
    taken += static_cast<uint32_t>(packets.size());
  }
}

CASE(Flush01Shared, "FLUSH-01/shared", "a start on a shared port is under way at once, whatever its thread does then") {
  SharedPort shared(2);
  auto [socket, peer] = Pair(shared, 1);
  std::memset(shared.arena(), 's', 100);
  CHECK(shared.first().Start(Opcode::kSend, socket->index, socket->last_generation, kMemoryArena, 0, 100, 1));
  char got[100];
  ReadAll(peer, got, 100);
  CHECK(got[0] == 's' && got[99] == 's');
  CHECK_EQ(One(shared.first()).bytes, 100.0);
}

// ---- concurrency ------------------------------------------------------------------------------------------------------------

CASE(Conc01, "CONC-01", "waiting threads are released last in, first out, also behind waits of several slices") {
  constexpr uint32_t kThreads = 4;
  SharedPort shared(kThreads);
  std::vector<double> got(kThreads, -1);
  {
    std::vector<std::unique_ptr<Thread>> threads;
    for (uint32_t t = 0; t < kThreads; t++) {
      threads.push_back(std::make_unique<Thread>(shared, kOwner + t, [&got, t](Member& member) {
        const std::vector<CompletionEntry> packets = member.Get(1, kPatienceMs, 2);
        if (!packets.empty()) got[t] = packets[0].key;
      }));
      AwaitWaiting(shared, t + 1);
    }
    SleepMs(10);
    for (uint32_t i = 0; i < kThreads; i++) CHECK(shared.first().Post(i));
  }
  for (uint32_t t = 0; t < kThreads; t++) CHECK_EQ(got[t], static_cast<double>(kThreads - 1 - t));
  CHECK_EQ(StatOf(shared, kStatReleases), static_cast<double>(kThreads));  // nobody was woken for nothing
}

// Threads take packets and compute; never do more than `limit` at once.
static void NeverMore(const Context& context, uint32_t limit) {
  SharedPort shared(limit);
  const uint32_t count = context.Count(1000);
  std::atomic<uint32_t> taken{0}, most{0};
  std::atomic<uint32_t> running{0};
  std::vector<std::unique_ptr<Thread>> threads;
  for (uint32_t t = 0; t < 4; t++)
    threads.push_back(std::make_unique<Thread>(shared, kOwner + t, [&, t](Member& member) {
      Random random(context.seed + t);
      while (taken.load() < count) {
        if (member.Get(1, 5).empty()) continue;
        const uint32_t now = running.fetch_add(1) + 1;
        for (uint32_t old = most.load(); now > old && !most.compare_exchange_weak(old, now);) {
        }
        for (uint32_t spin = random.Below(20'000); spin > 0; spin--) std::atomic_signal_fence(std::memory_order_seq_cst);
        taken++;
        running--;
      }
    }));
  for (uint32_t i = 0; i < count; i++) CHECK(shared.first().Post(i));
  CHECK(Eventually([&] { return taken.load() == count; }));
  threads.clear();
  CHECK(most.load() >= 1 && most.load() <= limit);
}
CASE(Conc02, "CONC-02", "with concurrency 1 and four waiting threads packets are handled one at a time") { NeverMore(context, 1); }
CASE(Conc03, "CONC-03", "no thread is released while as many run as may, of 2 and of 4") {
  NeverMore(context, 2);
  NeverMore(context, 4);
}

CASE(Conc04, "CONC-04", "a thread that calls get while packets wait takes one, although others wait") {
  SharedPort shared(1);
  std::atomic<bool> over{false};
  double got = 0;
  {
    CHECK(shared.first().Post(1));
    CHECK_EQ(One(shared.first()).key, 1.0);
    Thread waiter(shared, kOwner + 1, [&](Member& member) {
      got = One(member).key;
      CHECK(over.load());
    });
    AwaitWaiting(shared, 1);
    for (int i = 2; i < 50; i++) {
      CHECK(shared.first().Post(i));
      CHECK_EQ(shared.first().Get(1, 0).size(), size_t{1});
    }
    over = true;
    CHECK(shared.first().Post(99));
    shared.port().EndJob(shared.first().attachment(), true);
  }
  CHECK_EQ(got, 99.0);
}

namespace {

// The one place of a port is `runner`'s, who has taken a packet: another waits for the next one, and is kept out.
struct KeptOut {
  KeptOut(SharedPort& shared, Member& runner) {
    CHECK(shared.first().Post(1));
    One(runner);
    waiter = std::make_unique<Thread>(shared, kOwner + 2, [this](Member& member) {
      One(member);
      got = true;
    });
    AwaitWaiting(shared, 1);
    CHECK(shared.first().Post(2));
  }
  // Computing, not sleeping: a thread that sleeps is noticed on Linux (CONC-06).
  void Compute() const {
    for (const double until = MonotonicMs() + kQuietMs; MonotonicMs() < until;) CHECK(!got.load());
  }

  std::atomic<bool> got{false};
  std::unique_ptr<Thread> waiter;
};

}  // namespace

CASE(Conc05, "CONC-05", "a thread that says that it blocks frees its place until it says that it goes on") {
  SharedPort shared(1);
  KeptOut kept(shared, shared.first());
  kept.Compute();
  shared.port().BeginBlocking(shared.first().attachment());
  CHECK(Eventually([&] { return kept.got.load(); }));
  shared.port().EndBlocking(shared.first().attachment());
}

#if defined(CP_BACKEND_LINUX)
// What a thread of this process does isn't known on macOS and FreeBSD yet (native/mac/thread_sample.cc).
CASE(Conc06, "CONC-06", "a thread that sleeps in the kernel without saying so is noticed while packets wait") {
  SharedPort shared(1);
  KeptOut kept(shared, shared.first());
  const double started = MonotonicMs();
  while (!kept.got.load() && MonotonicMs() - started < kPatienceMs) SleepMs(60);
  CHECK(kept.got.load());
}
#endif

CASE(Conc07, "CONC-07", "a thread that leaves frees its place at once") {
  SharedPort shared(1);
  Member leaving(shared.port(), kOwner + 1);
  KeptOut kept(shared, leaving);
  kept.Compute();
  CHECK(!leaving.Leave());
  CHECK(Eventually([&] { return kept.got.load(); }));
}

CASE(Conc08, "CONC-08", "a get that returned nothing counts its thread") {
  SharedPort shared(1);
  CHECK(shared.first().Get(1, 0).empty());
  CHECK_EQ(StatOf(shared, kStatRunning), 1.0);
  CHECK(shared.first().Post(1));
  Elsewhere(shared, kOwner + 1, [](Member& member) { CHECK(member.Get(1, 0).empty()); });
  CHECK_EQ(One(shared.first()).key, 1.0);
}

CASE(Conc09, "CONC-09", "what an event loop received has its place until the end of the job") {
  SharedPort shared(1);
  Member& loop = shared.first();
  CHECK(loop.Post(1) && loop.Post(2));
  loop.control().enter_flags = kEnterWantUser | kEnterJob;
  loop.control().min_complete = 0;
  loop.control().max_packets = 1;
  CHECK_EQ(shared.port().Enter(loop.attachment()), 1u);
  loop.control().unseen = 0;
  Elsewhere(shared, kOwner + 1, [](Member& member) { CHECK(member.Get(1, 0).empty()); });
  shared.port().EndJob(loop.attachment(), false);
  CHECK_EQ(StatOf(shared, kStatRunning), 0.0);
  Thread other(shared, kOwner + 2, [](Member& member) { CHECK_EQ(member.Get(1, 0).size(), size_t{1}); });
}

// ---- threads ----------------------------------------------------------------------------------------------------------------

CASE(Thread01, "THREAD-01", "what one thread started another dequeues: named by its id, and marked as another's") {
  SharedPort shared(2);
  auto [socket, peer] = Pair(shared, 6);
  CHECK(Recv(shared.first(), *socket, 0, 4711));
  Thread taker(shared, kOwner + 1, [&, fd = peer](Member& member) {
    WriteAll(fd, "abc", 3);
    const CompletionEntry packet = One(member);
    CHECK(packet.operation_id == 4711 && packet.key == 6 && packet.bytes == 3);
    CHECK((packet.flags & kCompletionForeign) != 0);
  });
}

CASE(Thread02, "THREAD-02", "the starter computes: its operations complete elsewhere meanwhile") {
  SharedPort shared(2);
  auto [socket, peer] = Pair(shared, 1);
  std::atomic<bool> got{false};
  Thread taker(shared, kOwner + 1, [&](Member& member) {
    One(member);
    got = true;
  });
  CHECK(Recv(shared.first(), *socket, 0, 1));
  WriteAll(peer, "x", 1);
  // No call of the port, no sleep.
  const double until = MonotonicMs() + kPatienceMs;
  while (!got.load() && MonotonicMs() < until) {
  }
  CHECK(got.load());
}

CASE(Thread03, "THREAD-03", "eight threads post and read at one port: each packet exactly once") {
  SharedPort shared(8);
  const uint32_t each = context.Count(1000);
  std::atomic<uint32_t> posts{0}, reads{0};
  Handle& zero = shared.Adopt(HandleKind::kFile, open("/dev/zero", O_RDONLY | O_CLOEXEC), 1);
  {
    std::vector<std::unique_ptr<Thread>> threads;
    for (uint32_t t = 0; t < 8; t++)
      threads.push_back(std::make_unique<Thread>(shared, kOwner + t, [&](Member& member) {
        const auto take = [&](double timeout) {
          for (const CompletionEntry& packet : member.Get(8, timeout)) {
            CHECK_EQ(packet.status, kOk);
            (packet.kind == 0 ? posts : reads)++;
          }
        };
        for (uint32_t i = 0; i < each; i++) {
          CHECK(member.Post(i));
          while (!member.Start(Opcode::kRead, zero.index, zero.last_generation, kMemoryArena, 0, 64, 1)) take(1);
          take(0);
        }
        const double until = MonotonicMs() + kPatienceMs;
        while (posts.load() + reads.load() < 16 * each && MonotonicMs() < until) take(1);
      }));
  }
  CHECK_EQ(posts.load(), 8 * each);
  CHECK_EQ(reads.load(), 8 * each);
  CHECK(shared.first().Get(8, 0).empty());
}

CASE(Thread04, "THREAD-04",
     "a thread's end cancels what uses its own memory, with a packet each; what uses the arena goes on, and other threads' does") {
  SharedPort shared(2);
  auto [socket, peer] = Pair(shared, 1);
  auto [others, others_peer] = Pair(shared, 2);
  CHECK(Recv(shared.first(), *others, 512, 30));
  {
    Thread leaving(shared, kOwner + 1, [&, to = socket](Member& member) {
      Fenced own(4096);
      const uint32_t memory = shared.port().RegisterMemory(member.attachment(), own.span());
      CHECK(Recv(member, *to, 0, 10) && Recv(member, *to, 0, 11, memory) && Recv(member, *to, 64, 12, memory));
      member.Leave();
    });
  }
  std::set<double> canceled;
  for (int i = 0; i < 2; i++) {
    const CompletionEntry packet = One(shared.first());
    CHECK_EQ(packet.status, kCanceled);
    canceled.insert(packet.operation_id);
  }
  CHECK(canceled == (std::set<double>{11, 12}));
  CHECK(shared.first().Get(8, 10).empty());
  WriteAll(peer, "x", 1);
  CHECK_EQ(One(shared.first()).operation_id, 10.0);
  WriteAll(others_peer, "x", 1);
  CHECK_EQ(One(shared.first()).operation_id, 30.0);
}

CASE(Buf07, "BUF-07", "a thread's memory is unmapped behind its end, while data for its operations arrives: nothing is written there") {
  SharedPort shared(2);
  for (uint32_t round = context.Count(50); round > 0; round--) {
    auto [socket, peer] = Pair(shared, 1);
    {
      Thread leaving(shared, kOwner + 1, [&, to = socket](Member& member) {
        Fenced own(4096);
        const uint32_t memory = shared.port().RegisterMemory(member.attachment(), own.span());
        for (uint32_t i = 0; i < 4; i++) CHECK(Recv(member, *to, i * 64, i, memory));
        member.Leave();  // `own` is unmapped behind it
      });
      for (int i = 0; i < 10; i++) WriteAll(peer, "0123456789", 10);
    }
    for (int i = 0; i < 4; i++) {
      const CompletionEntry packet = One(shared.first());
      CHECK(packet.status == kOk ? packet.bytes > 0 : packet.status == kCanceled);
    }
    CHECK(shared.port().CloseHandle(shared.first().attachment(), socket->index, socket->last_generation, true));
    close(peer);
  }
}

CASE(Thread08, "THREAD-08", "the port outlives the thread that made it, and ends with the last") {
  PortOptions options;
  options.shared = true;
  options.max_operations = 16;
  CreateError error;
  const std::unique_ptr<Port> port = MakePort(options, &error);
  CHECK(port != nullptr);
  Member creator(*port, kOwner), second(*port, kOwner + 1), third(*port, kOwner + 2);
  CHECK(!creator.Leave());
  CHECK(second.Post(5));
  CHECK_EQ(One(third).key, 5.0);
  CHECK(!second.Leave());
  CHECK(third.Leave());
  port->Stop();
  CHECK(port->Closed());
}

CASE(Thread09, "THREAD-09", "a connection is accepted in one thread, read in a second, answered in a third, its buffer in the arena") {
  SharedPort shared(3);
  sockaddr_in address;
  Handle& listener = shared.Adopt(HandleKind::kListener, Listening(&address), 1);
  CHECK(shared.first().Start(Opcode::kAccept, listener.index, listener.last_generation, kMemoryArena, 0, 0, 1));
  const int client = Connected(address);
  Handle* made = nullptr;
  {
    Thread accepts(shared, kOwner + 1, [&](Member& member) {
      made = &TestPort::Made(One(member));
      CHECK_EQ(shared.port().Associate(*made, 7), 0);
      CHECK(Recv(member, *made, 128, 2));
    });
  }
  WriteAll(client, "ping", 4);
  {
    Thread reads(shared, kOwner + 2, [&](Member& member) {
      const CompletionEntry packet = One(member);
      CHECK(packet.key == 7 && packet.bytes == 4);
      CHECK(member.Start(Opcode::kSend, made->index, made->last_generation, kMemoryArena, 128, 4, 3));
    });
  }
  {
    Thread answers(shared, kOwner + 3, [&](Member& member) { CHECK_EQ(One(member).operation_id, 3.0); });
  }
  char back[4];
  ReadAll(client, back, 4);
  CHECK(std::memcmp(back, "ping", 4) == 0);
}

// One call of a thread, which is then ended before it looks at what that brought, or comes for what it was handed.
static uint32_t EnterBlindly(Member& member, uint32_t flags, double timeout_ms) {
  member.control().enter_flags = kEnterWantUser | flags;
  member.control().min_complete = timeout_ms > 0 ? 1 : 0;
  member.control().timeout_ms = timeout_ms;
  member.control().max_packets = 1;
  return member.port().Enter(member.attachment());
}

CASE(Thread05Handed, "THREAD-05",
     "a packet that was handed to a thread which ends before it comes for it is the next thread's, at its old place") {
  SharedPort shared(2);
  Member brief(shared.port(), kOwner + 1);
  CHECK_EQ(EnterBlindly(brief, kEnterGoesOn, 1), 0u);
  CHECK_EQ(StatOf(shared, kStatWaiting), 1.0);
  CHECK(shared.first().Post(7) && shared.first().Post(8));
  CHECK_EQ(StatOf(shared, kStatWaiting), 0.0);
  brief.Leave();
  CHECK_EQ(One(shared.first()).key, 7.0);
  CHECK_EQ(One(shared.first()).key, 8.0);
}

CASE(Thread05Unseen, "THREAD-05", "so it is with one that its get has returned and nobody has looked at, and with no other") {
  SharedPort shared(2);
  for (double key = 1; key <= 4; key++) CHECK(shared.first().Post(key));
  Member brief(shared.port(), kOwner + 1);
  CHECK_EQ(EnterBlindly(brief, kEnterJob, 0), 1u);
  brief.control().unseen = 0;
  // More for the same job, which has seen the first.
  CHECK_EQ(EnterBlindly(brief, kEnterJob | kEnterMore, 0), 1u);
  brief.Leave();
  for (double key = 2; key <= 4; key++) CHECK_EQ(One(shared.first()).key, key);
  CHECK(shared.first().Get(1, 0).empty());
}

CASE(Thread10, "THREAD-10", "slot and room of an operation that was dequeued elsewhere become free for its starter") {
  SharedPort shared(2, 4);
  Handle& zero = shared.Adopt(HandleKind::kFile, open("/dev/zero", O_RDONLY | O_CLOEXEC), 1);
  for (int round = 0; round < 20; round++) {
    for (int i = 0; i < 4; i++) CHECK(shared.first().Start(Opcode::kRead, zero.index, zero.last_generation, kMemoryArena, 0, 64, i));
    Thread taker(shared, kOwner + 1, [](Member& member) {
      for (int i = 0; i < 4; i++) CHECK_EQ(One(member).bytes, 64.0);
    });
  }
}

CASE(Thread11, "THREAD-11", "threads that come and go leave no descriptor and no place") {
  SharedPort shared(2);
  const int before = OpenDescriptors();
  for (uint32_t round = context.Count(200); round > 0; round--)
    Thread brief(shared, kOwner + round, [](Member& member) { CHECK(member.Post(1)); });
  CHECK_EQ(OpenDescriptors(), before);
  CHECK_EQ(StatOf(shared, kStatThreads), 1.0);
  CHECK_EQ(StatOf(shared, kStatRunning), 0.0);
}

CASE(Thread12, "THREAD-12", "a call that sleeps in an attached thread isn't interrupted by what the port does") {
  SharedPort shared(4);
  std::atomic<bool> over{false};
  Thread sleeper(shared, kOwner + 1, [&](Member& member) {
    member.Get(1, 0);  // from here on it has a place
    while (!over.load()) {
      const timespec span = {0, 5'000'000};
      CHECK_EQ(nanosleep(&span, nullptr), 0);
    }
  });
  Thread taker(shared, kOwner + 2, [&](Member& member) {
    while (!over.load()) member.Get(8, 1);
  });
  auto [socket, peer] = Pair(shared, 1);
  for (int i = 0; i < 200; i++) {
    CHECK(shared.first().Post(1));
    if (Recv(shared.first(), *socket, 0, 1)) WriteAll(peer, "x", 1);
    shared.first().Get(8, 0.2);
  }
  over = true;
}

CASE(Thread13, "THREAD-13", "what was written before a post is seen by the thread that dequeues it") {
  SharedPort shared(2);
  const uint32_t count = context.Count(5000);
  std::vector<uint32_t> plain(count, 0);  // not atomic: the port alone orders it
  Thread writer(shared, kOwner + 1, [&](Member& member) {
    for (uint32_t i = 0; i < count; i++) {
      plain[i] = i + 1;
      CHECK(member.Post(i));
    }
  });
  for (uint32_t taken = 0; taken < count;) {
    const std::vector<CompletionEntry> packets = shared.first().Get(16, kPatienceMs);
    CHECK(!packets.empty());
    for (const CompletionEntry& packet : packets) {
      const auto i = static_cast<uint32_t>(packet.key);
      CHECK_EQ(plain[i], i + 1);
      taken++;
    }
  }
}

CASE(Op04, "OP-04", "as many operations as may be are in flight: one more is refused; behind each packet there is room again") {
  SharedPort shared(2, 4);
  auto [socket, peer] = Pair(shared, 1);
  for (uint32_t i = 0; i < 4; i++) CHECK(Recv(shared.first(), *socket, i * 64, i));
  {
    // Over before the first packet makes room.
    Thread other(shared, kOwner + 1, [&, to = socket](Member& member) {
      CHECK(!Recv(member, *to, 512, 9));
      CHECK_EQ(member.control().refusal, static_cast<uint32_t>(kRefusalFull));
    });
  }
  for (int i = 0; i < 50; i++) {
    WriteAll(peer, "x", 1);
    CHECK_EQ(One(shared.first()).bytes, 1.0);
    CHECK(Recv(shared.first(), *socket, 0, 5));
  }
}

// ---- close ------------------------------------------------------------------------------------------------------------------

CASE(Close01, "CLOSE-01", "a close ends every wait, in every thread") {
  SharedPort shared(2);
  std::atomic<uint32_t> ended{0};
  std::vector<std::unique_ptr<Thread>> threads;
  for (uint32_t t = 0; t < 4; t++)
    threads.push_back(std::make_unique<Thread>(shared, kOwner + t, [&](Member& member) {
      CHECK(member.Get(1, 60'000, 60'000).empty());
      CHECK(member.closing());
      ended++;
    }));
  AwaitWaiting(shared, 4);
  const double started = MonotonicMs();
  shared.port().Close();
  CHECK(Eventually([&] { return ended.load() == 4; }));
  CHECK(MonotonicMs() - started < 2'000);
}

CASE(Close05, "CLOSE-05", "a handle closes while threads start operations on it: each start is refused or has one packet") {
  constexpr uint32_t kThreads = 4;
  SharedPort shared(kThreads + 1);
  for (uint32_t round = context.Count(20); round > 0; round--) {
    auto [socket, peer] = Pair(shared, 1);
    const uint32_t index = socket->index, generation = socket->last_generation;
    std::atomic<uint32_t> started{0}, ended{0}, ready{0};
    {
      std::vector<std::unique_ptr<Thread>> threads;
      for (uint32_t t = 0; t < kThreads; t++)
        threads.push_back(std::make_unique<Thread>(shared, kOwner + t, [&](Member& member) {
          ready++;
          while (member.Start(Opcode::kRecv, index, generation, kMemoryArena, 0, 16, 7) || member.control().refusal == kRefusalFull) {
            if (member.control().refusal != kRefusalFull) started++;
            ended += static_cast<uint32_t>(member.Get(8, 0).size());
          }
          CHECK_EQ(member.control().refusal, static_cast<uint32_t>(kRefusalHandle));
        }));
      CHECK(Eventually([&] { return ready.load() == kThreads; }));
      CHECK(shared.port().CloseHandle(shared.first().attachment(), index, generation, false));
    }
    CHECK(Eventually([&] {
      ended += static_cast<uint32_t>(shared.first().Get(64, 0).size());
      return ended.load() >= started.load();
    }));
    CHECK_EQ(ended.load(), started.load());
    CHECK(shared.first().Get(8, 0).empty());
    close(peer);
  }
}

}  // namespace cp::test
