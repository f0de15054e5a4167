// TCP sockets by Winsock: start-up, making, listening, addresses, options, and the functions that only a provider knows. Nothing here blocks.
#pragma once

#include <string>

#include "core/abi.h"
#include "core/os.h"
#include "win/windows.h"

namespace cp::win {

// Once a process; 0 or an error. Everything below but the texts of addresses needs it.
int StartWinsock();

// What a provider offers beyond ws2_32.dll.
struct Extensions {
  LPFN_ACCEPTEX accept_ex = nullptr;
  LPFN_GETACCEPTEXSOCKADDRS get_accept_ex_sockaddrs = nullptr;
  LPFN_CONNECTEX connect_ex = nullptr;
};
// Of the provider of that family (AF_INET, AF_INET6), looked up with one of its sockets, once. Null: it lacks one.
const Extensions* ExtensionsOf(int family, SOCKET socket);

int ToSockaddr(const AddressEntry& address, sockaddr_storage* out);
bool FromSockaddr(const sockaddr* in, AddressEntry* out);
// AF_INET or AF_INET6, 0: it can't be told.
int FamilyOf(SOCKET socket);

// An overlapped stream socket that no child inherits. INVALID_SOCKET: *error says why.
SOCKET NewSocket(int family, int* error);
// ConnectEx wants a bound socket: to any address, unless it is bound already. 0 or an error.
int BindAny(SOCKET socket);
void LingerNot(SOCKET socket);

// As core/os.h.
OsHandle Listen(const AddressEntry& address, int backlog, bool reuse_port, bool ipv6_only);
OsHandle Socket(int family, const AddressEntry* local);
int Address(SOCKET socket, bool peer, AddressEntry* out);
int SetOption(SOCKET socket, os::SocketOption option, int value);
int GetOption(SOCKET socket, os::SocketOption option);
int ParseAddress(const std::string& text, AddressEntry* out);
std::string FormatAddress(const AddressEntry& address);

}  // namespace cp::win
