// A test of the native side without Node: named cases in one registry, checks that count and say where, and a port in memory that is
// fenced by guard pages, so that a byte written outside the arena ends the program.
//
// It runs on any POSIX system (harness_posix.cc), and on Windows with the cases that need no POSIX (native/win/test/). Beyond POSIX.1-2008 the tests
// use: MAP_ANON (mmap(2) of FreeBSD and macOS; Linux has it, too), in harness_posix.cc; MSG_NOSIGNAL nowhere, since macOS's send(2) hasn't got it:
// the program ignores SIGPIPE; MSG_DONTWAIT with recv(2) only, which FreeBSD's and macOS's pages have, since macOS's send(2) hasn't; /dev/zero
// (zero(4) of both).
#pragma once

#if defined(CP_BACKEND_IOCP)
#include "win/windows.h"
#else
#include <netinet/in.h>
#include <unistd.h>
#endif
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/port.h"
#if !defined(CP_BACKEND_IOCP)
#include "posix/poller.h"
#endif

namespace cp::test {

// xorshift64*: small, seeded, the same everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1du;
  }
  uint32_t Below(uint32_t limit) { return static_cast<uint32_t>((Next() >> 32) % limit); }
  bool OneIn(uint32_t n) { return Below(n) == 0; }

 private:
  uint64_t state_;
};

struct Context {
  uint64_t seed = 1;
  double scale = 1;
  uint32_t Count(uint32_t n) const {
    const double scaled = n * scale;
    return scaled < 1 ? 1 : static_cast<uint32_t>(scaled);
  }
};

// What a case is about: every backend, or those that the reactor makes, or one.
enum class On { kAny, kReactor, kUring };

// A clause's case checks one rule of what a port does, in a moment; its id is the clause's in src/conformance/clauses.ts, or that with `/name`
// behind it. A stress case, with an id in small letters, asserts invariants over many rounds.
struct Case {
  const char* id;
  const char* rule;
  void (*run)(const Context&);
  On on;
  bool clause() const { return id[0] >= 'A' && id[0] <= 'Z'; }
};
std::vector<Case>& Cases();
// Makes a case out of the function body that follows. `name`: of the function.
#define CASE_ON(name, id, rule, on)                           \
  static void name(const Context& context);                   \
  static const Register register_##name(id, rule, &name, on); \
  static void name([[maybe_unused]] const Context& context)
#define CASE(name, id, rule) CASE_ON(name, id, rule, On::kAny)

struct Register {
  Register(const char* id, const char* rule, void (*run)(const Context&), On on = On::kAny) { Cases().push_back({id, rule, run, on}); }
};

// The backends of this build.
#if defined(CP_BACKEND_LINUX)
inline constexpr const char* kBackends[] = {"io_uring", "epoll"};
#elif defined(CP_BACKEND_IOCP)
inline constexpr const char* kBackends[] = {"iocp"};
#else
inline constexpr const char* kBackends[] = {"kqueue"};
#endif

// The backend that this run is about, and a port on it; null: see *error.
const char* Backend();
std::unique_ptr<Port> MakePort(const PortOptions& options, CreateError* error);
void ChooseBackend(const char* name);
#if !defined(CP_BACKEND_IOCP)
// The poller of the build's reactor.
std::unique_ptr<posix::Poller> MakePoller(CreateError* error);
#endif

inline constexpr auto kOk = static_cast<int32_t>(Status::kOk);
inline constexpr auto kCanceled = static_cast<int32_t>(Status::kECANCELED);
inline constexpr auto kTimedOut = static_cast<int32_t>(Status::kETIMEDOUT);
inline constexpr auto kReset = static_cast<int32_t>(Status::kECONNRESET);

// A failed check ends its case, whichever of its threads it is in: its process ends.
[[noreturn]] void Fail(const char* file, int line, const std::string& what);

