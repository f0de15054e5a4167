// shared_port: the two smallest forms of who drives an io_uring port that many threads share, to be measured against each
// other. Not part of the package: nothing here handles errors it doesn't need, cancels, times out or closes.
//
//   io-thread   one thread owns a SINGLE_ISSUER | DEFER_TASKRUN ring and alone enters the kernel. Workers fill SQEs under the
//               mutex, kick it through an eventfd only if it sleeps, and get packets from a FIFO.
//   lock        a ring that the workers enter themselves (COOP_TASKRUN | TASKRUN_FLAG): a start submits at once, under the
//               mutex; one waiting worker at a time, the leader, waits in the kernel without it. The CQ is the FIFO.
//   lock-plain  the same with ring flags 0.
//
// In all of them waiting workers stand on a LIFO stack, each with a condition variable.
//
// shared_port --form F --workers W [--batch N]    a TCP echo server; prints `listening on HOST:PORT`. With --batch above 1 a get
//                                                 takes up to N packets, and what they start is submitted together.
// shared_port --form F --experiment delay|exit|eintr    prints lines of JSON
#include <arpa/inet.h>
#include <liburing.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr unsigned kSqEntries = 4096, kCqEntries = 32768;

[[noreturn]] void Die(const char* what, int error) {
  fprintf(stderr, "shared_port: %s: %s\n", what, strerror(error));
  exit(1);
}

struct Operation {
  enum Kind { kAccept, kRecv, kSend } kind;
  int fd;
  char* data;
  unsigned length;
};

struct Packet {
  Operation* operation;
  int result;
};

struct Waiter {
  std::condition_variable wake;
  Packet packet{};
  bool released = false;  // `packet` was handed over
  bool promoted = false;  // lock: it is to be the leader
};

void Fill(io_uring_sqe* sqe, Operation* operation) {
  if (sqe == nullptr) Die("the ring is full", EBUSY);
  switch (operation->kind) {
    case Operation::kAccept:
      io_uring_prep_accept(sqe, operation->fd, nullptr, nullptr, SOCK_CLOEXEC);
      break;
    case Operation::kRecv:
      io_uring_prep_recv(sqe, operation->fd, operation->data, operation->length, 0);
      break;
    case Operation::kSend:
      io_uring_prep_send(sqe, operation->fd, operation->data, operation->length, MSG_NOSIGNAL);
      break;
  }
  io_uring_sqe_set_data(sqe, operation);
}

class Port {
 public:
  virtual ~Port() = default;
  /** Starts operations; they are on their way when it returns. Any thread. */
  virtual void Start(std::span<Operation* const> operations) = 0;
  /** Waits for a packet, takes up to `max`. Any thread. */
  virtual unsigned Get(Packet* packets, unsigned max) = 0;

  void Start(Operation* operation) { Start(std::span(&operation, 1)); }

 protected:
  std::mutex mutex_;
  io_uring ring_;
  std::vector<Waiter*> waiters_;  // newest last

  Waiter* PopWaiter() {
    Waiter* top = waiters_.back();
    waiters_.pop_back();
    return top;
  }

  void OpenRing(unsigned flags) {
    io_uring_params parameters{};
    parameters.flags = flags | IORING_SETUP_CQSIZE;
    parameters.cq_entries = kCqEntries;
    const int result = io_uring_queue_init_params(kSqEntries, &ring_, &parameters);
    if (result < 0) Die("io_uring_queue_init_params", -result);
  }
};

thread_local Waiter this_waiter;

