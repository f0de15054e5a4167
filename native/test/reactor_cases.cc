// The reactor by itself: events that come for nothing, descriptors that change hands, a disk that stands still, handles that are always ready,
// peers that reset. What it shares with io_uring is in port_cases.cc and shared_cases.cc.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "core/file_pool.h"
#include "core/test_hooks.h"
#include "posix/reactor_port.h"
#include "posix/sockets.h"
#include "test/harness.h"

#if defined(CP_KQUEUE_SHIM)
extern "C" void kqueue_shim_refuse(uint32_t one_in);  // test/kqueue-shim/kqueue_shim.h
#endif

namespace cp::test {

namespace {

// A poller that lies: before its own events it tells of readiness that isn't there, of every token that it has seen, open or closed.
class NoisyPoller final : public posix::Poller {
 public:
  explicit NoisyPoller(std::unique_ptr<posix::Poller> real) : real_(std::move(real)) {}
  const char* name() const override { return real_->name(); }
  std::vector<std::pair<std::string, bool>> features() const override { return real_->features(); }
  int descriptor() const override { return real_->descriptor(); }
  int Add(int fd, uint64_t token) override {
    tokens_.push_back(token);
    if (tokens_.size() > 64) tokens_.erase(tokens_.begin());
    return real_->Add(fd, token);
  }
  int Arm(int fd, uint64_t token, posix::Readiness direction) override { return real_->Arm(fd, token, direction); }
  void Remove(int fd) override { real_->Remove(fd); }
  void Submit() override { real_->Submit(); }
  int Take(std::span<posix::ReadyEvent> out, double timeout_ms) override {
    size_t noise = 0;
    for (; noise < out.size() / 2 && !tokens_.empty(); noise++) {
      const uint32_t what = random_.Below(16);
      out[noise] = {tokens_[random_.Below(static_cast<uint32_t>(tokens_.size()))], static_cast<uint8_t>(what == 0 ? 15 : what & 3), 0};
    }
    told_ += noise;
    const int count = real_->Take(out.subspan(noise), noise > 0 ? std::min(timeout_ms, 1.0) : timeout_ms);
    return count < 0 ? count : count + static_cast<int>(noise);
  }
  void WaitReady(double timeout_ms) override { real_->WaitReady(timeout_ms); }
  void Wake() override { real_->Wake(); }
  int WatchLoop(int fd) override { return real_->WatchLoop(fd); }

  static std::atomic<uint64_t> told_;

 private:
  std::unique_ptr<posix::Poller> real_;
  std::vector<uint64_t> tokens_;
  Random random_{7};
};
std::atomic<uint64_t> NoisyPoller::told_{0};

std::unique_ptr<Port> MakeNoisy(const PortOptions& options, CreateError* error) {
  return posix::ReactorPort::Create(
      options, Backend(),
      [](CreateError* refused) -> std::unique_ptr<posix::Poller> {
        auto real = MakePoller(refused);
        if (!real) return nullptr;
        return std::make_unique<NoisyPoller>(std::move(real));
      },
      error);
}

// Every thread of the file pool, held until it is let go.
class HeldPool {
 public:
  HeldPool() {
    for (Held& each : held_) {
      each.owner = this;
      CHECK(share_.Submit(each));
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return inside_ == kPoolThreadsDefault; });
  }
  ~HeldPool() {
    std::unique_lock lock(mutex_);
    go_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return inside_ == 0; });
  }

  pool::Share& share() { return share_; }

 private:
  struct Held final : pool::Job {
    HeldPool* owner = nullptr;
    void Run() override {
      std::unique_lock lock(owner->mutex_);
      owner->inside_++;
      owner->changed_.notify_all();
      owner->changed_.wait(lock, [this] { return owner->go_; });
      owner->inside_--;
      owner->changed_.notify_all();
    }
  };
  std::mutex mutex_;
  std::condition_variable changed_;
  unsigned inside_ = 0;
  bool go_ = false;
  pool::Share share_{kPoolThreadsDefault};
  Held held_[kPoolThreadsDefault];
};