#define CHECK(condition)                                                \
  do {                                                                  \
    if (!(condition)) ::cp::test::Fail(__FILE__, __LINE__, #condition); \
  } while (0)
#define CHECK_EQ(a, b)                                                                                                                    \
  do {                                                                                                                                    \
    const auto left_ = (a);                                                                                                               \
    const auto right_ = (b);                                                                                                              \
    if (!(left_ == right_))                                                                                                               \
      ::cp::test::Fail(__FILE__, __LINE__, std::string(#a " == " #b ": ") + std::to_string(left_) + " is not " + std::to_string(right_)); \
  } while (0)

// ---- a case in a process of its own (main.cc; apart_posix.cc, native/win/test/apart.cc) ---------------------------------------

struct Apart {
  const char* program;  // argv[0]
  const Case& each;
  uint32_t repeat;
  Context context;
  double until;  // by MonotonicMs: it is ended then
};
// What the whole program needs of its system. `report`: where a case's process is to tell its failure, as RunApart has named it; null: nowhere.
void PrepareProcess(const char* report);
// Runs `run` in a process of its own. Empty: it passed; else what went wrong.
std::string RunApart(const Apart& apart, const std::function<void()>& run);
// In a case's process: tells what went wrong to whoever started it. False: nobody did.
bool ReportFailure(const std::string& text);

// Memory between two pages that nobody may touch.
class Fenced {
 public:
  explicit Fenced(size_t bytes);
  ~Fenced();
  Fenced(const Fenced&) = delete;
  Fenced& operator=(const Fenced&) = delete;
  std::span<std::byte> span() const { return {data_, bytes_}; }

 private:
  std::byte* base_;
  std::byte* data_;
  size_t bytes_;
  size_t mapped_;
};

struct TestPortOptions {
  uint32_t max_operations = 4096;
  uint32_t ring_entries = 0;
  size_t arena_bytes = 1 << 20;
  std::string disable;
  uint64_t owner = 1;
  // Null: MakePort.
  std::unique_ptr<Port> (*make)(const PortOptions& options, CreateError* error) = nullptr;
};

// A port and the JavaScript half that is missing here: slots and generations.
class TestPort {
 public:
  explicit TestPort(const TestPortOptions& options = {});
  ~TestPort();

  Port& port() { return *port_; }
  std::byte* arena() { return arena_.span().data(); }
  size_t arena_bytes() { return arena_.span().size(); }
  Control& control() { return *port_->first().control; }

  // A slot that is free; each is named with its generation in SubmissionEntry.
  uint32_t TakeSlot();
  uint32_t generation(uint32_t slot) const { return generations_[slot]; }
  void Stage(const SubmissionEntry& entry);
  // Stages an operation on arena memory; returns its slot.
  uint32_t Start(Opcode opcode, const Handle& handle, uint64_t offset, uint64_t length, double position = 0, double timeout_ms = -1);
  // The same with whatever is asked for beside it.
  uint32_t Start(SubmissionEntry entry, const Handle& handle);
  // A vectored one on arena memory: (offset, length) each.
  uint32_t StartVector(Opcode opcode, const Handle& handle, const std::vector<std::pair<uint32_t, uint32_t>>& parts);
  uint32_t Connect(const Handle& handle, const sockaddr_in& to);
  // False: the port is closed, or there is no memory.
  bool Post(double key, double bytes = 0, double operation_id = 0);
  // Begins an open; its slot.
  uint32_t Open(const std::string& path, int flags, double key);
  // Reaps until `count` packets are queued, and takes none.
  void AwaitQueued(uint32_t count);
  // Up to `max` packets; waits for the first up to timeout_ms.
  std::vector<CompletionEntry> Get(uint32_t max, double timeout_ms);
  // Exactly `count` packets within 10 s, or the case fails.
  std::vector<CompletionEntry> GetExactly(uint32_t count);
  CompletionEntry GetOne() { return GetExactly(1)[0]; }
  void Submit();
  void Enter(uint32_t flags, uint32_t max);
  bool Cancel(uint32_t slot) { return port_->Cancel(port_->first(), slot, generations_[slot], EndedBy::kCancel); }
  bool Close(Handle& handle, bool reset) { return port_->CloseHandle(port_->first(), handle.index, handle.last_generation, reset); }
  Handle& Adopt(HandleKind kind, OsHandle os, double key);
  // The handle that an accept or open has made.
  static Handle& Made(const CompletionEntry& packet);
  // Two connected TCP sockets on loopback: .first is a handle of this port, .second a plain descriptor of the test.
  std::pair<Handle*, int> Pair(double key);
  // Returns the slot for reuse, as JavaScript does on delivery.
  void Delivered(const CompletionEntry& entry);

 private:
  uint64_t owner_;
  Fenced block_;
  Fenced arena_;
  std::unique_ptr<Port> port_;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> generations_;
};

void TcpPair(int out[2]);
// How many descriptors are open.
int OpenDescriptors();
// Takes all descriptors that are left; for cases that run in a process of their own, or close them.
std::vector<int> TakeDescriptors();
// A socket that no child inherits.
int NewSocket();
// Listens on loopback, at a port of the system's choice.
int Listening(sockaddr_in* address, int backlog = 1024);
int Connected(const sockaddr_in& address);
// A listener whose backlog is full, so that the next connection stays in the making. `fillers`: connections that keep it so, to be closed.
int ListeningFull(sockaddr_in* address, std::vector<int>* fillers);
// Closes with a reset.
void ResetNow(int fd);
void WriteAll(int fd, const void* data, size_t bytes);
// Exactly `bytes`, or the case fails; waits for them.
void ReadAll(int fd, void* data, size_t bytes);
// An open file without a name.
int TempFile();
void SleepMs(double ms);
// Of the allocations that ask whether there is memory (std::nothrow) the `nth` from here on, on any thread, finds none; 0 is the next, -1: all do.
void FailAllocation(int32_t nth);

}  // namespace cp::test