class IoThreadPort final : public Port {
 public:
  IoThreadPort() : kick_fd_(eventfd(0, EFD_CLOEXEC)) {
    std::thread([this] { Drive(); }).detach();
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [this] { return open_; });
  }

  void Start(std::span<Operation* const> operations) override {
    bool kick;
    {
      std::lock_guard lock(mutex_);
      for (Operation* operation : operations) Fill(io_uring_get_sqe(&ring_), operation);
      kick = sleeps_;
      sleeps_ = false;  // one kick is enough
    }
    if (!kick) return;
    const uint64_t one = 1;
    if (write(kick_fd_, &one, sizeof one) < 0) Die("write", errno);
  }

  unsigned Get(Packet* packets, unsigned max) override {
    std::unique_lock lock(mutex_);
    if (fifo_.empty()) {
      Waiter& waiter = this_waiter;
      waiter.released = false;
      waiters_.push_back(&waiter);
      waiter.wake.wait(lock, [&] { return waiter.released; });
      packets[0] = waiter.packet;
      return 1 + Take(packets + 1, max - 1);
    }
    return Take(packets, max);
  }

 private:
  const int kick_fd_;
  uint64_t kicks_ = 0;
  bool kick_watched_ = false;
  bool sleeps_ = false;
  bool open_ = false;
  std::condition_variable opened_;
  std::deque<Packet> fifo_;

  unsigned Take(Packet* packets, unsigned max) {
    unsigned count = 0;
    for (; count < max && !fifo_.empty(); count++) {
      packets[count] = fifo_.front();
      fifo_.pop_front();
    }
    return count;
  }

  void Drive() {
    std::unique_lock lock(mutex_);
    OpenRing(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    open_ = true;
    opened_.notify_one();
    std::vector<Waiter*> woken;
    for (;;) {
      unsigned head, seen = 0;
      io_uring_cqe* cqe;
      io_uring_for_each_cqe(&ring_, head, cqe) {
        seen++;
        auto* operation = static_cast<Operation*>(io_uring_cqe_get_data(cqe));
        if (operation == nullptr)
          kick_watched_ = false;
        else
          fifo_.push_back({operation, cqe->res});
      }
      io_uring_cq_advance(&ring_, seen);
      while (!fifo_.empty() && !waiters_.empty()) {
        Waiter* waiter = PopWaiter();
        Take(&waiter->packet, 1);
        waiter->released = true;
        woken.push_back(waiter);
      }
      if (!kick_watched_) {
        io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
        io_uring_prep_read(sqe, kick_fd_, &kicks_, sizeof kicks_, 0);
        io_uring_sqe_set_data(sqe, nullptr);
        kick_watched_ = true;
      }
      const unsigned submit = io_uring_sq_ready(&ring_);
      ring_.sq.sqe_head = ring_.sq.sqe_tail;
      io_uring_smp_store_release(ring_.sq.ktail, ring_.sq.sqe_tail);
      sleeps_ = true;
      lock.unlock();
      for (Waiter* waiter : woken) waiter->wake.notify_one();
      woken.clear();
      io_uring_enter(static_cast<unsigned>(ring_.ring_fd), submit, 1, IORING_ENTER_GETEVENTS, nullptr);
      lock.lock();
      sleeps_ = false;
    }
  }
};

class LockPort final : public Port {
 public:
  explicit LockPort(unsigned flags) { OpenRing(flags); }

  void Start(std::span<Operation* const> operations) override {
    std::lock_guard lock(mutex_);
    for (Operation* operation : operations) Fill(io_uring_get_sqe(&ring_), operation);
    const int result = io_uring_submit(&ring_);
    if (result < 0) Die("io_uring_submit", -result);
  }

