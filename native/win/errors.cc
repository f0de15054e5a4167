// See errors.h. Facts: "System Error Codes" and "Windows Sockets Error Codes" (learn.microsoft.com); RtlNtStatusToDosError (winternl.h);
// "Using NTSTATUS Values": bits 30 and 31 are the severity, 2 a warning.
#include "win/errors.h"

#include "win/windows.h"

#include <winternl.h>

namespace cp::win {

Status MapWin32(uint32_t code) {
  switch (code) {
    case 0:
      return Status::kOk;
    case ERROR_OPERATION_ABORTED:
    case WSA_E_CANCELLED:
      return Status::kECANCELED;
    case ERROR_SEM_TIMEOUT:
    case WSAETIMEDOUT:
      return Status::kETIMEDOUT;
    case ERROR_NETNAME_DELETED:
    case WSAECONNRESET:
    case WSAENETRESET:
      return Status::kECONNRESET;
    case ERROR_CONNECTION_ABORTED:
    case WSAECONNABORTED:
      return Status::kECONNABORTED;
    case ERROR_CONNECTION_REFUSED:
    case WSAECONNREFUSED:
    case ERROR_PORT_UNREACHABLE:
      return Status::kECONNREFUSED;
    case ERROR_NETWORK_UNREACHABLE:
    case WSAENETUNREACH:
      return Status::kENETUNREACH;
    case ERROR_HOST_UNREACHABLE:
    case WSAEHOSTUNREACH:
      return Status::kEHOSTUNREACH;
    case WSAENETDOWN:
      return Status::kENETDOWN;
    case ERROR_BROKEN_PIPE:
    case ERROR_NO_DATA:
    case ERROR_BAD_PIPE:
    case WSAESHUTDOWN:
      return Status::kEPIPE;
    case ERROR_MORE_DATA:
    case WSAEMSGSIZE:
      return Status::kEMSGSIZE;
    case ERROR_ADDRESS_ALREADY_ASSOCIATED:
    case WSAEADDRINUSE:
      return Status::kEADDRINUSE;
    case WSAEADDRNOTAVAIL:
      return Status::kEADDRNOTAVAIL;
    case ERROR_ACCESS_DENIED:
    case 740:  // ERROR_ELEVATION_REQUIRED, which the headers of mingw-w64 lack
    case ERROR_NOACCESS:
    case WSAEACCES:
    case ERROR_CANT_ACCESS_FILE:
      return Status::kEACCES;
    case ERROR_PRIVILEGE_NOT_HELD:
      return Status::kEPERM;
    case ERROR_INVALID_HANDLE:
    case WSAEBADF:
      return Status::kEBADF;
    case WSAENOTSOCK:
      return Status::kENOTSOCK;
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_BAD_PATHNAME:
    case ERROR_INVALID_NAME:
    case ERROR_INVALID_DRIVE:
    case ERROR_MOD_NOT_FOUND:
    case ERROR_BAD_NETPATH:
    case ERROR_BAD_NET_NAME:
    case ERROR_INVALID_REPARSE_DATA:
      return Status::kENOENT;
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS:
      return Status::kEEXIST;
    case kDirectoryCode:
      return Status::kEISDIR;
    case ERROR_DIRECTORY:
      return Status::kENOTDIR;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
    case 1295:  // ERROR_DISK_QUOTA_EXCEEDED, the same
      return Status::kENOSPC;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
    case ERROR_NO_SYSTEM_RESOURCES:
    case ERROR_COMMITMENT_LIMIT:
      return Status::kENOMEM;
    case WSAENOBUFS:
      return Status::kENOBUFS;
    case ERROR_TOO_MANY_OPEN_FILES:
    case WSAEMFILE:
      return Status::kEMFILE;
    case ERROR_NOT_CONNECTED:
    case ERROR_CONNECTION_INVALID:
    case WSAENOTCONN:
      return Status::kENOTCONN;
    case WSAEISCONN:
      return Status::kEISCONN;
    case WSAEALREADY:
    case WSAEINPROGRESS:
      return Status::kEALREADY;
    case ERROR_INVALID_PARAMETER:
    case ERROR_INVALID_FUNCTION:
    case ERROR_NEGATIVE_SEEK:
    case WSAEINVAL:
      return Status::kEINVAL;
    case WSAEWOULDBLOCK:
      return Status::kEAGAIN;
    case WSAEAFNOSUPPORT:
      return Status::kEAFNOSUPPORT;
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION:
    case ERROR_BUSY:
    case ERROR_PIPE_BUSY:
    case ERROR_USER_MAPPED_FILE:
      return Status::kEBUSY;
    case ERROR_INVALID_USER_BUFFER:
    case WSAEFAULT:
      return Status::kEFAULT;
    case ERROR_FILE_TOO_LARGE:
      return Status::kEFBIG;
    case ERROR_CRC:
    case ERROR_IO_DEVICE:
    case ERROR_GEN_FAILURE:
    case ERROR_READ_FAULT:
    case ERROR_WRITE_FAULT:
    case ERROR_SECTOR_NOT_FOUND:
      return Status::kEIO;
    case ERROR_CANT_RESOLVE_FILENAME:
      return Status::kELOOP;
    case ERROR_FILENAME_EXCED_RANGE:
    case ERROR_BUFFER_OVERFLOW:
      return Status::kENAMETOOLONG;
    case ERROR_WRITE_PROTECT:
      return Status::kEROFS;
    case ERROR_NOT_SUPPORTED:
    case WSAEOPNOTSUPP:
    case WSAENOPROTOOPT:
      return Status::kENOTSUP;
    case ERROR_NOT_SAME_DEVICE:
      return Status::kEXDEV;
    default:
      return Status::kUNKNOWN;
  }
}

uint32_t CodeOfStatus(uint64_t ntstatus) {
  const auto status = static_cast<NTSTATUS>(static_cast<uint32_t>(ntstatus));
  return status >= 0 ? 0 : RtlNtStatusToDosError(status);
}

bool IsWarning(uint64_t ntstatus) { return static_cast<uint32_t>(ntstatus) >> 30 == 2; }

bool IsStreamFatal(uint32_t code) {
  switch (MapWin32(code)) {
    case Status::kECONNRESET:
    case Status::kECONNABORTED:
    case Status::kEPIPE:
    case Status::kETIMEDOUT:
    case Status::kENETUNREACH:
    case Status::kEHOSTUNREACH:
    case Status::kENETDOWN:
      return true;
    default:
      return false;
  }
}

}  // namespace cp::win
