// Description: see faults.h. A fault is one that the real call may have: its caller must be right in any case.
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "kqueue_shim.h"

namespace kqueue_shim {

namespace {

struct Dice {
  std::mutex mutex;
  uint64_t state = 0;
  uint32_t one_in = 0;   // 0: no faults
  size_t whole = 65536;  // what is no longer than this is moved whole

  Dice() {
    const char* given = std::getenv("COMPLETION_PORT_KQUEUE_FAULTS");
    if (given == nullptr || *given == 0) return;
    char* end = nullptr;
    state = std::strtoull(given, &end, 10) * 0x9e3779b97f4a7c15u + 1;
    one_in = *end == ',' ? static_cast<uint32_t>(std::strtoul(end + 1, &end, 10)) : 8;
    if (*end == ',') whole = std::strtoul(end + 1, nullptr, 10);
    if (one_in == 0) one_in = 1;
  }
  uint32_t Next(uint32_t limit) {
    std::lock_guard lock(mutex);
    if (state == 0) state = 1;  // never left by what follows
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return static_cast<uint32_t>((state * 0x2545f4914f6cdd1du) >> 32) % limit;
  }
};

Dice& TheDice() {
  static Dice* dice = new Dice;  // threads may outlive main
  return *dice;
}

// In place of the call; else it goes on.
bool Interrupted() {
  if (!Misbehaves() || Below(2) != 0) return false;
  errno = EINTR;
  return true;
}

// At least half of what would be moved whole, and less than was asked for.
size_t Shorter(size_t length) {
  const size_t whole = TheDice().whole, least = std::max<size_t>(whole / 2, 1);
  if (length <= whole || length <= least || !Misbehaves()) return length;
  return least + Below(static_cast<uint32_t>(std::min<size_t>(length - least, 1u << 30)));
}

// A vector of its first `bytes`.
std::vector<iovec> Cut(const iovec* vector, size_t count, size_t bytes) {
  std::vector<iovec> cut;
  for (size_t i = 0; i < count && bytes > 0; i++) {
    const size_t length = std::min(vector[i].iov_len, bytes);
    cut.push_back({vector[i].iov_base, length});
    bytes -= length;
  }
  return cut;
}

size_t LengthOf(const iovec* vector, size_t count) {
  size_t length = 0;
  for (size_t i = 0; i < count; i++) length += vector[i].iov_len;
  return length;
}

std::atomic<uint32_t> refuses_one_in{0};

}  // namespace

bool Refuses() {
  const uint32_t one_in = refuses_one_in;
  return one_in != 0 && TheDice().Next(one_in) == 0;
}

bool Misbehaves() {
  Dice& dice = TheDice();
  return dice.one_in != 0 && dice.Next(dice.one_in) == 0;
}

uint32_t Below(uint32_t limit) { return TheDice().Next(limit); }

}  // namespace kqueue_shim

using namespace kqueue_shim;

extern "C" {

void kqueue_shim_refuse(uint32_t one_in) { refuses_one_in = one_in; }

ssize_t kqueue_shim_recv(int fd, void* data, size_t length, int flags) {
  return Interrupted() ? -1 : recv(fd, data, Shorter(length), flags);
}

ssize_t kqueue_shim_send(int fd, const void* data, size_t length, int flags) {
  return Interrupted() ? -1 : send(fd, data, Shorter(length), flags);
}

ssize_t kqueue_shim_sendmsg(int fd, const msghdr* message, int flags) {
  if (Interrupted()) return -1;
  const size_t length = LengthOf(message->msg_iov, message->msg_iovlen), shorter = Shorter(length);
  if (shorter == length) return sendmsg(fd, message, flags);
  std::vector<iovec> cut = Cut(message->msg_iov, message->msg_iovlen, shorter);
  msghdr other = *message;
  other.msg_iov = cut.data();
  other.msg_iovlen = cut.size();
  return sendmsg(fd, &other, flags);
}

ssize_t kqueue_shim_pread(int fd, void* data, size_t length, off_t position) { return pread(fd, data, Shorter(length), position); }

ssize_t kqueue_shim_pwrite(int fd, const void* data, size_t length, off_t position) { return pwrite(fd, data, Shorter(length), position); }

ssize_t kqueue_shim_preadv(int fd, const iovec* vector, int count, off_t position) {
  const size_t length = LengthOf(vector, static_cast<size_t>(count)), shorter = Shorter(length);
  if (shorter == length) return preadv(fd, vector, count, position);
  const std::vector<iovec> cut = Cut(vector, static_cast<size_t>(count), shorter);
  return preadv(fd, cut.data(), static_cast<int>(cut.size()), position);
}

ssize_t kqueue_shim_pwritev(int fd, const iovec* vector, int count, off_t position) {
  const size_t length = LengthOf(vector, static_cast<size_t>(count)), shorter = Shorter(length);
  if (shorter == length) return pwritev(fd, vector, count, position);
  const std::vector<iovec> cut = Cut(vector, static_cast<size_t>(count), shorter);
  return pwritev(fd, cut.data(), static_cast<int>(cut.size()), position);
}

int kqueue_shim_accept(int fd, sockaddr* address, socklen_t* length) { return Interrupted() ? -1 : accept(fd, address, length); }

int kqueue_shim_connect(int fd, const sockaddr* address, socklen_t length) {
  const int result = connect(fd, address, length);
  const int error = errno;
  Connecting(fd);
  if (result == 0 || error != EINPROGRESS || !Misbehaves()) {
    errno = error;
    return result;
  }
  // On loopback it is done by now more often than not.
  sockaddr_storage peer;
  socklen_t peer_length = sizeof(peer);
  if (Below(2) != 0 && getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &peer_length) == 0) return 0;
  errno = Below(2) != 0 ? EINTR : EINPROGRESS;
  return -1;
}

int kqueue_shim_poll(pollfd* fds, nfds_t count, int timeout_ms) {
  return timeout_ms != 0 && Interrupted() ? -1 : poll(fds, count, timeout_ms);
}

}  // extern "C"
