# Compiles for macOS on Linux with zig's clang and its headers of macOS. The target comes from the command: -DCP_ZIG=… -DCP_ZIG_TARGET=…
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES CP_ZIG CP_ZIG_TARGET CP_ZIG_BIN)
set(CMAKE_SYSTEM_NAME Darwin)
string(REGEX MATCH "^[^-]+" CMAKE_SYSTEM_PROCESSOR "${CP_ZIG_TARGET}")
set(CMAKE_C_COMPILER "${CP_ZIG}" cc -target "${CP_ZIG_TARGET}")
set(CMAKE_CXX_COMPILER "${CP_ZIG}" c++ -target "${CP_ZIG_TARGET}")
# The target says it already; neither -arch nor a folder of Xcode's is wanted.
set(CMAKE_OSX_ARCHITECTURES "")
set(CMAKE_OSX_SYSROOT "")
set(CMAKE_OSX_DEPLOYMENT_TARGET "")
set(CMAKE_AR "${CP_ZIG_BIN}/ar" CACHE FILEPATH "")
set(CMAKE_RANLIB "${CP_ZIG_BIN}/ranlib" CACHE FILEPATH "")
# zig's own flag for it is the default, and this one would be passed to the linker as a file.
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
