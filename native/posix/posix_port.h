// What every backend on a POSIX system shares, whatever its OS tells it: errors, closing and shutting sockets down, vectors, and the thread that
// drives a shared port.
#pragma once

#include <pthread.h>
#include <sys/uio.h>
#include <cstdint>

#include "core/port.h"

namespace cp::posix {

class PosixPort : public Port {
 protected:
  explicit PosixPort(const PortOptions& options) : Port(options) {}

  // Opens, on the thread that will drive the port: the caller, or the driver of a shared port, which is started and goes on with Drive. False:
  // see *error, and no driver is left.
  bool Start(CreateError* error);
  // Makes the OS's queue.
  virtual bool Open(CreateError* error) = 0;
  // The driver's work; it returns when DriverTurn says that all is over.
  virtual void Drive() = 0;

  ThreadSample SampleThread(uint64_t thread) override;
  void JoinDriver() override;
  void CloseOs(HandleKind kind, OsHandle os) override;
  void ShutdownDirection(Handle& handle, int how, Outcome& outcome) override;
  bool MovesNow() const override { return true; }
  Outcome MoveNow(Handle& handle, bool sending, std::byte* data, size_t bytes) override;
  Status MapError(int32_t native_code) const override;
  bool Transient(int32_t native_code) const override;
  bool IsCanceled(int32_t native_code) const override;
  bool IsReset(int32_t native_code) const override;
  bool IsStreamFatal(int32_t native_code) const override;
  bool IsOutOfDescriptors(int32_t native_code) const override;
  bool IsAborted(int32_t native_code) const override;
  int32_t CanceledCode() const override;
  int32_t NotConnectedCode() const override;
  int32_t ResetCode() const override;
  int32_t InvalidCode() const override;
  int32_t BadHandleCode() const override;

  // Has the close of a socket send a reset.
  static void LingerNot(int fd);
  // Where the file of an operation is read or written next. In append mode the kernel takes the end of the file whatever is given (open(2)).
  static uint64_t FilePosition(const Operation& op) { return op.position < 0 ? 0 : static_cast<uint64_t>(op.position) + op.done; }
  // Room for the vector of a vectored operation. False: there is none.
  static bool MakeVectorRoom(Operation& op);
  // The vector behind what is done already, of at most `bytes_max`: iovecs in the operation's own memory, valid until its end. Their number.
  static uint32_t FillVector(Operation& op, uint64_t bytes_max = kLengthMax);
  static iovec* VectorOf(Operation& op) { return reinterpret_cast<iovec*>(op.extra->os_vector.data()); }
  // An open has come to its end: `result` is a descriptor or a negative errno, or, where `looked`, what posix::Open answers.
  void EndedOpen(Operation& op, int result, bool looked);

 private:
  static void* RunDriver(void* start);

  pthread_t driver_thread_{};
  bool driver_started_ = false;
};

}  // namespace cp::posix
