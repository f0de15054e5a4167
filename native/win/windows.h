// The headers of Windows in the order that they need, without what they define too much. Windows 10 is the oldest system that Node.js 20 runs on.
#pragma once

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0A00
#endif

#include <winsock2.h>

#include <mstcpip.h>
#include <mswsock.h>
#include <ws2tcpip.h>

#include <windows.h>

static_assert(sizeof(void*) == 8, "keys and user data need 64 bits: completion-port is for 64-bit Windows");