  unsigned Get(Packet* packets, unsigned max) override {
    Waiter& waiter = this_waiter;
    Waiter* woken = nullptr;
    unsigned count;
    {
      std::unique_lock lock(mutex_);
      for (;;) {
        count = Take(packets, max);
        if (count > 0) break;
        // What the kernel has ready for this thread would otherwise be found by the futex, asleep.
        if (led_ && (IO_URING_READ_ONCE(*ring_.sq.kflags) & IORING_SQ_TASKRUN) != 0) {
          io_uring_get_events(&ring_);
          count = Take(packets, max);
          if (count > 0) break;
        }
        if (!led_) {
          led_ = true;
          lock.unlock();
          // No wake-up is lost: the kernel compares with the head at its entry, and another thread takes from the CQ only
          // what it delivers.
          io_uring_enter(static_cast<unsigned>(ring_.ring_fd), 0, 1, IORING_ENTER_GETEVENTS, nullptr);
          lock.lock();
          led_ = false;
          continue;
        }
        waiter.released = waiter.promoted = false;
        waiters_.push_back(&waiter);
        waiter.wake.wait(lock, [&] { return waiter.released || waiter.promoted; });
        if (waiter.released) {
          packets[0] = waiter.packet;
          count = 1 + Take(packets + 1, max - 1);
          break;
        }
      }
      // Somebody must look after what comes while this thread works: the newest takes a packet, or waits in the kernel.
      if (!led_ && !waiters_.empty()) {
        woken = PopWaiter();
        woken->released = Take(&woken->packet, 1) == 1;
        woken->promoted = !woken->released;
      }
    }
    if (woken != nullptr) woken->wake.notify_one();
    return count;
  }

 private:
  bool led_ = false;

  unsigned Take(Packet* packets, unsigned max) {
    unsigned head, count = 0;
    io_uring_cqe* cqe;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      if (count == max) break;
      packets[count++] = {static_cast<Operation*>(io_uring_cqe_get_data(cqe)), cqe->res};
    }
    io_uring_cq_advance(&ring_, count);
    return count;
  }
};

std::unique_ptr<Port> MakePort(const std::string& form) {
  if (form == "io-thread") return std::make_unique<IoThreadPort>();
  if (form == "lock") return std::make_unique<LockPort>(IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG);
  if (form == "lock-plain") return std::make_unique<LockPort>(0);
  Die(form.c_str(), EINVAL);
}

// The echo server

struct Connection {
  Operation operation;  // one at a time, recv or send
  unsigned received, sent;
  char buffer[4096];
};

/** What an echo server does with a packet: appends what is to be started next. */
void Handle(const Packet& packet, std::vector<Operation*>& starts) {
  Operation* operation = packet.operation;
  if (operation->kind == Operation::kAccept) {
    if (packet.result >= 0) {
      auto* connection = new Connection;
      connection->operation = {Operation::kRecv, packet.result, connection->buffer, sizeof connection->buffer};
      starts.push_back(&connection->operation);
    }
    starts.push_back(operation);
    return;
  }
  auto* connection = reinterpret_cast<Connection*>(operation);
  if (packet.result < 0 || (packet.result == 0 && operation->kind == Operation::kRecv)) {
    close(operation->fd);
    delete connection;
    return;
  }
  if (operation->kind == Operation::kRecv) {
    connection->received = static_cast<unsigned>(packet.result);
    connection->sent = 0;
  } else {
    connection->sent += static_cast<unsigned>(packet.result);
  }
  const unsigned left = connection->received - connection->sent;
  if (left > 0)
    *operation = {Operation::kSend, operation->fd, connection->buffer + connection->sent, left};
  else
    *operation = {Operation::kRecv, operation->fd, connection->buffer, sizeof connection->buffer};
  starts.push_back(operation);
}

void Work(Port& port, unsigned batch) {
  std::vector<Packet> packets(batch);
  std::vector<Operation*> starts;
  for (;;) {
    const unsigned count = port.Get(packets.data(), batch);
    starts.clear();
    for (unsigned index = 0; index < count; index++) Handle(packets[index], starts);
    if (!starts.empty()) port.Start(starts);
  }
}

int Listen() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  socklen_t length = sizeof address;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), length) < 0 || listen(fd, 4096) < 0) Die("listen", errno);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

void Serve(Port& port, unsigned workers, unsigned batch) {
  Operation accept{Operation::kAccept, Listen(), nullptr, 0};
  std::vector<std::thread> threads;
  for (unsigned index = 0; index < workers; index++) threads.emplace_back([&] { Work(port, batch); });
  port.Start(&accept);
  for (auto& thread : threads) thread.join();
}

// The experiments

double NowMs() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
}

void SleepMs(double ms) { std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(ms)); }

