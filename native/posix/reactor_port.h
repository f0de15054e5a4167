// The reactor: a completion port on an OS that only says when a descriptor is ready. Operations of sockets are tried, and wait for their
// poller's word where they would block; those of files are calls on a pool of threads. The packets are kept in user space, as io_uring's are
// (core/packet_queue.h).
//
// Threads: a private port's thread does all of it. Of a shared port any thread does, under the mutex: no call here blocks. The driver alone
// waits, without the mutex, for the poller to have something; it takes nothing there.
//
// Invariants:
// - An operation of a socket is in one of three places: in line behind others of its direction (core's StreamQueue, kWaiting), in the backlog
//   (kWaiting, backlogged: it is tried with the next turn), or armed (kKernel: it is the head of its queue, or its handle's `connecting`, the
//   direction's bit in Handle::ready is clear, and the poller was asked by Arm since).
// - A bit of Handle::ready is cleared only behind a call that found the direction exhausted, and set by each event; what has been taken from
//   the poller is in `ready` before the mutex is let go. So an operation that waits while its direction is ready has an event to come.
// - An event starts a try and nothing else. One that comes for nothing, or for a handle that took the place of another, finds EAGAIN.
// - A turn is bounded (kTriesMax, kTurnBytesMax), each operation has one call in its turn and goes to the end of the backlog: a handle that is
//   always ready starves nobody. Nobody sleeps while the backlog isn't empty.
// - A turn that has ended operations already may leave the poller alone, once in a row: what is there fills the next turn, instead of being
//   taken in small pieces, a call each. Whoever sleeps has looked.
// - A descriptor that a pool thread uses is closed behind the thread's call, never under it.
// - A pool thread makes its call in memory of its own and copies from or to the operation's before or behind it, as long as the operation hasn't
//   been taken from it (Abandon). So an environment that ends waits for a copy of kCopyBytesMax at most, and for no disk.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/file_pool.h"
#include "posix/files.h"
#include "posix/poller.h"
#include "posix/posix_port.h"

namespace cp::posix {

class ReactorPort final : public PosixPort {
  static constexpr uint32_t kTakesMax = 64;  // calls of the poller in a row, where each came back full

 public:
  // Null: see *error.
  using MakePoller = std::unique_ptr<Poller> (*)(CreateError* error);
  static std::unique_ptr<ReactorPort> Create(const PortOptions& options, const char* name, MakePoller make, CreateError* error);
  ~ReactorPort() override;

  const char* name() const override { return name_; }
  std::vector<std::pair<std::string, bool>> features() const override;
  int notification_fd() const override { return poller_->descriptor(); }
  bool stays_ready() const override { return true; }
  void ClearNotification() override {}
  void Look() override;
  // Of a private port: its event loop is to come, whoever takes the poller's event of it.
  void RaiseNotification() override {
    raised_ = true;
    poller_->Wake();
  }
  bool WatchLoop(int fd) override { return poller_->WatchLoop(fd) == 0; }

 protected:
  bool Open(CreateError* error) override;
  void Drive() override;
  void Begin(Operation& op) override;
  void RequestCancel(Operation& op) override;
  void Withdraw(Operation& op) override;
  int Flush(bool reap) override;
  int Wait(double timeout_ms) override;
  bool Notify(bool on) override;
  bool Settle() override;
  void Kick() override { poller_->Wake(); }
  int BindHandle(Handle& handle) override;
  void ReleaseHandle(Handle& handle, bool busy, bool reset) override;
  Outcome MoveNow(Handle& handle, bool sending, std::byte* data, size_t bytes) override;
  bool Abandon(Operation& op) override;
  void LetGoOfJobs() override;
  void Finish() override;
  void BackendStats(Control& control) override;

 private:
  // What pool threads and the port share; outlives both sides.
  struct Channel;
  struct FileJob;

  ReactorPort(const PortOptions& options, const char* name, MakePoller make) : PosixPort(options), name_(name), make_(make) {}

  void Pump();
  void Reap(double timeout_ms, uint32_t takes_max = kTakesMax);
  void OnEvent(const ReadyEvent& event);
  void RaiseIfWanted();

  void Try(Operation& op);
  void TryRecv(Operation& op);
  void TrySend(Operation& op);
  void TryAccept(Operation& op);
  void TryConnect(Operation& op);
  void Exhausted(Operation& op);
  void Ended(Operation& op, const Outcome& outcome);

  void TryFile(Operation& op);
  void StartJob(Operation& op);
  bool Describe(Operation& op, FileRequest* request);
  void DrainJobs();
  void LetGo(FileJob& job);
  void Unlist(FileJob& job);

  const char* const name_;
  const MakePoller make_;
  std::unique_ptr<Poller> poller_;
  std::shared_ptr<Channel> channel_;
  pool::Share pool_{options_.pool_threads};
  Backlog backlog_;
  uint64_t turn_bytes_ = 0;       // moved in this turn
  uint32_t armed_ = 0;            // operations that wait for the poller
  uint32_t jobs_ = 0;             // on the pool, whether their operations wait for them or not
  FileJob* abandoned_ = nullptr;  // those whose operations have ended
  bool reads_now_ = false;
  bool notifying_ = false;
  bool raised_ = false;   // RaiseNotification was called, and the event loop hasn't come
  bool looked_ = false;   // the poller was looked at, and nothing has been asked of it since
  bool skipped_ = false;  // the turn before left it alone
  int last_error_ = 0;
};

}  // namespace cp::posix