// Counts how many of its kind run at once, and how often it has run.
struct CountedJob final : pool::Job {
  std::atomic<unsigned>* running = nullptr;
  std::atomic<unsigned>* ended = nullptr;
  unsigned most = 0;
  unsigned pause_us = 0;
  std::atomic<unsigned> runs{0};

  void Run() override {
    CHECK(running->fetch_add(1) < most);
    if (pause_us > 0) usleep(pause_us);
    runs++;
    running->fetch_sub(1);
    ended->fetch_add(1);  // the last use: the job may be gone
  }
};

}  // namespace

static Register spurious(
    "reactor/spurious", "a million events for nothing, of handles open, closed and reused: no packet too many, no byte wrong, none missing",
    [](const Context& context) {
      TestPortOptions options;
      options.make = &MakeNoisy;
      TestPort test(options);
      Random random(context.seed);
      NoisyPoller::told_ = 0;
      sockaddr_in address;
      Handle& listener = test.Adopt(HandleKind::kListener, Listening(&address), 1);
      const uint64_t wanted = context.Count(1'000'000);
      for (uint32_t round = 0; NoisyPoller::told_ < wanted; round++) {
        auto [socket, peer] = test.Pair(2);
        // Nothing there: nothing may come.
        const uint32_t recv_slot = test.Start(Opcode::kRecv, *socket, 0, 8);
        const uint32_t accept_slot = test.Start(Opcode::kAccept, listener, 0, 0);
        for (uint32_t i = random.Below(4); i > 0; i--) CHECK(test.Get(8, 0.5).empty());
        const char data[8] = {'a', 'b', 'c', 'd', 'e', 'f', 'g', static_cast<char>(round)};
        CHECK(write(peer, data, 8) == 8);
        CompletionEntry packet = test.GetExactly(1)[0];
        CHECK(packet.slot == recv_slot && packet.status == kOk && packet.bytes == 8);
        CHECK(std::memcmp(test.arena(), data, 8) == 0);
        const int client = Connected(address);
        packet = test.GetExactly(1)[0];
        CHECK(packet.slot == accept_slot && packet.status == kOk);
        test.Start(Opcode::kSend, *socket, 0, 8);
        CHECK_EQ(test.GetExactly(1)[0].bytes, 8.0);
        char back[8];
        CHECK(recv(peer, back, 8, MSG_WAITALL) == 8 && std::memcmp(back, data, 8) == 0);
        Handle& accepted = TestPort::Made(packet);
        CHECK_EQ(test.port().Associate(accepted, 3), 0);
        test.Close(accepted, true);
        test.Close(*socket, random.OneIn(2));
        close(client);
        close(peer);
      }
    },
    On::kReactor);

static Register connects(
    "reactor/connect", "an event isn't taken for a connection: a connect that hangs is told nothing until it is made or refused",
    [](const Context& context) {
      TestPortOptions options;
      options.make = &MakeNoisy;
      TestPort test(options);
      for (uint32_t round = 0; round < context.Count(20); round++) {
        sockaddr_in address;
        std::vector<int> fillers;
        const int listener = ListeningFull(&address, &fillers);
        Handle* socket_handle = HandleTable::Process().Create(1, HandleKind::kSocket, NewSocket());
        CHECK(socket_handle != nullptr && test.port().Associate(*socket_handle, 9) == 0);
        const uint32_t slot = test.Connect(*socket_handle, address);
        for (int i = 0; i < 20; i++) CHECK(test.Get(4, 1).empty());
        if (round % 2 == 0) {
          CHECK(test.Cancel(slot));
          CHECK_EQ(test.GetExactly(1)[0].status, kCanceled);
        }
        test.Close(*socket_handle, false);
        if (round % 2 == 1) CHECK_EQ(test.GetExactly(1)[0].status, kCanceled);
        CHECK(test.Get(4, 0).empty());
        for (const int filler : fillers) close(filler);
        close(listener);
      }
    },
    On::kReactor);

