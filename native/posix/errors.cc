// Each errno that the portable table names maps to its namesake; numbers differ between POSIX systems, names do not.
#include "posix/errors.h"

#include <cerrno>

namespace cp::posix {

Status MapErrno(int32_t number) {
  switch (number) {
    case 0:
      return Status::kOk;
#define CP_SAME(name) \
  case name:          \
    return Status::k##name;
      CP_SAME(ECANCELED)
      CP_SAME(ETIMEDOUT)
      CP_SAME(ECONNRESET)
      CP_SAME(ECONNABORTED)
      CP_SAME(ECONNREFUSED)
      CP_SAME(ENETUNREACH)
      CP_SAME(EHOSTUNREACH)
      CP_SAME(ENETDOWN)
      CP_SAME(EPIPE)
      CP_SAME(EMSGSIZE)
      CP_SAME(EADDRINUSE)
      CP_SAME(EADDRNOTAVAIL)
      CP_SAME(EACCES)
      CP_SAME(EPERM)
      CP_SAME(EBADF)
      CP_SAME(ENOENT)
      CP_SAME(EEXIST)
      CP_SAME(EISDIR)
      CP_SAME(ENOTDIR)
      CP_SAME(ENOSPC)
      CP_SAME(ENOMEM)
      CP_SAME(ENOBUFS)
      CP_SAME(EMFILE)
      CP_SAME(ENFILE)
      CP_SAME(ENOTCONN)
      CP_SAME(EISCONN)
      CP_SAME(EINVAL)
      CP_SAME(EAGAIN)
      CP_SAME(EALREADY)
      CP_SAME(EAFNOSUPPORT)
      CP_SAME(EBUSY)
      CP_SAME(EDQUOT)
      CP_SAME(EFAULT)
      CP_SAME(EFBIG)
      CP_SAME(EINTR)
      CP_SAME(EIO)
      CP_SAME(ELOOP)
      CP_SAME(ENAMETOOLONG)
      CP_SAME(ENODEV)
      CP_SAME(ENOSYS)
      CP_SAME(ENOTSOCK)
      CP_SAME(ENOTSUP)
      CP_SAME(ENXIO)
      CP_SAME(EOVERFLOW)
      CP_SAME(EPROTO)
      CP_SAME(EROFS)
      CP_SAME(ESPIPE)
      CP_SAME(ETXTBSY)
      CP_SAME(EXDEV)
#undef CP_SAME
#if EOPNOTSUPP != ENOTSUP
    case EOPNOTSUPP:
      return Status::kENOTSUP;
#endif
    default:
      return Status::kUNKNOWN;
  }
}

// The connection is gone for good, so what comes after can only fail as well (DESIGN: given to every later operation).
bool IsStreamFatal(int32_t number) {
  return number == ECONNRESET || number == ECONNABORTED || number == EPIPE || number == ETIMEDOUT || number == ENETUNREACH ||
         number == EHOSTUNREACH || number == ENETDOWN;
}

const char* ExplainShortage(int32_t number) {
  switch (number) {
    case EMFILE:
      return "too many open files in this process: close some or raise its limit (ulimit -n)";
    case ENFILE:
      return "too many open files on this machine";
    case ENOMEM:
      return "not enough memory";
    case EAGAIN:
      return "too many threads: end some or raise the limit (ulimit -u, a container's limit of processes)";
    default:
      return nullptr;
  }
}

}  // namespace cp::posix
