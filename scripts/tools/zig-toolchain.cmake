# Compiles for macOS on Linux with zig's clang and its copy of macOS's headers. The command gives -DCP_ZIG (the program), -DCP_ZIG_TARGET and
# -DCP_ZIG_TOOLS (a folder with `ar` and `ranlib`, which are zig's, too).
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES CP_ZIG CP_ZIG_TARGET CP_ZIG_TOOLS)
set(CMAKE_SYSTEM_NAME Darwin)
string(REGEX MATCH "^[^-]+" CMAKE_SYSTEM_PROCESSOR "${CP_ZIG_TARGET}")
set(CMAKE_C_COMPILER "${CP_ZIG}" cc -target "${CP_ZIG_TARGET}")
set(CMAKE_CXX_COMPILER "${CP_ZIG}" c++ -target "${CP_ZIG_TARGET}")
set(CMAKE_AR "${CP_ZIG_TOOLS}/ar" CACHE FILEPATH "")
set(CMAKE_RANLIB "${CP_ZIG_TOOLS}/ranlib" CACHE FILEPATH "")
# The target says all of this; neither -arch nor a folder of Xcode's is wanted.
set(CMAKE_OSX_ARCHITECTURES "")
set(CMAKE_OSX_SYSROOT "")
set(CMAKE_OSX_DEPLOYMENT_TARGET "")
