// What the core and the binding ask of the operating system, in one place: the binding has no header of an OS, and the build takes the file that
// answers (native/posix/os.cc, native/win/os.cc). Nothing here blocks but OpenFile, which may wait for a disk. Errors are the OS's own numbers,
// negated where a function answers with something else; MapError makes them portable.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/abi.h"
#include "core/errors.h"
#include "core/handle_table.h"
#include "core/port.h"

namespace cp::os {

// OpenFile's answers beyond a handle and a negative error; src/abi.ts has the first, the other becomes DirectoryCode() in the binding.
inline constexpr OsHandle kNotAFile = -100000;
inline constexpr OsHandle kIsDirectory = -100001;

enum class SocketOption : int { kNoDelay = 1, kKeepAlive = 2, kKeepAliveSeconds = 3, kReceiveBuffer = 4, kSendBuffer = 5 };

// ---- backends ---------------------------------------------------------------------------------------------------------------

struct Backend {
  const char* name;
  const char* foreign;  // null: compiled in; else of which system it is, in words
};
// All that there are, those of this system in the order in which 'auto' tries them.
std::span<const Backend> Backends();
// A port on the backend of that name. Null: see *error.
std::unique_ptr<Port> MakePort(const std::string& backend, const PortOptions& options, CreateError* error);

// ---- threads ----------------------------------------------------------------------------------------------------------------

// Runs `run` on a new thread that nobody waits for and that handles no signals; `name` is for debuggers. False: none could be started.
bool StartThread(const char* name, void (*run)());
// Of the calling thread, for Port::SampleThread.
uint64_t CurrentThread();
// What wakes the calling thread where it attaches to a shared port. Null: see *error.
std::shared_ptr<ThreadNotifier> MakeNotifier(CreateError* error);
// What the process has at the kernel, for a look for leaks. -1: this system lists it among its files, or doesn't tell.
struct ProcessCounts {
  int64_t descriptors = -1;  // files, sockets, pipes, queues
  int64_t handles = -1;      // the same and all else: threads, what they wait for
  int64_t threads = -1;
};
ProcessCounts CountProcess();
// The module stays in memory until the process ends: an idle thread of the file pool may outlive the last environment that had loaded it.
void StayLoaded();

// ---- handles ----------------------------------------------------------------------------------------------------------------

// `path` in UTF-8, or bytes as the file system has them; flags of node:fs on this system.
OsHandle OpenFile(const char* path, int flags, uint32_t mode);
// Whether flags of node:fs ask for append mode.
bool Appends(int flags);
// A listening socket.
OsHandle Listen(const AddressEntry& address, int backlog, bool reuse_port, bool ipv6_only);
// An unconnected socket, bound if `local` is given.
OsHandle Socket(int family, const AddressEntry* local);
// Of a handle that no port has. `reset`: the peer of a socket sees a reset.
void Close(HandleKind kind, OsHandle os, bool reset);

// 0 or a negative error.
int Address(OsHandle os, bool peer, AddressEntry* out);
int SetOption(OsHandle os, SocketOption option, int value);
int GetOption(OsHandle os, SocketOption option);  // >= 0: the value
// 4, 6, or 0 where the text is no literal address. Takes a scope behind '%'.
int ParseAddress(const std::string& text, AddressEntry* out);
std::string FormatAddress(const AddressEntry& address);

// ---- errors -----------------------------------------------------------------------------------------------------------------

Status MapError(int32_t code);
// The OS's numbers for what the binding finds by itself.
int32_t InvalidCode();
int32_t BadHandleCode();
int32_t TooManyFilesCode();
int32_t DirectoryCode();  // of a directory that was to be opened as a file

}  // namespace cp::os
