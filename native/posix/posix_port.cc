// See posix_port.h. Facts: socket(7), shutdown(2), recv(2), send(2), pthread_create(3).
#include "posix/posix_port.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <semaphore>

#include "posix/errors.h"
#include "posix/files.h"
#include "posix/sockets.h"
#include "posix/thread_name.h"
#include "posix/thread_sample.h"

namespace cp::posix {

// ---- the driver of a shared port ------------------------------------------------------------------------------------------

namespace {

struct StartOfDriver {
  PosixPort* port;
  CreateError* error;
  bool opened = false;
  std::binary_semaphore done{0};
};

}  // namespace

bool PosixPort::Start(CreateError* error) {
  if (!shared_) return Open(error);
  StartOfDriver start{this, error};
  // Signals are for the program's own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int result = pthread_create(&driver_thread_, nullptr, &PosixPort::RunDriver, &start);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (result != 0) {
    *error = {ENOMEM, "the I/O thread of the port can't be started: too many threads, or no memory"};
    return false;
  }
  driver_started_ = true;
  start.done.acquire();
  if (!start.opened) PosixPort::JoinDriver();
  return start.opened;
}

void* PosixPort::RunDriver(void* given) {
  auto& start = *static_cast<StartOfDriver*>(given);
  PosixPort* port = start.port;
  NameThread("completion-port");
  port->driver_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  const bool opened = start.opened = port->Open(start.error);
  start.done.release();  // `start` is gone from here on
  if (opened) port->Drive();
  return nullptr;
}

void PosixPort::JoinDriver() {
  if (driver_started_) pthread_join(driver_thread_, nullptr);
  driver_started_ = false;
}

ThreadSample PosixPort::SampleThread(uint64_t thread) { return SampleThreadState(thread); }

// ---- handles --------------------------------------------------------------------------------------------------------------

void PosixPort::CloseOs(HandleKind, OsHandle os) { close(static_cast<int>(os)); }

void PosixPort::ShutdownDirection(Handle& handle, int how, Outcome& outcome) {
  const int direction = how == 0 ? SHUT_WR : how == 1 ? SHUT_RD : SHUT_RDWR;
  if (shutdown(static_cast<int>(handle.os), direction) != 0) outcome.native_code = errno;
}

Outcome PosixPort::MoveNow(Handle& handle, bool sending, std::byte* data, size_t bytes) {
  const int fd = static_cast<int>(handle.os);
  ssize_t result;
  do {
    result = sending ? send(fd, data, bytes, kNoSignal | MSG_DONTWAIT) : recv(fd, data, bytes, MSG_DONTWAIT);
  } while (result < 0 && errno == EINTR);
  if (result < 0) return {0, errno == EWOULDBLOCK ? EAGAIN : errno};
  return {result, 0};
}

void PosixPort::LingerNot(int fd) {
  // close(2) of a socket with a zero linger time sends a reset (socket(7), SO_LINGER).
  const linger now = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

// ---- operations -----------------------------------------------------------------------------------------------------------

bool PosixPort::MakeVectorRoom(Operation& op) {
  return op.extra->os_vector.size() > 0 || op.extra->os_vector.Reset(op.extra->segments.size() * sizeof(iovec));
}

uint32_t PosixPort::FillVector(Operation& op, uint64_t bytes_max) {
  iovec* vector = VectorOf(op);
  uint32_t count = 0;
  uint64_t skip = op.done;
  for (const Segment& segment : op.extra->segments) {
    if (bytes_max == 0) break;
    if (skip >= segment.length) {
      skip -= segment.length;
      continue;
    }
    const uint64_t length = std::min<uint64_t>(segment.length - skip, bytes_max);
    vector[count++] = {segment.data + skip, static_cast<size_t>(length)};
    bytes_max -= length;
    skip = 0;
  }
  return count;
}

void PosixPort::EndedOpen(Operation& op, int result, bool looked) {
  op.state = OperationState::kWaiting;
  int verdict = result < 0 ? (looked ? result : OpenError(-result)) : looked ? 0 : Classify(result);
  if (verdict == 0) return CompleteWithHandle(op, HandleKind::kFile, result, nullptr, (op.extra->open_flags & O_APPEND) != 0);
  if (result >= 0) close(result);
  if (verdict == kNotAFile) return Complete(op, Status::kERR_NOT_A_FILE, 0);
  if (verdict == kIsDirectory) verdict = -EISDIR;
  Report(op, {0, -verdict});
}

// ---- errors ---------------------------------------------------------------------------------------------------------------

Status PosixPort::MapError(int32_t code) const { return MapErrno(code); }
bool PosixPort::Transient(int32_t code) const { return code == EINTR || code == EAGAIN; }
bool PosixPort::IsCanceled(int32_t code) const { return code == ECANCELED || code == EINTR; }
bool PosixPort::IsReset(int32_t code) const { return code == ECONNRESET; }
bool PosixPort::IsStreamFatal(int32_t code) const { return posix::IsStreamFatal(code); }
bool PosixPort::IsOutOfDescriptors(int32_t code) const { return code == EMFILE || code == ENFILE || code == ENOBUFS || code == ENOMEM; }
bool PosixPort::IsAborted(int32_t code) const { return code == ECONNABORTED; }
int32_t PosixPort::CanceledCode() const { return ECANCELED; }
int32_t PosixPort::NotConnectedCode() const { return ENOTCONN; }
int32_t PosixPort::ResetCode() const { return ECONNRESET; }
int32_t PosixPort::InvalidCode() const { return EINVAL; }
int32_t PosixPort::BadHandleCode() const { return EBADF; }

}  // namespace cp::posix
