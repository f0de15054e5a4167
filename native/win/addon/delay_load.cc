// MSVC: node.exe's functions are looked for in the program that has loaded the addon, whatever its file is called (a renamed node.exe, Electron), where
// the linker's own way would load another file of that name. Facts: "Understand the helper function", "Structure and constant definitions"
// (learn.microsoft.com, linker support for delay-loaded DLLs). mingw-w64 binds node.exe by its name; it is for our tests only.
#if defined(_MSC_VER)

#include "win/windows.h"

#include <delayimp.h>

namespace {

FARPROC WINAPI OnDelayLoad(unsigned notification, DelayLoadInfo* info) {
  if (notification != dliNotePreLoadLibrary || _stricmp(info->szDll, "node.exe") != 0) return nullptr;  // the helper goes on by itself
  return reinterpret_cast<FARPROC>(GetModuleHandleW(nullptr));
}

}  // namespace

extern "C" const PfnDliHook __pfnDliNotifyHook2 = &OnDelayLoad;

#endif
