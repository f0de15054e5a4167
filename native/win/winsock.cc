// See winsock.h. Facts: WSAStartup, WSASocketW (WSA_FLAG_NO_HANDLE_INHERIT), WSAIoctl (SIO_GET_EXTENSION_FUNCTION_POINTER: "the function pointer …
// must be obtained at run time", and belongs to the provider of the socket), "Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE" (learn.microsoft.com).
#include "win/winsock.h"

#include <cstdlib>
#include <cstring>
#include <mutex>

namespace cp::win {

int StartWinsock() {
  static const int error = [] {
    WSADATA data;
    return WSAStartup(MAKEWORD(2, 2), &data);
  }();
  return error;
}

const Extensions* ExtensionsOf(int family, SOCKET socket) {
  static std::mutex mutex;
  static Extensions known[2];
  std::lock_guard lock(mutex);
  Extensions& found = known[family == AF_INET6];
  const auto look = [&](GUID id, auto* function) {
    DWORD bytes = 0;
    if (*function == nullptr &&
        WSAIoctl(socket, SIO_GET_EXTENSION_FUNCTION_POINTER, &id, sizeof(id), function, sizeof(*function), &bytes, nullptr, nullptr) != 0)
      *function = nullptr;
    return *function != nullptr;
  };
  const bool all = look(WSAID_ACCEPTEX, &found.accept_ex) && look(WSAID_GETACCEPTEXSOCKADDRS, &found.get_accept_ex_sockaddrs) &&
                   look(WSAID_CONNECTEX, &found.connect_ex);
  return all ? &found : nullptr;
}

int ToSockaddr(const AddressEntry& address, sockaddr_storage* out) {
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

bool FromSockaddr(const sockaddr* in, AddressEntry* out) {
  *out = {};
  if (in->sa_family == AF_INET) {
    const auto* in4 = reinterpret_cast<const sockaddr_in*>(in);
    out->family = 4;
    out->port = ntohs(in4->sin_port);
    std::memcpy(out->bytes, &in4->sin_addr, 4);
    return true;
  }
  if (in->sa_family != AF_INET6) return false;
  const auto* in6 = reinterpret_cast<const sockaddr_in6*>(in);
  out->family = 6;
  out->port = ntohs(in6->sin6_port);
  out->scope_id = in6->sin6_scope_id;
  std::memcpy(out->bytes, &in6->sin6_addr, 16);
  return true;
}

int FamilyOf(SOCKET socket) {
  // Not by its name: a socket that isn't bound yet has none.
  WSAPROTOCOL_INFOW info{};
  int length = sizeof(info);
  return getsockopt(socket, SOL_SOCKET, SO_PROTOCOL_INFOW, reinterpret_cast<char*>(&info), &length) == 0 ? info.iAddressFamily : 0;
}

SOCKET NewSocket(int family, int* error) {
  *error = StartWinsock();
  if (*error != 0) return INVALID_SOCKET;
  const SOCKET socket = WSASocketW(family, SOCK_STREAM, IPPROTO_TCP, nullptr, 0, WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
  if (socket == INVALID_SOCKET) *error = WSAGetLastError();
  return socket;
}

int BindAny(SOCKET socket) {
  AddressEntry any{};
  any.family = FamilyOf(socket) == AF_INET6 ? 6 : 4;
  sockaddr_storage storage;
  const int length = ToSockaddr(any, &storage);
  if (bind(socket, reinterpret_cast<sockaddr*>(&storage), length) == 0) return 0;
  const int error = WSAGetLastError();
  return error == WSAEINVAL ? 0 : error;  // "This error is returned … if the socket is already bound to an address" (bind)
}

void LingerNot(SOCKET socket) {
  const linger now = {1, 0};
  setsockopt(socket, SOL_SOCKET, SO_LINGER, reinterpret_cast<const char*>(&now), sizeof(now));
}

namespace {
OsHandle Fail(SOCKET socket) {
  const int error = WSAGetLastError();
  closesocket(socket);
  return -error;
}
bool Switch(SOCKET socket, int level, int name, int value) {
  return setsockopt(socket, level, name, reinterpret_cast<const char*>(&value), sizeof(value)) == 0;
}
}  // namespace

OsHandle Listen(const AddressEntry& address, int backlog, bool reuse_port, bool ipv6_only) {
  // Several listeners of one address: SO_REUSEADDR of Windows would let them, and which one gets a connection "is not predictable" there.
  if (reuse_port) return -WSAEOPNOTSUPP;
  int error;
  const SOCKET socket = NewSocket(address.family == 4 ? AF_INET : AF_INET6, &error);
  if (socket == INVALID_SOCKET) return -error;
  // Nobody else binds to the address while this socket has it, not even with SO_REUSEADDR.
  if (!Switch(socket, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1)) return Fail(socket);
  if (address.family == 6 && !Switch(socket, IPPROTO_IPV6, IPV6_V6ONLY, ipv6_only ? 1 : 0)) return Fail(socket);
  sockaddr_storage storage;
  const int length = ToSockaddr(address, &storage);
  if (bind(socket, reinterpret_cast<sockaddr*>(&storage), length) != 0) return Fail(socket);
  if (listen(socket, backlog) != 0) return Fail(socket);
  return static_cast<OsHandle>(socket);
}

OsHandle Socket(int family, const AddressEntry* local) {
  int error;
  const SOCKET socket = NewSocket(family == 4 ? AF_INET : AF_INET6, &error);
  if (socket == INVALID_SOCKET) return -error;
  if (local == nullptr) return static_cast<OsHandle>(socket);
  sockaddr_storage storage;
  const int length = ToSockaddr(*local, &storage);
  if (bind(socket, reinterpret_cast<sockaddr*>(&storage), length) != 0) return Fail(socket);
  return static_cast<OsHandle>(socket);
}

int Address(SOCKET socket, bool peer, AddressEntry* out) {
  sockaddr_storage storage{};
  int length = sizeof(storage);
  auto* address = reinterpret_cast<sockaddr*>(&storage);
  if ((peer ? getpeername(socket, address, &length) : getsockname(socket, address, &length)) != 0) {
    const int error = WSAGetLastError();
    if (peer || error != WSAEINVAL) return -error;
    // "The socket has not been bound" (getsockname): elsewhere such a socket has the address of nobody.
    *out = {};
    out->family = FamilyOf(socket) == AF_INET6 ? 6 : 4;
    return 0;
  }
  return FromSockaddr(address, out) ? 0 : -WSAEAFNOSUPPORT;
}

namespace {
struct OptionName {
  int level;
  int name;
};
bool NameOf(os::SocketOption option, OptionName* out) {
  switch (option) {
    case os::SocketOption::kNoDelay:
      *out = {IPPROTO_TCP, TCP_NODELAY};
      return true;
    case os::SocketOption::kKeepAlive:
      *out = {SOL_SOCKET, SO_KEEPALIVE};
      return true;
    case os::SocketOption::kKeepAliveSeconds:
      *out = {IPPROTO_TCP, 3};  // TCP_KEEPIDLE, in seconds; Windows 10 1709 (IPPROTO_TCP socket options)
      return true;
    case os::SocketOption::kReceiveBuffer:
      *out = {SOL_SOCKET, SO_RCVBUF};
      return true;
    case os::SocketOption::kSendBuffer:
      *out = {SOL_SOCKET, SO_SNDBUF};
      return true;
  }
  return false;
}
}  // namespace

int SetOption(SOCKET socket, os::SocketOption option, int value) {
  OptionName name;
  if (!NameOf(option, &name)) return -WSAEINVAL;
  if (Switch(socket, name.level, name.name, value)) return 0;
  const int error = WSAGetLastError();
  if (option != os::SocketOption::kKeepAliveSeconds || error != WSAENOPROTOOPT) return -error;
  // Before Windows 10 1709, and Wine 8: both times at once (SIO_KEEPALIVE_VALS), the interval as it is by default.
  tcp_keepalive times = {1, static_cast<ULONG>(value) * 1000, 1000};
  DWORD bytes = 0;
  return WSAIoctl(socket, SIO_KEEPALIVE_VALS, &times, sizeof(times), nullptr, 0, &bytes, nullptr, nullptr) == 0 ? 0 : -WSAGetLastError();
}

int GetOption(SOCKET socket, os::SocketOption option) {
  OptionName name;
  if (!NameOf(option, &name)) return -WSAEINVAL;
  int value = 0;
  int length = sizeof(value);
  if (getsockopt(socket, name.level, name.name, reinterpret_cast<char*>(&value), &length) != 0) return -WSAGetLastError();
  // "The size may be that of a BOOLEAN": only the first byte counts then.
  if (length == 1) value &= 0xff;
  const bool is_switch = option == os::SocketOption::kNoDelay || option == os::SocketOption::kKeepAlive;
  return is_switch ? value != 0 : value;
}

int ParseAddress(const std::string& text, AddressEntry* out) {
  *out = {};
  if (StartWinsock() != 0) return 0;
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
  // Scopes are numbers on Windows, as ipconfig and Node.js show them.
  const std::string scope = text.substr(percent + 1);
  char* end = nullptr;
  const unsigned long long number = std::strtoull(scope.c_str(), &end, 10);
  if (scope.empty() || scope[0] < '0' || scope[0] > '9' || *end != '\0' || number > 0xffff'ffff) return 0;
  out->scope_id = static_cast<uint32_t>(number);
  return 6;
}

std::string FormatAddress(const AddressEntry& address) {
  if (StartWinsock() != 0) return "";
  char text[INET6_ADDRSTRLEN];
  if (inet_ntop(address.family == 4 ? AF_INET : AF_INET6, const_cast<uint8_t*>(address.bytes), text, sizeof(text)) == nullptr) return "";
  std::string result = text;
  if (address.family == 6 && address.scope_id != 0) result += '%' + std::to_string(address.scope_id);
  return result;
}

}  // namespace cp::win
