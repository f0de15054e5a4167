#!/bin/sh
# Builds native/test as one program with nothing but a shell and a C++20 compiler: on systems that the project has never seen, where neither
# make, cmake nor Node need be there. FreeBSD and macOS get the kqueue backend, Linux io_uring and epoll. CMakeLists.txt makes the same program
# for the project's own runs, with sanitizers; what is compiled how has to agree with it.
#
# Relies on POSIX alone (sh, the utilities used here); but for getconf's _NPROCESSORS_ONLN (getconf(1) of FreeBSD and macOS), without which one
# file is compiled at a time. Nothing outside OUT and OUT.build is written, and OUT.build is removed at the end.
set -u

usage() {
  cat <<'END'
usage: sh native/test/build.sh OUT

Builds the test of the native port as the program OUT. Environment:
  CXX             a compiler for C++20 (c++; else g++, clang++): clang 14, gcc 11 or newer; may have options of its own
  CXXFLAGS        further options, behind ours (-O1 -g unless given)
  JOBS            files that are compiled at a time (the number of processors)
  SYSTEM          what it is built for: Linux, FreeBSD, Darwin, … (uname -s); for a compiler that compiles for another system
  KQUEUE_SHIM=1   Linux: the kqueue backend over the project's stand-in for kqueue (test/kqueue-shim)
examples:
  sh native/test/build.sh /tmp/port-test && /tmp/port-test
  CXX=clang++14 sh native/test/build.sh ./port-test
  CXX='zig c++ -target aarch64-macos.11.0' SYSTEM=Darwin sh native/test/build.sh ./port-test-macos
END
}

fail() {
  echo "build.sh: $1" >&2
  exit "${2:-1}"
}

case "${1-}" in
--help | -h)
  usage
  exit 0
  ;;
