// See sockets.h. Facts: socket(7), tcp(7), ipv6(7), inet_pton(3).
#include "posix/sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "posix/platform.h"

namespace cp::posix {

socklen_t ToSockaddr(const AddressEntry& address, sockaddr_storage* out) {
  std::memset(out, 0, sizeof(*out));
  if (address.family == 4) {
    auto* in = reinterpret_cast<sockaddr_in*>(out);
    in->sin_family = AF_INET;
    in->sin_port = htons(address.port);
    std::memcpy(&in->sin_addr, address.bytes, 4);
    return sizeof(*in);
  }
  auto* in6 = reinterpret_cast<sockaddr_in6*>(out);
  in6->sin6_family = AF_INET6;
  in6->sin6_port = htons(address.port);
  in6->sin6_scope_id = address.scope_id;
  std::memcpy(&in6->sin6_addr, address.bytes, 16);
  return sizeof(*in6);
}

bool FromSockaddr(const sockaddr_storage& in, AddressEntry* out) {
  *out = {};
  if (in.ss_family == AF_INET) {
    const auto& in4 = reinterpret_cast<const sockaddr_in&>(in);
    out->family = 4;
    out->port = ntohs(in4.sin_port);
    std::memcpy(out->bytes, &in4.sin_addr, 4);
    return true;
  }
  if (in.ss_family != AF_INET6) return false;
  const auto& in6 = reinterpret_cast<const sockaddr_in6&>(in);
  out->family = 6;
  out->port = ntohs(in6.sin6_port);
  out->scope_id = in6.sin6_scope_id;
  std::memcpy(out->bytes, &in6.sin6_addr, 16);
  return true;
}

namespace {
int Fail(int fd) {
  const int error = errno;
  close(fd);
  return -error;
}

#if !CP_LINUX
// What a socket needs where neither socket(2) nor accept(2) takes flags. False: errno says why.
bool MakeOurs(int fd) {
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return false;
#if defined(SO_NOSIGPIPE)
  // Early: macOS refuses it (EINVAL) to a socket that its peer has reset since (setsockopt(2)).
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
#endif
  return true;
}
#endif

// A stream socket that no child inherits, or a negative errno.
int NewSocket(int family) {
#if CP_LINUX
  const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return fd < 0 ? -errno : fd;
#else
  // SOCK_CLOEXEC is in FreeBSD since 10.0, not in macOS: a child forked between these two calls keeps the socket until its exec.
  const int fd = socket(family, SOCK_STREAM, 0);
  if (fd < 0) return -errno;
  return MakeOurs(fd) ? fd : Fail(fd);
#endif
}
}  // namespace

int Listen(const AddressEntry& address, int backlog, bool reuse_port, bool ipv6_only) {
  const int fd = NewSocket(address.family == 4 ? AF_INET : AF_INET6);
  if (fd < 0) return fd;
  const int on = 1;
  // As servers expect: an address whose connections linger in TIME_WAIT can be listened on again.
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0) return Fail(fd);
#if defined(SO_REUSEPORT_LB)
  // Several listeners of one address, connections spread over them: FreeBSD's own name for it (setsockopt(2)); its SO_REUSEPORT gives all to one.
  constexpr int kReusePort = SO_REUSEPORT_LB;
#else
  constexpr int kReusePort = SO_REUSEPORT;  // socket(7) of Linux, setsockopt(2) of macOS
#endif
  if (reuse_port && setsockopt(fd, SOL_SOCKET, kReusePort, &on, sizeof(on)) != 0) return Fail(fd);
  if (address.family == 6) {
    const int only = ipv6_only ? 1 : 0;
    if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only)) != 0) return Fail(fd);
  }
  sockaddr_storage storage;
  const socklen_t length = ToSockaddr(address, &storage);
  if (bind(fd, reinterpret_cast<sockaddr*>(&storage), length) != 0) return Fail(fd);
  if (listen(fd, backlog) != 0) return Fail(fd);
  return fd;
}

int Socket(int family, const AddressEntry* local) {
  const int fd = NewSocket(family == 4 ? AF_INET : AF_INET6);
  if (fd < 0) return fd;
  if (local == nullptr) return fd;
  sockaddr_storage storage;
  const socklen_t length = ToSockaddr(*local, &storage);
  if (bind(fd, reinterpret_cast<sockaddr*>(&storage), length) != 0) return Fail(fd);
  return fd;
}

int SetNonBlocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ? -errno : 0;
}

