// Making a ring: each setup flag and opcode is tried, none is guessed from the kernel's version, and each can be masked by
// COMPLETION_PORT_DISABLE. What is denied or missing is explained in words.
#include "linux/uring_port.h"

#include <sys/eventfd.h>
#include <unistd.h>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

#include "posix/errors.h"

namespace cp {

namespace {

constexpr uint32_t kRingEntries = 512;      // SQEs prepared between two enters
constexpr uint32_t kCompletionFactor = 16;  // CQ entries per SQ entry: 8,192 stay within a cache of 128 KiB; more overflow in the kernel

// The opcodes without which there is no port; all in Linux 5.6.
constexpr int kRequired[] = {IORING_OP_NOP,     IORING_OP_READV,  IORING_OP_WRITEV,       IORING_OP_FSYNC,   IORING_OP_POLL_ADD,
                             IORING_OP_SENDMSG, IORING_OP_ACCEPT, IORING_OP_ASYNC_CANCEL, IORING_OP_CONNECT, IORING_OP_OPENAT,
                             IORING_OP_READ,    IORING_OP_WRITE,  IORING_OP_SEND,         IORING_OP_RECV};

int ReadSysctl() {
  FILE* file = std::fopen("/proc/sys/kernel/io_uring_disabled", "re");
  if (file == nullptr) return 0;
  int value = 0;
  if (std::fscanf(file, "%d", &value) != 1) value = 0;
  std::fclose(file);
  return value;
}

}  // namespace

std::string ExplainUringError(int32_t native_code, const char* call) {
  const std::string what = std::string(call) + " failed (" + strerror(native_code) + "): ";
  switch (native_code) {
    case EPERM:
    case EACCES:
      if (const int value = ReadSysctl(); value != 0)
        return what + "the sysctl kernel.io_uring_disabled is " + std::to_string(value) + "; set it to 0 to allow io_uring";
      return what +
             "a seccomp profile denies io_uring, as container runtimes do by default; allow io_uring_setup, io_uring_enter and "
             "io_uring_register in the container's profile";
    case ENOSYS:
      return what + "this kernel has no io_uring (it came with Linux 5.1), or a seccomp profile hides it";
    case EINVAL:
      return what + "this kernel's io_uring is too old; Linux 5.6 or later is needed";
    case ENOMEM:
      return what + "not enough memory for the ring; before Linux 5.12 it counts as locked memory: raise ulimit -l";
    case EMFILE:
    case ENFILE:
      return what + posix::ExplainShortage(native_code);
    default:
      return what + "io_uring can't be used";
  }
}

std::unique_ptr<UringPort> UringPort::Create(const PortOptions& options, CreateError* error) {
  if (IsDisabled(options.disable, "io_uring")) {
    *error = {EPERM, "io_uring is switched off by COMPLETION_PORT_DISABLE"};
    return nullptr;
  }
  std::unique_ptr<UringPort> port(new (std::nothrow) UringPort(options));
  if (!port) *error = {ENOMEM, posix::ExplainShortage(ENOMEM)};
  if (!port || !port->Start(error)) return nullptr;
  return port;
}

// Tries the flags from the best set to the plain ring. 0 or a negative errno.
int UringPort::SetUp(const PortOptions& options) {
  const auto wanted = [&](const char* name) { return !IsDisabled(options.disable, name); };
  const uint32_t taskrun = wanted("taskrun_flag") ? IORING_SETUP_TASKRUN_FLAG : 0;
  const uint32_t single = wanted("single_issuer") ? IORING_SETUP_SINGLE_ISSUER : 0;
  // Without the flag nobody would know that deferred work waits, so the two go together; it needs the single issuer.
  const uint32_t defer = wanted("defer_taskrun") && taskrun != 0 && single != 0 ? IORING_SETUP_DEFER_TASKRUN : 0;
  const uint32_t all = wanted("submit_all") ? IORING_SETUP_SUBMIT_ALL : 0;
  const uint32_t coop = taskrun != 0 ? IORING_SETUP_COOP_TASKRUN | taskrun : 0;
  const uint32_t attempts[] = {defer != 0 ? single | defer | taskrun | all : single | coop | all, single | coop | all, coop | all, all, 0};
  int result = -EINVAL;
  for (const uint32_t flags : attempts) {
    uint32_t entries = options.ring_entries != 0 ? options.ring_entries : kRingEntries;
    for (;; entries /= 2) {
      io_uring_params params{};
      params.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
      params.cq_entries = entries * kCompletionFactor;
      result = io_uring_queue_init_params(entries, &ring_, &params);
      if (result == 0) {
        features_.single_issuer = (flags & IORING_SETUP_SINGLE_ISSUER) != 0;
        features_.defer_taskrun = (flags & IORING_SETUP_DEFER_TASKRUN) != 0;
        features_.taskrun_flag = (flags & IORING_SETUP_TASKRUN_FLAG) != 0;
        features_.submit_all = (flags & IORING_SETUP_SUBMIT_ALL) != 0;
        return 0;
      }
      // Locked memory or memory is short: a smaller ring does the same work with more calls.
      if (result != -ENOMEM || entries <= 8) break;
    }
    if (result != -EINVAL) return result;
  }
  return result;
}

bool UringPort::Open(CreateError* error) {
  int result = SetUp(options_);
  if (result != 0) {
    *error = {-result, ExplainUringError(-result, "io_uring_setup")};
    return false;
  }
  ring_open_ = true;
  if ((ring_.features & IORING_FEAT_NODROP) == 0 || (ring_.features & IORING_FEAT_FAST_POLL) == 0) {
    *error = {EINVAL, "this kernel's io_uring is too old (no FAST_POLL); Linux 5.7 or later is needed"};
    return false;
  }
  features_.ext_arg = (ring_.features & IORING_FEAT_EXT_ARG) != 0;
  if (IsDisabled(options_.disable, "ext_arg")) {
    // liburing looks at the same bit and waits by a timeout request instead.
    ring_.features &= ~static_cast<unsigned>(IORING_FEAT_EXT_ARG);
    features_.ext_arg = false;
  }
  io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
  if (probe == nullptr) {
    *error = {EPERM, ExplainUringError(EPERM, "io_uring_register")};
    return false;
  }
  bool complete = true;
  for (const int opcode : kRequired) complete = complete && io_uring_opcode_supported(probe, opcode) != 0;
  features_.statx = io_uring_opcode_supported(probe, IORING_OP_STATX) != 0 && !IsDisabled(options_.disable, "statx");
  features_.ftruncate = io_uring_opcode_supported(probe, IORING_OP_FTRUNCATE) != 0 && !IsDisabled(options_.disable, "ftruncate");
  io_uring_free_probe(probe);
  if (!complete) {
    *error = {EINVAL, ExplainUringError(EINVAL, "io_uring's probe of its operations")};
    return false;
  }
  event_fd_ = eventfd(0, shared_ ? EFD_CLOEXEC : EFD_CLOEXEC | EFD_NONBLOCK);
  result = event_fd_ < 0 ? -errno : shared_ ? 0 : io_uring_register_eventfd(&ring_, event_fd_);
  if (result != 0) {
    *error = {-result, ExplainUringError(-result, event_fd_ < 0 ? "eventfd" : "io_uring_register")};
    return false;
  }
  if (!shared_) {
    io_uring_cq_eventfd_toggle(&ring_, false);
    // Saves each enter a look-up of the descriptor. Best effort: a thread has room for 16 (io_uring_register_ring_fd(3), since 5.18). The number is
    // the thread's own, and a shared port's ring is closed by another one than its driver.
    if (!IsDisabled(options_.disable, "ring_fd")) io_uring_register_ring_fd(&ring_);
  }
  return RunNop(error);
}

// Some profiles allow the setup and deny the rest, so one request is run through.
bool UringPort::RunNop(CreateError* error) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  io_uring_prep_nop(sqe);
  const int result = io_uring_submit_and_wait(&ring_, 1);
  if (result < 0) {
    *error = {-result, ExplainUringError(-result, "io_uring_enter")};
    return false;
  }
  io_uring_cqe* cqe;
  if (io_uring_peek_cqe(&ring_, &cqe) != 0 || cqe->res != 0) {
    *error = {EINVAL, "io_uring ran a request without an answer"};
    return false;
  }
  io_uring_cqe_seen(&ring_, cqe);
  return true;
}

}  // namespace cp