-*) fail "unknown option $1; see --help" 2 ;;
'') fail 'the program to be built is missing; usage: sh native/test/build.sh OUT' 2 ;;
esac
[ $# -eq 1 ] || fail "one program is built, not $#; usage: sh native/test/build.sh OUT" 2

here=$(cd "$(dirname "$0")" && pwd) || exit 1
root=$(cd "$here/../.." && pwd) || exit 1
case $1 in
/*) out=$1 ;;
*) out=$(pwd)/$1 ;;
esac
[ ! -d "$out" ] || fail "$1 is a folder; name the program" 2
# Lists of files are lists of words here.
case $root$out in
*[[:space:]]*) fail 'no space may be in the path of the sources or of OUT' 2 ;;
esac
folder=$(dirname "$out")
[ -d "$folder" ] || fail "there is no folder $folder" 2
[ -w "$folder" ] || fail "$folder can't be written to" 2

# ---- for what ----
system=${SYSTEM:-$(uname -s)}
shim=${KQUEUE_SHIM:-}
case $system in
Linux) if [ -n "$shim" ]; then backend=kqueue; else backend=linux; fi ;;
Darwin | FreeBSD | DragonFly | OpenBSD | NetBSD)
  [ -z "$shim" ] || fail "KQUEUE_SHIM is for Linux; $system has a kqueue of its own" 2
  backend=kqueue
  ;;
*) fail "completion-port has no backend for $system" ;;
esac
uring=
if [ "$backend" = linux ]; then
  uring=$root/native/linux/liburing
  [ -f "$uring/src/setup.c" ] || fail 'liburing is missing in native/linux/liburing: run node scripts/vendor-liburing.mjs'
fi

# ---- with what ----
if [ -z "${CXX:-}" ]; then
  for CXX in c++ g++ clang++ none; do
    command -v "$CXX" >/dev/null && break
  done
  [ "$CXX" != none ] || fail 'no C++ compiler: there is no c++, g++ or clang++; set CXX'
fi
# Of several words the first is the program.
command -v "${CXX%% *}" >/dev/null || fail "no C++ compiler: ${CXX%% *} isn't there; set CXX"

build=$out.build
mkdir "$build" || fail "$build can't be made, or is another build's: remove it"
trap 'rm -rf "$build"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

cat >"$build/probe.cc" <<'END'
#include <bit>
#include <semaphore>
#include <span>
#include <thread>
int main() {
  static_assert(__cplusplus >= 202002L && sizeof(void*) == 8, "C++20 on a system of 64 bits");
  std::counting_semaphore<> ready(1);
  ready.acquire();
  std::thread([] {}).join();
  return std::span<const char>("x", 1).size() == std::bit_ceil(1u) ? 0 : 1;
}
END
flags="-std=c++20 -pthread -O1 -g"
# CXX and CXXFLAGS are lists of words.
# shellcheck disable=SC2086
if ! $CXX $flags ${CXXFLAGS:-} -o "$build/probe" "$build/probe.cc" >"$build/probe.log" 2>&1; then
  cat "$build/probe.log" >&2
  fail "$CXX doesn't compile C++20 (its words stand above): clang 14, gcc 11 or newer is needed; set CXX, and CXXFLAGS where it takes more"
fi

# ---- what ----
ours="$flags -Wall -Wextra -fno-exceptions -DCP_TEST_BUILD=1"
stand_in=$root/test/kqueue-shim
sources="$root/native/core/*.cc $root/native/posix/*.cc $root/native/test/*.cc"
if [ "$backend" = linux ]; then
  ours="$ours -DCP_BACKEND_LINUX=1"
  sources="$sources $root/native/linux/*.cc"
else
  ours="$ours -DCP_BACKEND_KQUEUE=1"
  sources="$sources $root/native/mac/*.cc"
fi
if [ -n "$shim" ]; then
  ours="$ours -DCP_KQUEUE_SHIM=1"
  sources="$sources $stand_in/kqueue_shim.cc $stand_in/faults.cc"
fi

if [ -n "$uring" ]; then
  # configure writes beside the sources, so it is given a copy. The C++ compiler compiles C as well.
  mkdir "$build/liburing"
  for part in configure Makefile.common Makefile.quiet liburing.spec src; do
    cp -R "$uring/$part" "$build/liburing/" || exit 1
  done
  (cd "$build/liburing" && sh ./configure "--cc=$CXX -x c" "--cxx=$CXX") >"$build/configure.log" 2>&1 || {
    cat "$build/configure.log" >&2
    fail "liburing's configure failed (its words stand above)"
  }
  for name in setup queue register syscall version nolibc; do
    [ $name != nolibc ] || grep -q CONFIG_NOLIBC "$build/liburing/config-host.h" || continue
    sources="$sources $build/liburing/src/$name.c"
  done
fi

compile() {
  case $1 in
  */liburing/*)
    c="-x c -O1 -w -pthread -DLIBURING_INTERNAL -D_GNU_SOURCE -D_LARGEFILE_SOURCE -D_FILE_OFFSET_BITS=64 -fno-stack-protector"
    if grep -q CONFIG_NOLIBC "$build/liburing/config-host.h"; then c="$c -ffreestanding -fno-builtin"; fi
    # shellcheck disable=SC2086
    $CXX $c -I"$build/liburing/src/include" -include "$build/liburing/config-host.h" -c "$1" -o "$2"
    ;;
  *)
    source=$1 object=$2
    set -- -I"$root/native"
    # A backend sees the stand-in's header, and calls that misbehave where they are asked to; the tests don't.
    case $source in
    */native/posix/* | */native/mac/*) [ -z "$shim" ] || set -- "$@" -I"$stand_in" -include "$stand_in/faults.h" ;;
    */test/kqueue-shim/*) set -- "$@" -I"$stand_in" ;;
    esac
    [ -z "$uring" ] || set -- "$@" -isystem "$build/liburing/src/include"
    # shellcheck disable=SC2086
    $CXX $ours ${CXXFLAGS:-} "$@" -c "$source" -o "$object"
    ;;
  esac
}

jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)}
case $jobs in
'' | *[!0-9]* | 0) jobs=1 ;;
esac
# shellcheck disable=SC2086
set -- $sources
total=$#
count=0
objects=
while [ $# -gt 0 ]; do
  running=
  while [ $# -gt 0 ] && [ "$(echo "$running" | wc -w)" -lt "$jobs" ]; do
    count=$((count + 1))
    echo "[$count/$total] ${1#"$root"/}"
    compile "$1" "$build/$count.o" &
    running="$running $!"
    objects="$objects $build/$count.o"
    shift
  done
  failed=
  for pid in $running; do
    wait "$pid" || failed=yes
  done
  [ -z "$failed" ] || fail 'a file does not compile (the words of the compiler stand above)'
done
# shellcheck disable=SC2086
$CXX $flags ${CXXFLAGS:-} -o "$build/program" $objects || fail 'the program can not be linked (the words of the compiler stand above)'
mv "$build/program" "$out" || exit 1
echo "built $out: $([ "$backend" = linux ] && echo 'io_uring and epoll' || echo kqueue)${shim:+ over the stand-in}, for $system"