struct Pair {
  int ours, theirs;
  Pair() {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) Die("socketpair", errno);
    ours = fds[0], theirs = fds[1];
  }
  ~Pair() { close(ours), close(theirs); }
};

/** A worker that waits all the time and notes when each packet reached it. */
struct Getter {
  std::atomic<double> at{0};
  std::atomic<int> result{0};
  std::atomic<int> packets{0}, cancelled{0};
  std::thread thread;
  explicit Getter(Port& port)
      : thread([this, &port] {
          for (;;) {
            Packet packet;
            port.Get(&packet, 1);
            at = NowMs();
            result = packet.result;
            if (packet.result == -ECANCELED) cancelled++;
            packets++;
          }
        }) {
    thread.detach();
  }
};

void Compute(double ms) {
  for (const double end = NowMs() + ms; NowMs() < end;) {  // the vDSO's clock: no system call
  }
}

void Pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) < 0) Die("sched_setaffinity", errno);
}

/** How long after its data was there an operation reaches a waiting thread, while the thread that started it is busy on CPU 0. */
void Delay(Port& port, Getter* getter, const char* form, const char* what, int times, double busy_ms, const std::function<void()>& busy) {
  std::vector<double> delays;
  for (int time = 0; time < times; time++) {
    Pair pair;
    char byte, data = 1;
    Operation recv{Operation::kRecv, pair.ours, &byte, 1};
    std::atomic<bool> started = false;
    std::thread starter([&] {
      Pin(0);
      port.Start(&recv);
      started = true;
      busy();
    });
    while (!started) SleepMs(0.2);
    SleepMs(busy_ms * 0.1 + time % 7);
    const int before = getter->packets;
    const double sent = NowMs();
    if (send(pair.theirs, &data, 1, 0) != 1) Die("send", errno);
    while (getter->packets == before) SleepMs(0.1);
    delays.push_back(getter->at - sent);
    starter.join();
  }
  std::sort(delays.begin(), delays.end());
  printf("{\"form\":\"%s\",\"experiment\":\"delay\",\"starter\":\"%s\",\"times\":%d,\"busyMs\":%.0f,", form, what, times, busy_ms);
  printf("\"medianMs\":%.3f,\"maxMs\":%.3f}\n", delays[delays.size() / 2], delays.back());
  fflush(stdout);
}

void DelayExperiment(Port& port, const char* form) {
  auto* getter = new Getter(port);
  Delay(port, getter, form, "computes", 10, 1000, [] { Compute(1000); });
  // Somebody else's thread has its CPU: three that compute beside it.
  std::atomic<bool> stop = false;
  std::vector<std::thread> rivals;
  for (int index = 0; index < 3; index++)
    rivals.emplace_back([&] {
      Pin(0);
      while (!stop) Compute(1);
    });
  Delay(port, getter, form, "computes, 3 others on its CPU", 10, 500, [] { Compute(500); });
  stop = true;
  for (auto& rival : rivals) rival.join();
  // A wait that only a kill interrupts, as for a disk: the parent of a vfork until the child is gone.
  Delay(port, getter, form, "waits uninterruptibly", 3, 1000, [] {
    const pid_t child = vfork();
    if (child == 0) {
      timespec second = {1, 0};
      nanosleep(&second, nullptr);
      _exit(0);
    }
    waitpid(child, nullptr, 0);
  });
}

/** A thread starts 8 receives for other connections and ends; then every connection gets a byte. */
void ExitExperiment(Port& port, const char* form) {
  constexpr int kCount = 8;
  auto* getter = new Getter(port);
  Pair pairs[kCount];
  char bytes[kCount], data = 1;
  Operation operations[kCount];
  for (int index = 0; index < kCount; index++) operations[index] = {Operation::kRecv, pairs[index].ours, &bytes[index], 1};
  std::thread([&] {
    for (auto& operation : operations) port.Start(&operation);
  }).join();
  SleepMs(200);
  const int cancelled = getter->cancelled;
  for (auto& pair : pairs)
    if (send(pair.theirs, &data, 1, 0) != 1) Die("send", errno);
  SleepMs(500);
  printf("{\"form\":\"%s\",\"experiment\":\"exit\",\"started\":%d,\"cancelledBefore\":%d,\"cancelled\":%d,\"completed\":%d}\n", form,
         kCount, cancelled, getter->cancelled.load(), getter->packets - getter->cancelled);
  fflush(stdout);
}

