// See test/harness.h: memory, sockets and processes of Windows, as far as the cases that are built there ask for them. A descriptor of the harness is
// a SOCKET here; "handles are 32-bit significant" (Interprocess Communication Between 32-bit and 64-bit Applications), so that an int holds it.
#include "test/harness.h"

#include "core/os.h"
#include "win/winsock.h"

namespace cp::test {

std::unique_ptr<Port> MakePort(const PortOptions& options, CreateError* error) { return os::MakePort(Backend(), options, error); }

Fenced::Fenced(size_t bytes) {
  SYSTEM_INFO system;
  GetSystemInfo(&system);
  const size_t page = system.dwPageSize;
  const size_t rounded = (bytes + page - 1) / page * page;
  mapped_ = rounded + 2 * page;
  void* base = VirtualAlloc(nullptr, mapped_, MEM_RESERVE, PAGE_NOACCESS);
  CP_ASSERT(base != nullptr);
  base_ = static_cast<std::byte*>(base);
  CP_ASSERT(VirtualAlloc(base_ + page, rounded, MEM_COMMIT, PAGE_READWRITE) != nullptr);
  data_ = base_ + page;
  bytes_ = rounded;
}

Fenced::~Fenced() { VirtualFree(base_, 0, MEM_RELEASE); }

void SleepMs(double ms) { Sleep(static_cast<DWORD>(ms < 1 ? 1 : ms)); }

int OpenDescriptors() { return static_cast<int>(os::CountProcess().descriptors); }

int NewSocket() {
  int error = 0;
  const SOCKET socket = win::NewSocket(AF_INET, &error);
  CHECK(socket != INVALID_SOCKET);
  return static_cast<int>(socket);
}

namespace {
SOCKET SocketOf(int fd) { return static_cast<SOCKET>(fd); }
}  // namespace

int Listening(sockaddr_in* address, int backlog) {
  const int listener = NewSocket();
  *address = {};
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int length = sizeof(*address);
  CHECK(bind(SocketOf(listener), reinterpret_cast<sockaddr*>(address), length) == 0 && listen(SocketOf(listener), backlog) == 0);
  CHECK(getsockname(SocketOf(listener), reinterpret_cast<sockaddr*>(address), &length) == 0);
  return listener;
}

int Connected(const sockaddr_in& address) {
  const int fd = NewSocket();
  CHECK(connect(SocketOf(fd), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  return fd;
}

void TcpPair(int out[2]) {
  sockaddr_in address;
  const int listener = Listening(&address, 1);
  out[0] = Connected(address);
  const SOCKET accepted = accept(SocketOf(listener), nullptr, nullptr);
  CHECK(accepted != INVALID_SOCKET);
  out[1] = static_cast<int>(accepted);
  closesocket(SocketOf(listener));
  // As on other systems: no port numbers in TIME_WAIT over many pairs.
  win::LingerNot(accepted);
}

void ResetNow(int fd) {
  win::LingerNot(SocketOf(fd));
  closesocket(SocketOf(fd));
}

void WriteAll(int fd, const void* data, size_t bytes) {
  const auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const int sent = send(SocketOf(fd), at, static_cast<int>(bytes), 0);
    CHECK(sent > 0);
    at += sent;
    bytes -= static_cast<size_t>(sent);
  }
}

void ReadAll(int fd, void* data, size_t bytes) {
  auto* at = static_cast<char*>(data);
  const DWORD limit_ms = 10'000;
  CHECK(setsockopt(SocketOf(fd), SOL_SOCKET, SO_RCVTIMEO, reinterpret_cast<const char*>(&limit_ms), sizeof(limit_ms)) == 0);
  while (bytes > 0) {
    const int got = recv(SocketOf(fd), at, static_cast<int>(bytes), 0);
    CHECK(got > 0);
    at += got;
    bytes -= static_cast<size_t>(got);
  }
}

}  // namespace cp::test