int Accept(int listener, AddressEntry* peer) {
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  auto* address = reinterpret_cast<sockaddr*>(&storage);
#if CP_LINUX
  const int fd = accept4(listener, address, &length, SOCK_CLOEXEC);
  if (fd < 0) return -errno;
#else
  // accept4(2) is in FreeBSD since 10.0, not in macOS.
  const int fd = accept(listener, address, &length);
  if (fd < 0) return -errno;
  if (!MakeOurs(fd)) return Fail(fd);
#endif
  if (!FromSockaddr(storage, peer)) *peer = {};
  return fd;
}

int ConnectResult(int fd) {
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
  if (error != 0) return error;
  // No error yet may also mean that nothing has happened yet: only a connected socket has a peer.
  sockaddr_storage storage;
  length = sizeof(storage);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &length) == 0) return 0;
  return errno == ENOTCONN ? EINPROGRESS : errno;
}

int Address(int fd, bool peer, AddressEntry* out) {
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  auto* address = reinterpret_cast<sockaddr*>(&storage);
  if ((peer ? getpeername(fd, address, &length) : getsockname(fd, address, &length)) != 0) return -errno;
  return FromSockaddr(storage, out) ? 0 : -EAFNOSUPPORT;
}

namespace {
struct OptionName {
  int level;
  int name;
};
bool NameOf(SocketOption option, OptionName* out) {
  switch (option) {
    case SocketOption::kNoDelay:
      *out = {IPPROTO_TCP, TCP_NODELAY};
      return true;
    case SocketOption::kKeepAlive:
      *out = {SOL_SOCKET, SO_KEEPALIVE};
      return true;
    case SocketOption::kKeepAliveSeconds:
#if defined(TCP_KEEPIDLE)
      *out = {IPPROTO_TCP, TCP_KEEPIDLE};  // tcp(7) of Linux, tcp(4) of FreeBSD
#else
      *out = {IPPROTO_TCP, TCP_KEEPALIVE};  // macOS's name, tcp(4)
#endif
      return true;
    case SocketOption::kReceiveBuffer:
      *out = {SOL_SOCKET, SO_RCVBUF};
      return true;
    case SocketOption::kSendBuffer:
      *out = {SOL_SOCKET, SO_SNDBUF};
      return true;
  }
  return false;
}
}  // namespace

int SetOption(int fd, SocketOption option, int value) {
  OptionName name;
  if (!NameOf(option, &name)) return -EINVAL;
  return setsockopt(fd, name.level, name.name, &value, sizeof(value)) == 0 ? 0 : -errno;
}

int GetOption(int fd, SocketOption option) {
  OptionName name;
  if (!NameOf(option, &name)) return -EINVAL;
  int value = 0;
  socklen_t length = sizeof(value);
  if (getsockopt(fd, name.level, name.name, &value, &length) != 0) return -errno;
  // The BSDs answer with the option's bit (getsockopt(2) of FreeBSD: "a non-zero value").
  const bool is_switch = option == SocketOption::kNoDelay || option == SocketOption::kKeepAlive;
  return is_switch ? value != 0 : value;
}

int ParseAddress(const std::string& text, AddressEntry* out) {
  *out = {};
  in_addr v4;
  if (inet_pton(AF_INET, text.c_str(), &v4) == 1) {
    out->family = 4;
    std::memcpy(out->bytes, &v4, 4);
    return 4;
  }
  const size_t percent = text.find('%');
  in6_addr v6;
  if (inet_pton(AF_INET6, text.substr(0, percent).c_str(), &v6) != 1) return 0;
  out->family = 6;
  std::memcpy(out->bytes, &v6, 16);
  if (percent == std::string::npos) return 6;
  const std::string scope = text.substr(percent + 1);
  out->scope_id = if_nametoindex(scope.c_str());
  if (out->scope_id == 0) {
    char* end = nullptr;
    const unsigned long number = std::strtoul(scope.c_str(), &end, 10);
    if (scope.empty() || *end != '\0' || number > UINT_MAX) return 0;
    out->scope_id = static_cast<uint32_t>(number);
  }
  return 6;
}

std::string FormatAddress(const AddressEntry& address) {
  char text[INET6_ADDRSTRLEN];
  if (inet_ntop(address.family == 4 ? AF_INET : AF_INET6, address.bytes, text, sizeof(text)) == nullptr) return "";
  std::string result = text;
  if (address.family == 6 && address.scope_id != 0) {
    char name[IF_NAMESIZE];
    result += '%';
    result += if_indextoname(address.scope_id, name) != nullptr ? name : std::to_string(address.scope_id);
  }
  return result;
}

}  // namespace cp::posix