static Register reuse(
    "reactor/reuse", "ten thousand descriptors closed and opened again under pending operations: nothing is mixed up",
    [](const Context& context) {
      const int before = OpenDescriptors();
      {
        TestPort test;
        Random random(context.seed);
        int last = -1;
        uint32_t reused = 0;
        for (uint32_t round = 0; round < context.Count(10'000); round++) {
          int pair[2];
          TcpPair(pair);
          reused += pair[0] == last;
          last = pair[0];
          Handle& socket = test.Adopt(HandleKind::kSocket, pair[0], round);
          const char byte = static_cast<char>(round);
          const uint32_t first = test.Start(Opcode::kRecv, socket, 0, 1), second = test.Start(Opcode::kRecv, socket, 64, 1);
          // The event of the first byte may be under way when its descriptor goes.
          const bool taken = random.OneIn(2);
          if (random.OneIn(2)) test.Submit();
          CHECK(write(pair[1], &byte, 1) == 1);
          if (taken) {
            const CompletionEntry packet = test.GetExactly(1)[0];
            CHECK(packet.slot == first && packet.status == kOk && packet.key == round);
            CHECK(static_cast<char>(test.arena()[0]) == byte);
          }
          test.Close(socket, true);
          for (const CompletionEntry& packet : test.GetExactly(taken ? 1 : 2)) {
            CHECK(packet.key == round && packet.status == kCanceled);
            CHECK(packet.slot == second || (!taken && packet.slot == first));
          }
          close(pair[1]);
        }
        CHECK(test.Get(8, 0).empty());
        CHECK(context.scale < 1 || reused > 100);
      }
      CHECK_EQ(OpenDescriptors(), before);
    },
    On::kReactor);

static Register slow_disk(
    "reactor/slow-disk",
    "with every thread of the pool at a disk that hangs sockets go on, and what waits for it can be cancelled and closed",
    [](const Context& context) {
      TestPortOptions options;
      options.disable = "read_nowait";
      TestPort test(options);
      Handle& file = test.Adopt(HandleKind::kFile, open("/dev/zero", O_RDONLY | O_CLOEXEC), 1);
      auto [socket, peer] = test.Pair(2);
      const uint32_t reads = 100;
      std::set<uint32_t> waiting;
      double longest = 0;
      {
        HoldDisk(true);
        uint32_t victim = 0;
        for (uint32_t i = 0; i < reads; i++) waiting.insert(victim = test.Start(Opcode::kRead, file, 4096 + i * 64, 64));
        for (uint32_t round = 0; round < context.Count(1000); round++) {
          const double started = MonotonicMs();
          CHECK(write(peer, "x", 1) == 1);
          test.Start(Opcode::kRecv, *socket, 0, 16);
          const CompletionEntry packet = test.GetExactly(1)[0];
          CHECK(packet.key == 2 && packet.bytes == 1);
          longest = std::max(longest, MonotonicMs() - started);
        }
        CHECK(longest < 2'000);  // a stall would last until the end of the case
        // One that no thread has begun is cancelled, and a handle with another is closed: neither waits for the disk.
        waiting.erase(victim);
        CHECK(test.Cancel(victim));
        const CompletionEntry packet = test.GetExactly(1)[0];
        CHECK(packet.slot == victim && packet.status == kCanceled);
        Handle& other = test.Adopt(HandleKind::kFile, open("/dev/zero", O_RDONLY | O_CLOEXEC), 3);
        test.Start(Opcode::kRead, other, 0, 64);
        test.Submit();
        test.Close(other, false);
        CHECK_EQ(test.GetExactly(1)[0].status, kCanceled);
        HoldDisk(false);
      }
      for (const CompletionEntry& packet : test.GetExactly(reads - 1)) {
        CHECK(packet.status == kOk && packet.bytes == 64);
        CHECK(waiting.erase(packet.slot) == 1);
      }
      close(peer);
    },
    On::kReactor);

#if defined(CP_KQUEUE_SHIM)
static Register no_memory(
    "reactor/no-memory",
    "where the kernel has no memory to watch a socket, what would wait ends with ENOMEM, once; no byte is lost, the handle lives",
    [](const Context& context) {
      constexpr auto kNoMemory = static_cast<int32_t>(Status::kENOMEM);
      Random random(context.seed);
      TestPort test;
      uint64_t refused = 0, received = 0, sent = 0;
      auto [socket, peer] = test.Pair(1);
      kqueue_shim_refuse(2);
      const uint64_t rounds = context.Count(2000);
      for (uint64_t round = 0; round < rounds; round++) {
        const uint32_t slot = test.Start(Opcode::kRecv, *socket, 0, 64);
        test.Submit();
        if (random.Below(2) != 0) {
          // It waits, or was refused, or found a byte that a refused one has left.
          const std::vector<CompletionEntry> early = test.Get(1, 0);
          if (!early.empty()) {
            CHECK(early[0].status == kNoMemory || (early[0].status == kOk && received < sent));
            refused += early[0].status == kNoMemory;
            received += static_cast<uint64_t>(early[0].bytes);
            continue;
          }
        }
        WriteAll(peer, "x", 1);
        sent++;
        const CompletionEntry packet = test.GetOne();
        CHECK_EQ(packet.slot, slot);
        CHECK(packet.status == kOk || (packet.status == kNoMemory && packet.bytes == 0));
        if (packet.status != kOk) refused++;
        received += static_cast<uint64_t>(packet.bytes);
      }
      // A send that fills the connection, a connect that stays in the making, an accept without anybody: each ends once, too.
      kqueue_shim_refuse(1);
      const uint32_t sends = 16;  // of a MiB: more than the kernel takes
      for (uint32_t i = 0; i < sends; i++) test.Start(Opcode::kSend, *socket, 0, test.arena_bytes());
      uint32_t failed = 0;
      for (const CompletionEntry& packet : test.GetExactly(sends)) {
        CHECK(packet.status == kOk || packet.status == kNoMemory);
        failed += packet.status == kNoMemory;
      }
      sockaddr_in full{}, idle{};
      std::vector<int> fillers;
      const int listening = ListeningFull(&full, &fillers);
      Handle* connecting = HandleTable::Process().Create(1, HandleKind::kSocket, NewSocket());
      CHECK(connecting != nullptr && test.port().Associate(*connecting, 2) == 0);
      Handle& listener = test.Adopt(HandleKind::kListener, Listening(&idle), 3);
      test.Connect(*connecting, full);
      CHECK_EQ(test.GetOne().status, kNoMemory);
      test.Start(Opcode::kAccept, listener, 0, 0);
      CHECK_EQ(test.GetOne().status, kNoMemory);
      kqueue_shim_refuse(0);
      // With memory again all of them serve.
      test.Start(Opcode::kAccept, listener, 0, 0);
      const int caller = Connected(idle);
      const CompletionEntry accepted = test.GetOne();
      CHECK_EQ(accepted.status, kOk);
      test.Close(TestPort::Made(accepted), false);
      while (received < sent) {
        test.Start(Opcode::kRecv, *socket, 0, 64);
        const CompletionEntry packet = test.GetOne();
        CHECK(packet.status == kOk && packet.bytes > 0);
        received += static_cast<uint64_t>(packet.bytes);
      }
      CHECK_EQ(received, sent);
      CHECK(failed > 0);
      if (rounds >= 40) CHECK(refused > rounds / 10 && refused < rounds);
      for (const int fd : fillers) close(fd);
      close(caller);
      close(listening);
      close(peer);
    },
    On::kReactor);
#endif

static Register shares(
    "reactor/shares", "each job of the pool runs once or was taken back; of each port no more at once than its share, of whatever size",
    [](const Context& context) {
      Random random(context.seed);
      for (uint64_t round = context.Count(200); round > 0; round--) {
        struct Sharer {
          explicit Sharer(unsigned most_) : most(most_), share(most_) {}
          unsigned most;
          pool::Share share;
          std::atomic<unsigned> running{0};
          std::atomic<unsigned> ended{0};
          std::vector<CountedJob> jobs{40};
        };
        std::vector<std::unique_ptr<Sharer>> sharers;
        for (unsigned i = 1 + random.Below(4); i > 0; i--) sharers.push_back(std::make_unique<Sharer>(1 + random.Below(8)));
        std::vector<std::thread> threads;
        for (const auto& each : sharers) {
          threads.emplace_back([&sharer = *each, seed = random.Below(1'000'000)] {
            Random own(seed);
            unsigned taken = 0;
            for (CountedJob& job : sharer.jobs) {
              job.running = &sharer.running;
              job.ended = &sharer.ended;
              job.most = sharer.most;
              job.pause_us = own.OneIn(3) ? own.Below(300) : 0;
              CHECK(sharer.share.Submit(job));
              CountedJob& other = sharer.jobs[own.Below(static_cast<uint32_t>(&job - sharer.jobs.data()) + 1)];
              if (own.OneIn(4) && pool::Withdraw(other)) {
                CHECK_EQ(other.runs.load(), 0u);
                taken++;
              }
            }
            while (sharer.ended + taken < sharer.jobs.size()) usleep(100);
            for (const CountedJob& job : sharer.jobs) CHECK(job.runs <= 1 && job.list == nullptr);
          });
        }
        for (std::thread& thread : threads) thread.join();
      }
    },
    On::kReactor);

static Register hanging(
    "reactor/hanging", "a port all of whose share hangs keeps others from no thread beyond it, and its own jobs can be taken back",
    [](const Context&) {
      HeldPool held;  // four
      pool::Share larger(kPoolThreadsDefault + 1);
      std::atomic<unsigned> running{0}, ended{0};
      CountedJob jobs[3];
      for (CountedJob& job : jobs) {
        job.running = &running;
        job.ended = &ended;
        job.most = kPoolThreadsDefault + 1;
        CHECK(larger.Submit(job));
      }
      while (ended < 3) usleep(100);
      CountedJob waiting;
      waiting.most = 1;
      CHECK(held.share().Submit(waiting));
      usleep(10'000);
      CHECK(pool::Withdraw(waiting) && waiting.runs == 0);
    },
    On::kReactor);

static Register standstill(
    "reactor/standstill", "where every call hangs that may run at once, each other port's jobs run all the same, one at a time, each once",
    [](const Context& context) {
      HeldPool held;  // the largest share
      for (uint32_t round = 0; round < context.Count(3); round++) {
        struct Sharer {
          pool::Share share{kPoolThreadsDefault};
          std::atomic<unsigned> running{0}, ended{0};
          std::vector<CountedJob> jobs{20};
        };
        std::vector<std::unique_ptr<Sharer>> sharers;
        for (unsigned i = 0; i < 8; i++) sharers.push_back(std::make_unique<Sharer>());
        unsigned taken_back = 0;
        for (const auto& each : sharers)
          for (CountedJob& job : each->jobs) {
            job.running = &each->running;
            job.ended = &each->ended;
            job.most = 1;
            CHECK(each->share.Submit(job));
          }
        for (const auto& each : sharers) taken_back += pool::Withdraw(each->jobs.back()) ? 1 : 0;
        const double deadline = MonotonicMs() + 10'000;
        const auto ended = [&] {
          unsigned sum = taken_back;
          for (const auto& each : sharers) sum += each->ended.load();
          return sum;
        };
        while (ended() < 8 * 20 && MonotonicMs() < deadline) usleep(500);
        CHECK_EQ(ended(), 8u * 20u);
        for (const auto& each : sharers)
          for (const CountedJob& job : each->jobs) CHECK(job.runs <= 1 && job.list == nullptr);
      }
    },
    On::kReactor);

static Register fair(
    "reactor/fair", "a handle that is always ready, with hundreds of operations in line, doesn't keep others waiting for its end",
    [](const Context&) {
      TestPortOptions options;
      options.max_operations = 4096;
      options.arena_bytes = 64 << 20;
      TestPort test(options);
      auto [greedy, source] = test.Pair(1);
      auto [modest, other] = test.Pair(2);
      std::atomic<bool> over{false};
      // More than any turn takes, for as long as it lasts.
      CHECK_EQ(posix::SetNonBlocking(source), 0);
      std::thread flood([&over, fd = source] {
        std::vector<char> data(1 << 20);
        while (!over.load()) {
          pollfd watched = {fd, POLLOUT, 0};
          if (poll(&watched, 1, 10) > 0) [[maybe_unused]]
            const ssize_t sent = write(fd, data.data(), data.size());
        }
      });
      uint32_t of_greedy = 0, of_modest = 0, in_line = 0;
      // Until both have had their turns; a machine that does other things takes its time over it.
      const double until = MonotonicMs() + 500, limit = until + 10'000;
      bool wrong = false;
      uint32_t since = 0;
      [[maybe_unused]] ssize_t written = write(other, "x", 1);
      test.Start(Opcode::kRecv, *modest, 0, 1);
      while (MonotonicMs() < until || ((of_modest <= 5 || of_greedy <= 100) && MonotonicMs() < limit)) {
        while (in_line < 2000) {
          test.Start(Opcode::kRecv, *greedy, 1 << 20, 16 << 10);
          in_line++;
        }
        for (const CompletionEntry& packet : test.Get(512, 10)) {
          if (packet.key == 1) {
            of_greedy++;
            in_line--;
            since++;
          } else {
            of_modest++;
            wrong = wrong || since > 4096;
            since = 0;
            written = write(other, "x", 1);
            test.Start(Opcode::kRecv, *modest, 0, 1);
          }
        }
      }
      wrong = wrong || since > 4096;
      over = true;
      flood.join();
      test.Close(*greedy, true);
      test.Close(*modest, true);
      test.GetExactly(in_line + 1);
      close(source);
      close(other);
      CHECK(!wrong);
      CHECK(of_modest > 5);
      CHECK(of_greedy > 100);
    },
    On::kReactor);

static Register resets(
    "reactor/resets", "a peer's reset in each state is told once to whoever waits, and stays; half a connection goes on",
    [](const Context& context) {
      Random random(context.seed);
      TestPort test;
      for (uint32_t round = 0; round < context.Count(400); round++) {
        auto [socket, peer] = test.Pair(round);
        const uint32_t state = round % 5;
        if (state == 0) {
          // Before anything waits: each later recv says so.
          ResetNow(peer);
          for (int i = 0; i < 3; i++) {
            test.Start(Opcode::kRecv, *socket, 0, 16);
            CHECK_EQ(test.GetExactly(1)[0].status, kReset);
          }
        } else if (state == 1) {
          // Armed, and others in line behind it.
          for (int i = 0; i < 3; i++) test.Start(Opcode::kRecv, *socket, 0, 16);
          CHECK(test.Get(4, random.OneIn(2) ? 1 : 0).empty());
          ResetNow(peer);
          for (const CompletionEntry& packet : test.GetExactly(3)) CHECK_EQ(packet.status, kReset);
        } else if (state == 2) {
          // In the middle of a send that waits.
          test.Start(Opcode::kSend, *socket, 0, test.arena_bytes());
          test.Start(Opcode::kSend, *socket, 0, test.arena_bytes());
          for (int i = 0; i < 20 && test.Get(4, 0).empty(); i++) {
          }
          test.Start(Opcode::kSend, *socket, 0, test.arena_bytes());
          test.Start(Opcode::kSend, *socket, 0, test.arena_bytes());
          test.Start(Opcode::kSend, *socket, 0, test.arena_bytes());
          test.Start(Opcode::kSend, *socket, 0, test.arena_bytes());
          test.Start(Opcode::kSend, *socket, 0, test.arena_bytes());
          test.Start(Opcode::kSend, *socket, 0, test.arena_bytes());
          test.Get(1, 0);
          ResetNow(peer);
          const double deadline = MonotonicMs() + 5'000;
          bool failed = false;
          while (test.port().in_kernel() > 0 && MonotonicMs() < deadline)
            for (const CompletionEntry& packet : test.Get(16, 10)) failed = failed || packet.status != kOk;
          for (const CompletionEntry& packet : test.Get(16, 0)) failed = failed || packet.status != kOk;
          CHECK_EQ(test.port().in_kernel(), 0u);
          CHECK(failed);
        } else if (state == 3) {
          // Data, then the end, told by one event: a short recv isn't the last that is tried.
          CHECK(write(peer, "abc", 3) == 3);
          shutdown(peer, SHUT_WR);
          test.Start(Opcode::kRecv, *socket, 0, 16);
          CHECK_EQ(test.GetExactly(1)[0].bytes, 3.0);
          for (int i = 0; i < 2; i++) {
            test.Start(Opcode::kRecv, *socket, 0, 16);
            const CompletionEntry packet = test.GetExactly(1)[0];
            CHECK(packet.status == kOk && packet.bytes == 0);
          }
          // Half a connection: it still takes what is sent.
          test.Start(Opcode::kSend, *socket, 0, 16);
          CHECK_EQ(test.GetExactly(1)[0].bytes, 16.0);
          char got[16];
          CHECK(recv(peer, got, 16, MSG_WAITALL) == 16);
          close(peer);
        } else {
          // Out-of-band data makes a recv stop short at its mark, with more behind it and no event to come.
          CHECK(send(peer, "ab", 2, 0) == 2 && send(peer, "!", 1, MSG_OOB) == 1 && send(peer, "cdef", 4, 0) == 4);
          std::string all;
          if (random.OneIn(2)) test.Get(1, 2);
          while (all.size() < 6) {
            test.Start(Opcode::kRecv, *socket, 0, 64);
            const CompletionEntry packet = test.GetExactly(1)[0];
            CHECK_EQ(packet.status, kOk);
            all.append(reinterpret_cast<const char*>(test.arena()), static_cast<size_t>(packet.bytes));
          }
          CHECK(all == "abcdef");
          close(peer);
        }
        test.Close(*socket, true);
        while (!test.Get(16, 0).empty()) {
        }
      }
    },
    On::kReactor);

static Register timed(
    "reactor/timeouts", "data that was there before the time ran out is taken, although nobody looked in between",
    [](const Context& context) {
      TestPort test;
      auto [socket, peer] = test.Pair(1);
      for (uint32_t round = 0; round < context.Count(30); round++) {
        test.Start(Opcode::kRecv, *socket, 0, 16, 0, 5);
        test.Submit();
        CHECK(write(peer, "x", 1) == 1);
        const timespec nap = {0, 10'000'000};
        nanosleep(&nap, nullptr);
        const CompletionEntry packet = test.GetExactly(1)[0];
        CHECK(packet.status == kOk && packet.bytes == 1);
      }
      close(peer);
    },
    On::kReactor);

static Register stream(
    "reactor/stream", "a stream arrives whole and in order, in whatever pieces the kernel moves it and whatever it says in between",
    [](const Context& context) {
      TestPortOptions options;
      options.arena_bytes = 4 << 20;
      TestPort test(options);
      Random random(context.seed);
      // Both ends are handles: the one sends plainly what the other receives.
      int fds[2];
      TcpPair(fds);
      Handle& from = test.Adopt(HandleKind::kSocket, fds[0], 1);
      Handle& to = test.Adopt(HandleKind::kSocket, fds[1], 2);
      const uint32_t half = 2 << 20;
      uint64_t sent = 0, received = 0, sends = 0, recvs = 0;
      const uint64_t total = context.Count(8 << 20);
      const auto byte_at = [](uint64_t at) { return static_cast<std::byte>(at * 2654435761u >> 24); };
      while (received < total) {
        if (sends == 0 && sent < total) {
          const uint64_t length = std::min<uint64_t>(1 + random.Below(half), total - sent);
          for (uint64_t i = 0; i < length; i++) test.arena()[i] = byte_at(sent + i);
          test.Start(Opcode::kSend, from, 0, length);
          sent += length;
          sends++;
        }
        if (recvs == 0) {
          test.Start(Opcode::kRecv, to, half, 1 + random.Below(half));
          recvs++;
        }
        for (const CompletionEntry& packet : test.GetExactly(1)) {
          CHECK_EQ(packet.status, kOk);
          if (packet.key == 1) {
            sends--;
            continue;
          }
          recvs--;
          CHECK(packet.bytes > 0);
          for (uint64_t i = 0; i < static_cast<uint64_t>(packet.bytes); i++) CHECK(test.arena()[half + i] == byte_at(received + i));
          received += static_cast<uint64_t>(packet.bytes);
        }
      }
      CHECK_EQ(received, total);
      if (sends > 0) test.GetExactly(1);
      test.Close(from, false);
      test.Close(to, false);
    },
    On::kReactor);

}  // namespace cp::test
