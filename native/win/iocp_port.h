// The IOCP backend. The kernel's completion port carries what the OS completes; packets, as the user gets them, are kept in the core's one queue
// (core/packet_queue.h), into which what comes out of the kernel's is moved in its order, and where posts and the ends of pool jobs stand, too.
//
// Threads: of a private port its thread alone calls for I/O and takes packets; while its event loop sleeps, a helper takes them in its place and
// calls the loop. Of a shared port the driver alone does both: "all I/O initiated by a given thread is canceled when that thread exits"
// (WSARecv, learn.microsoft.com), and packets that two threads take at once have no order. Cancels may come from any thread.
//
// Invariants:
// - An operation with the kernel has a Request of its own, which lies still until its packet has been taken; OVERLAPPED is in it. It is published,
//   with the operation marked, before the mutex is let go, so a packet always finds it.
// - A call that fails gives a packet of ours only if the kernel queues none: told by the NTSTATUS in OVERLAPPED.Internal, of which warnings queue one.
//   FILE_SKIP_COMPLETION_PORT_ON_SUCCESS isn't used: a packet that is made at the call would overtake those that wait in the kernel's queue.
// - `notifying_` with nothing taken: the helper is in the kernel, or on its way there. Whoever else wants to take calls it back first.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/file_pool.h"
#include "core/port.h"
#include "win/files.h"
#include "win/windows.h"

namespace cp::win {

class IocpPort final : public Port {
 public:
  // Null: see *error.
  static std::unique_ptr<IocpPort> Create(const PortOptions& options, CreateError* error);
  ~IocpPort() override;

  const char* name() const override { return "iocp"; }
  std::vector<std::pair<std::string, bool>> features() const override;
  int notification_fd() const override { return -1; }
  void SetWaker(std::function<void()> wake) override;
  void ClearNotification() override {}
  void RaiseNotification() override;
  bool WatchLoop(int) override { return false; }

 protected:
  void Begin(Operation& op) override;
  void RequestCancel(Operation& op) override;
  void Withdraw(Operation& op) override;
  int Flush(bool reap) override;
  int Wait(double timeout_ms) override;
  bool Notify(bool on) override;
  bool Settle() override;
  void Kick() override;
  ThreadSample SampleThread(uint64_t thread) override;
  void JoinDriver() override;
  int BindHandle(Handle& handle) override;
  void ReleaseHandle(Handle& handle, bool busy, bool reset) override;
  void CloseOs(HandleKind kind, OsHandle os) override;
  void ShutdownDirection(Handle& handle, int how, Outcome& outcome) override;
  void Finish() override;
  Status MapError(int32_t native_code) const override;
  bool Transient(int32_t native_code) const override;
  bool IsCanceled(int32_t native_code) const override;
  bool IsReset(int32_t native_code) const override;
  bool IsStreamFatal(int32_t native_code) const override;
  bool IsOutOfDescriptors(int32_t native_code) const override;
  bool IsAborted(int32_t native_code) const override;
  int32_t CanceledCode() const override { return ERROR_OPERATION_ABORTED; }
  int32_t NotConnectedCode() const override { return WSAENOTCONN; }
  int32_t ResetCode() const override { return WSAECONNRESET; }
  int32_t InvalidCode() const override { return ERROR_INVALID_PARAMETER; }
  int32_t BadHandleCode() const override { return ERROR_INVALID_HANDLE; }
  void BackendStats(Control& control) override;

 private:
  // What the kernel writes to while an operation is with it. Never given back to the heap while the port lives: a packet that nobody expects
  // finds a request without an operation.
  struct Request {
    OVERLAPPED overlapped{};
    Operation* op = nullptr;
    SOCKET accepted = INVALID_SOCKET;
    Request* previous = nullptr;
    Request* next = nullptr;
    char addresses[2 * (sizeof(sockaddr_storage) + 16)];  // AcceptEx: "16 bytes more than the maximum address length"
  };
  struct FileJob;
  enum Key : ULONG_PTR { kKeyRequest, kKeyJob, kKeyKick };
  static constexpr ULONG kTakenMax = 64;

  explicit IocpPort(const PortOptions& options) : Port(options) {}
  bool Open(CreateError* error);
  void Drive();
  ULONG Take(OVERLAPPED_ENTRY* entries, double timeout_ms);

  void Pump();
  void Reap(double timeout_ms);
  void ReapAll();
  void OnEntry(const OVERLAPPED_ENTRY& entry);
  void OnJob(FileJob& job);
  bool SomethingFinished() const;

  Request* NewRequest(Operation& op);
  void FreeRequest(Request& request);
  void Issued(Operation& op, Request& request, bool done, DWORD error);
  void Try(Operation& op);
  void TryRecv(Operation& op);
  void TrySend(Operation& op);
  void TryAccept(Operation& op);
  void TryConnect(Operation& op);
  void TryFile(Operation& op);
  void StartJob(Operation& op);
  void EndedAccept(Operation& op, SOCKET accepted, Request& request, DWORD error);
  void EndedFile(Operation& op, const Outcome& outcome);
  void EndedOpen(Operation& op, OsHandle result);
  void Ended(Operation& op, const Outcome& outcome);

  // ---- the helper of an event loop
  void HelperMain();
  void Arm();
  void CallBack();

  HANDLE port_ = nullptr;
  Backlog backlog_;
  Request* free_ = nullptr;  // oldest first
  Request* free_last_ = nullptr;
  Request* issued_ = nullptr;
  uint32_t kernel_ = 0;  // requests with the kernel
  pool::Share pool_{options_.pool_threads};
  uint32_t jobs_ = 0;  // operations on the pool
  bool notifying_ = false;
  int last_error_ = 0;
  std::thread driver_thread_;

  std::thread helper_;
  mutable std::mutex helper_mutex_;  // of what follows
  std::condition_variable helper_wanted_;
  std::condition_variable helper_back_;
  bool armed_ = false;   // the helper is to take packets
  bool taking_ = false;  // it is in the kernel for it
  bool called_back_ = false;
  bool helper_ends_ = false;
  std::vector<OVERLAPPED_ENTRY> taken_;
  std::function<void()> waker_;
};

}  // namespace cp::win
