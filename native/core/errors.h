// The portable errors: the codes that a packet's error may carry, the same on every OS. Each OS maps its own numbers to these
// (native/posix/errors.cc here). JavaScript reads the table once and gets indices into it afterwards.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cp {

// X(name, errno of Linux, what it means and, where something can be done, what to do)
#define CP_ERRORS(X)                                                                                                       \
  X(ECANCELED, 125, "operation canceled")                                                                                  \
  X(ETIMEDOUT, 110, "operation timed out")                                                                                 \
  X(ECONNRESET, 104, "connection reset by peer")                                                                           \
  X(ECONNABORTED, 103, "connection aborted")                                                                               \
  X(ECONNREFUSED, 111, "connection refused: nothing listens at that address and port")                                     \
  X(ENETUNREACH, 101, "network is unreachable: no route leads to that address")                                            \
  X(EHOSTUNREACH, 113, "host is unreachable")                                                                              \
  X(ENETDOWN, 100, "network is down")                                                                                      \
  X(EPIPE, 32, "broken pipe: the peer has closed the connection")                                                          \
  X(EMSGSIZE, 90, "message too long for the buffer")                                                                       \
  X(EADDRINUSE, 98, "address already in use: another socket listens there; choose another port or use reusePort")          \
  X(EADDRNOTAVAIL, 99, "address not available: it belongs to no interface of this machine, or no free port is left")       \
  X(EACCES, 13, "permission denied")                                                                                       \
  X(EPERM, 1, "operation not permitted")                                                                                   \
  X(EBADF, 9, "bad handle: it is not open for this direction")                                                             \
  X(ENOENT, 2, "no such file or directory")                                                                                \
  X(EEXIST, 17, "file already exists")                                                                                     \
  X(EISDIR, 21, "is a directory, not a file")                                                                              \
  X(ENOTDIR, 20, "a part of the path is not a directory")                                                                  \
  X(ENOSPC, 28, "no space left on the device")                                                                             \
  X(ENOMEM, 12, "not enough memory")                                                                                       \
  X(ENOBUFS, 105, "not enough buffer space")                                                                               \
  X(EMFILE, 24, "too many open files in this process: close some or raise its limit (ulimit -n)")                          \
  X(ENFILE, 23, "too many open files on this machine")                                                                     \
  X(ENOTCONN, 107, "socket is not connected")                                                                              \
  X(EISCONN, 106, "socket is connected already")                                                                           \
  X(EINVAL, 22, "invalid argument")                                                                                        \
  X(EAGAIN, 11, "resource temporarily unavailable")                                                                        \
  X(EALREADY, 114, "an operation of this kind is in progress already")                                                     \
  X(EAFNOSUPPORT, 97, "address family not supported")                                                                      \
  X(EBUSY, 16, "resource busy")                                                                                            \
  X(EDQUOT, 122, "disk quota exceeded")                                                                                    \
  X(EFAULT, 14, "bad address")                                                                                             \
  X(EFBIG, 27, "file too large for the file system or the process's limit")                                                \
  X(EINTR, 4, "interrupted")                                                                                               \
  X(EIO, 5, "input/output error of the device")                                                                            \
  X(ELOOP, 40, "too many symbolic links")                                                                                  \
  X(ENAMETOOLONG, 36, "name too long")                                                                                     \
  X(ENODEV, 19, "no such device")                                                                                          \
  X(ENOSYS, 38, "not offered by this operating system")                                                                    \
  X(ENOTSOCK, 88, "not a socket")                                                                                          \
  X(ENOTSUP, 95, "not supported here")                                                                                     \
  X(ENXIO, 6, "no such device or address")                                                                                 \
  X(EOVERFLOW, 75, "value too large")                                                                                      \
  X(EPROTO, 71, "protocol error")                                                                                          \
  X(EROFS, 30, "read-only file system")                                                                                    \
  X(ESPIPE, 29, "the file has no positions")                                                                               \
  X(ETXTBSY, 26, "the file is being executed")                                                                             \
  X(EXDEV, 18, "crosses devices")                                                                                          \
  X(ERR_NOT_A_FILE, 22, "neither a regular file nor a block device: pipes, terminals and sockets are not opened as files") \
  X(UNKNOWN, 4094, "unknown error: see nativeCode")

// The name is prefixed: <errno.h> defines the plain ones as macros.
enum class Status : int32_t {
  kOk = 0,
#define X(name, number, text) k##name,
  CP_ERRORS(X)
#undef X
      kCount
};

struct ErrorInfo {
  const char* code;
  int32_t number;  // positive, Linux's
  const char* message;
};

// kStatusCount entries; entry 0 is "no error".
const ErrorInfo* ErrorTable();

}  // namespace cp