/** A thread starts a receive and then makes a waiting call that has nothing to do with the port; the byte comes meanwhile. */
void EintrExperiment(Port& port, const char* form) {
  constexpr int kTimes = 100;
  constexpr int kWaitMs = 20;
  auto* getter = new Getter(port);
  Pair foreign;
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  epoll_ctl(epoll, EPOLL_CTL_ADD, foreign.ours, &event);
  timeval limit = {0, kWaitMs * 1000};
  setsockopt(foreign.ours, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  struct Call {
    const char* name;
    std::function<int()> make;
  };
  const Call calls[] = {
      {"epoll_wait", [&] { return epoll_wait(epoll, &event, 1, kWaitMs); }},
      {"poll",
       [&] {
         pollfd entry = {foreign.ours, POLLIN, 0};
         return poll(&entry, 1, kWaitMs);
       }},
      {"select",
       [&] {
         fd_set set;
         FD_ZERO(&set);
         FD_SET(foreign.ours, &set);
         timeval time = {0, kWaitMs * 1000};
         return select(foreign.ours + 1, &set, nullptr, nullptr, &time);
       }},
      {"recv with SO_RCVTIMEO",
       [&] {
         char byte;
         return static_cast<int>(recv(foreign.ours, &byte, 1, 0));
       }},
      {"sigtimedwait",
       [&] {
         sigset_t set;
         sigemptyset(&set);
         sigaddset(&set, SIGUSR1);
         timespec time = {0, kWaitMs * 1'000'000};
         return sigtimedwait(&set, nullptr, &time);
       }},
      {"nanosleep",
       [&] {
         timespec time = {0, kWaitMs * 1'000'000};
         return nanosleep(&time, nullptr);
       }},
  };
  for (const Call& call : calls) {
    int interrupted = 0;
    std::thread starter([&] {
      for (int time = 0; time < kTimes; time++) {
        Pair pair;
        char byte, data = 1;
        Operation recv{Operation::kRecv, pair.ours, &byte, 1};
        const int before = getter->packets;
        port.Start(&recv);
        std::thread sender([&] {
          SleepMs(kWaitMs / 4);
          if (send(pair.theirs, &data, 1, 0) != 1) Die("send", errno);
        });
        errno = 0;
        if (call.make() < 0 && errno == EINTR) interrupted++;
        sender.join();
        while (getter->packets == before) SleepMs(0.1);
      }
    });
    starter.join();
    printf("{\"form\":\"%s\",\"experiment\":\"eintr\",\"call\":\"%s\",\"times\":%d,\"EINTR\":%d}\n", form, call.name, kTimes, interrupted);
    fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string form = "io-thread", experiment;
  unsigned workers = 1, batch = 1;
  for (int index = 1; index + 1 < argc; index += 2) {
    const std::string option = argv[index];
    const char* value = argv[index + 1];
    if (option == "--form")
      form = value;
    else if (option == "--workers")
      workers = static_cast<unsigned>(atoi(value));
    else if (option == "--batch")
      batch = static_cast<unsigned>(atoi(value));
    else if (option == "--experiment")
      experiment = value;
    else
      Die(argv[index], EINVAL);
  }
  rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);

  auto* port = MakePort(form).release();
  if (experiment == "delay")
    DelayExperiment(*port, form.c_str());
  else if (experiment == "exit")
    ExitExperiment(*port, form.c_str());
  else if (experiment == "eintr")
    EintrExperiment(*port, form.c_str());
  else
    Serve(*port, workers, batch);
  fflush(stdout);
  _exit(0);
}
