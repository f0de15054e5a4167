// TCP sockets by the BSD socket calls that every POSIX system has: making, listening, addresses, options. Nothing here blocks.
#pragma once

#include <sys/socket.h>
#include <cstdint>
#include <string>

#include "core/abi.h"
#include "core/os.h"

namespace cp::posix {

// A send to a peer that is gone is an error, never SIGPIPE: by this flag (send(2) of Linux and FreeBSD), or where it is missing by an option of
// the socket (SO_NOSIGPIPE, setsockopt(2) of macOS). Headers of a newer macOS may name a flag that an older kernel doesn't know.
#if defined(MSG_NOSIGNAL) && !defined(__APPLE__)
inline constexpr int kNoSignal = MSG_NOSIGNAL;
#else
inline constexpr int kNoSignal = 0;
#endif

using os::SocketOption;

socklen_t ToSockaddr(const AddressEntry& address, sockaddr_storage* out);
bool FromSockaddr(const sockaddr_storage& in, AddressEntry* out);

// A listening socket, or a negative errno.
int Listen(const AddressEntry& address, int backlog, bool reuse_port, bool ipv6_only);
// An unconnected socket, bound if `local` is given; or a negative errno.
int Socket(int family, const AddressEntry* local);
// The next connection of a listener that doesn't block: its descriptor, not inherited; or a negative errno. *peer's family is 0 where the address
// isn't known.
int Accept(int listener, AddressEntry* peer);
// Whether the connect of a socket that doesn't block has come to its end: 0, EINPROGRESS, or the error.
int ConnectResult(int fd);
// 0 or a negative errno.
int SetNonBlocking(int fd);
// 0 or a negative errno.
int Address(int fd, bool peer, AddressEntry* out);
int SetOption(int fd, SocketOption option, int value);
int GetOption(int fd, SocketOption option);  // >= 0: the value

// 4, 6, or 0 where the text is no literal address. Takes a scope behind '%'.
int ParseAddress(const std::string& text, AddressEntry* out);
std::string FormatAddress(const AddressEntry& address);

}  // namespace cp::posix
