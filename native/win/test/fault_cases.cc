// What only native code can do to a port on Windows: handles of other kinds, handles that others close, starts that end in a warning; and the clauses
// whose races are narrower here than in JavaScript. Facts (learn.microsoft.com): CreateIoCompletionPort ("can be associated with only one I/O completion
// port", "must be to an object that supports overlapped I/O"), ReadFile (ERROR_MORE_DATA of a message pipe), CancelIoEx.
#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "core/os.h"
#include "test/harness.h"

namespace cp::test {

namespace {

constexpr auto kBadHandle = static_cast<int32_t>(Status::kEBADF);
constexpr auto kNotASocket = static_cast<int32_t>(Status::kENOTSOCK);

OsHandle OsOf(HANDLE handle) { return reinterpret_cast<OsHandle>(handle); }
HANDLE HandleOf(int fd) { return reinterpret_cast<HANDLE>(static_cast<intptr_t>(fd)); }

// A file of its own that goes with its last handle.
HANDLE TemporaryFile(DWORD flags) {
  char folder[MAX_PATH + 1], name[MAX_PATH + 1];
  CHECK(GetTempPathA(sizeof(folder), folder) != 0 && GetTempFileNameA(folder, "cpt", 0, name) != 0);
  const HANDLE file = CreateFileA(name, GENERIC_READ | GENERIC_WRITE | DELETE, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                                  nullptr, OPEN_EXISTING, FILE_FLAG_DELETE_ON_CLOSE | flags, nullptr);
  CHECK(file != INVALID_HANDLE_VALUE);
  return file;
}

// What Associate says of an OS handle that no table knows yet; the handle stays the caller's.
int Bound(TestPort& test, HandleKind kind, OsHandle os) {
  Handle* handle = HandleTable::Process().Create(1, kind, os);
  CHECK(handle != nullptr);
  const int result = test.port().Associate(*handle, 1);
  if (result != 0) {
    handle->os = kOsHandleNone;
    HandleTable::Process().Retire(*handle);
    HandleTable::Process().Free(*handle);
  }
  return result;
}

}  // namespace

CASE(AnotherPort, "ASSOC-02/another-port", "a socket that another completion port has is refused, and goes on there") {
  TestPort test;
  int pair[2];
  TcpPair(pair);
  const HANDLE other = CreateIoCompletionPort(HandleOf(pair[0]), nullptr, 77, 1);
  CHECK(other != nullptr);
  CHECK_EQ(Bound(test, HandleKind::kSocket, pair[0]), -ERROR_INVALID_PARAMETER);
  WSAOVERLAPPED overlapped{};
  char byte = 0;
  WSABUF buffer = {1, &byte};
  DWORD flags = 0;
  CHECK(WSARecv(static_cast<SOCKET>(pair[0]), &buffer, 1, nullptr, &flags, &overlapped, nullptr) == 0 ||
        WSAGetLastError() == WSA_IO_PENDING);
  WriteAll(pair[1], "x", 1);
  DWORD bytes = 0;
  ULONG_PTR key = 0;
  OVERLAPPED* ended = nullptr;
  CHECK(GetQueuedCompletionStatus(other, &bytes, &key, &ended, 10'000));
  CHECK_EQ(key, ULONG_PTR{77});
  CHECK(ended == &overlapped && bytes == 1 && byte == 'x');
  CHECK(test.Get(8, 0).empty());
  closesocket(static_cast<SOCKET>(pair[0]));
  closesocket(static_cast<SOCKET>(pair[1]));
  CloseHandle(other);
}

CASE(NotAHandle, "ASSOC-02/no-handle", "what is no handle is refused, and the port works on") {
  TestPort test;
  CHECK(Bound(test, HandleKind::kFile, 0x7ffffff0) < 0);
  CHECK(Bound(test, HandleKind::kSocket, 0x7ffffff4) < 0);
  CHECK(test.Post(5));
  CHECK_EQ(test.GetOne().key, 5.0);
}

CASE(NotOverlapped, "ASSOC-02/not-overlapped",
     "a file opened without FILE_FLAG_OVERLAPPED: refused, or each operation has its one packet") {
  TestPort test;
  const HANDLE file = TemporaryFile(0);
  DWORD written = 0;
  CHECK(WriteFile(file, "abcdef", 6, &written, nullptr) && written == 6);
  if (Bound(test, HandleKind::kFile, OsOf(file)) != 0) {
    CloseHandle(file);
    return;
  }
  // The port has it now, and closes it.
  Handle* handle = nullptr;
  HandleTable::Process().ForEachOwned(1, [&](Handle& each) { handle = &each; });
  CHECK(handle != nullptr);
  for (int round = 0; round < 20; round++) {
    const uint32_t slot = test.Start(Opcode::kRead, *handle, 0, 6, 0);
    const CompletionEntry packet = test.GetOne();
    CHECK_EQ(packet.slot, slot);
    CHECK(packet.status != kOk || packet.bytes == 6);
    CHECK(test.Get(8, 1).empty());
  }
}

CASE(ClosedByOthers, "ERR-03/closed-by-others", "a handle that somebody else has closed: an error for each operation, nothing else") {
  TestPort test;
  for (uint32_t round = 0; round < context.Count(100); round++) {
    const auto [handle, peer] = test.Pair(9);
    closesocket(static_cast<SOCKET>(handle->os));
    test.Start(Opcode::kRecv, *handle, 0, 16);
    test.Start(Opcode::kSend, *handle, 64, 16);
    for (const CompletionEntry& packet : test.GetExactly(2)) {
      CHECK_EQ(packet.key, 9.0);
      CHECK(packet.status == kBadHandle || packet.status == kNotASocket);
    }
    handle->os = kOsHandleNone;  // or its number would be closed again, which is somebody else's by then
    test.Close(*handle, false);
    closesocket(static_cast<SOCKET>(peer));
  }
  CHECK(test.Get(8, 1).empty());
}

CASE(MidOperation, "CLOSE-04/mid-operation", "a close with a recv, a send and a read under way ends each once") {
  TestPortOptions options;
  options.arena_bytes = 8 << 20;
  TestPort test(options);
  for (uint32_t round = 0; round < context.Count(100); round++) {
    const auto [handle, peer] = test.Pair(3);
    const HANDLE os = TemporaryFile(FILE_FLAG_OVERLAPPED);
    Handle& file = test.Adopt(HandleKind::kFile, OsOf(os), 4);
    std::set<uint32_t> slots;
    slots.insert(test.Start(Opcode::kRecv, *handle, 0, 16));
    slots.insert(test.Start(Opcode::kSend, *handle, 64, 4 << 20));
    slots.insert(test.Start(Opcode::kRead, file, 16, 16, 0));
    slots.insert(test.Start(Opcode::kWrite, file, 32, 16, 0));
    if (round % 2 == 0) test.Submit();
    CHECK(test.Close(*handle, round % 3 == 0) && test.Close(file, false));
    for (const CompletionEntry& packet : test.GetExactly(4)) {
      CHECK_EQ(slots.erase(packet.slot), size_t{1});
      CHECK(packet.status == kOk || packet.status == kCanceled);
    }
    closesocket(static_cast<SOCKET>(peer));
  }
  CHECK(test.Get(8, 1).empty());
}

CASE(CancelRaces, "CANCEL-04/races", "a thousand cancels against the byte that comes: one packet each, and no byte is lost") {
  TestPort test;
  const auto [handle, peer] = test.Pair(1);
  Random random(context.seed);
  const uint32_t rounds = context.Count(1000);
  std::atomic<uint32_t> go{0}, sent{0};
  std::thread sender([&, peer = peer] {
    for (uint32_t round = 1; round <= rounds; round++) {
      while (go.load() < round) YieldProcessor();
      WriteAll(peer, "x", 1);
      sent.store(round);
    }
  });
  uint32_t taken = 0, canceled = 0;
  for (uint32_t round = 1; round <= rounds; round++) {
    const uint32_t slot = test.Start(Opcode::kRecv, *handle, 0, 1);
    test.Submit();
    go.store(round);
    for (uint32_t spin = random.Below(2000); spin > 0; spin--) YieldProcessor();
    test.Cancel(slot);
    const CompletionEntry packet = test.GetOne();
    CHECK_EQ(packet.slot, slot);
    CHECK(packet.status == kOk ? packet.bytes == 1 : packet.status == kCanceled && packet.bytes == 0);
    (packet.status == kOk ? taken : canceled)++;
    while (sent.load() < round) SwitchToThread();
    // What the cancelled one has not taken is there for the next.
    while (taken < round) {
      test.Start(Opcode::kRecv, *handle, 0, 1);
      const CompletionEntry rest = test.GetOne();
      CHECK(rest.status == kOk && rest.bytes == 1);
      taken++;
    }
  }
  sender.join();
  CHECK(test.Get(8, 1).empty());
  closesocket(static_cast<SOCKET>(peer));
}

CASE(HalfSent, "CANCEL-05/half-sent",
     "a send that is cancelled while its peer takes what it has sent so far: it ends, though nobody reads on") {
  TestPortOptions options;
  options.arena_bytes = 8 << 20;
  TestPort test(options);
  const auto [handle, peer] = test.Pair(1);
  const auto reading_end = static_cast<SOCKET>(peer);
  u_long on = 1;
  CHECK_EQ(ioctlsocket(reading_end, FIONBIO, &on), 0);
  Random random(context.seed);
  std::atomic<bool> reading{false}, over{false};
  std::thread reader([&] {
    std::vector<char> room(1 << 16);
    while (!over.load())
      if (!reading.load() || recv(reading_end, room.data(), static_cast<int>(room.size()), 0) <= 0) SwitchToThread();
  });
  for (uint32_t round = context.Count(300); round > 0; round--) {
    const uint32_t slot = test.Start(Opcode::kSend, *handle, 0, 8 << 20);
    test.Submit();
    reading.store(true);
    for (uint32_t spin = random.Below(50'000); spin > 0; spin--) YieldProcessor();
    reading.store(false);
    test.Cancel(slot);
    const CompletionEntry packet = test.GetOne();
    CHECK_EQ(packet.slot, slot);
    CHECK(packet.status == kCanceled || (packet.status == kOk && packet.bytes == 8 << 20));
  }
  over.store(true);
  reader.join();
  CHECK(test.Get(8, 1).empty());
  closesocket(reading_end);
}

CASE(Warning, "OP-06/warning", "a start whose status is a warning (a message that is longer than the buffer) gives exactly one packet") {
  TestPort test;
  const std::string name = R"(\\.\pipe\completion-port-test-)" + std::to_string(GetCurrentProcessId());
  const HANDLE server = CreateNamedPipeA(name.c_str(), PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED,
                                         PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE | PIPE_WAIT, 1, 4096, 4096, 0, nullptr);
  CHECK(server != INVALID_HANDLE_VALUE);
  const HANDLE client = CreateFileA(name.c_str(), GENERIC_READ | GENERIC_WRITE, 0, nullptr, OPEN_EXISTING, 0, nullptr);
  CHECK(client != INVALID_HANDLE_VALUE);
  Handle& handle = test.Adopt(HandleKind::kFile, OsOf(server), 6);
  for (uint32_t round = 0; round < context.Count(200); round++) {
    const auto write = [&] {
      DWORD written = 0;
      CHECK(WriteFile(client, "0123456789", 10, &written, nullptr) && written == 10);
    };
    // Before its read it ends at once, with the warning as the call's own answer; behind it later, with the same in the packet.
    if (round % 2 == 0) write();
    const uint32_t slot = test.Start(Opcode::kRead, handle, 0, 4, 0);
    test.Submit();
    if (round % 2 != 0) write();
    const CompletionEntry packet = test.GetOne();
    CHECK_EQ(packet.slot, slot);
    CHECK_EQ(packet.key, 6.0);
    CHECK_EQ(packet.bytes, 4.0);
    CHECK(std::memcmp(test.arena(), "0123", 4) == 0);
    CHECK(test.Get(8, 0).empty());
    // The rest of the message; a read of more would go on, as one of a file does, to the next message.
    test.Start(Opcode::kRead, handle, 0, 6, 0);
    const CompletionEntry rest = test.GetOne();
    CHECK(rest.status == kOk && rest.bytes == 6 && std::memcmp(test.arena(), "456789", 6) == 0);
  }
  CHECK(test.Get(8, 1).empty());
  CloseHandle(client);
}

CASE(Thousand, "PORT-03/handles",
     "a thousand ports created and closed, with a loop's helper and a socket each: the process has as many handles as before") {
  const auto round = [] {
    TestPortOptions options;
    options.max_operations = 16;
    options.arena_bytes = 1 << 16;
    TestPort test(options);
    const auto [handle, peer] = test.Pair(1);
    test.Start(Opcode::kRecv, *handle, 0, 1);
    test.Submit();
    test.Enter(kEnterArm | kEnterWantUser, 8);  // the helper waits in the loop's place from here on
    CHECK_EQ(test.control().completions, 0u);
    CHECK(test.Post(2));
    CHECK_EQ(test.GetOne().key, 2.0);
    closesocket(static_cast<SOCKET>(peer));
  };
  for (int warm = 0; warm < 20; warm++) round();
  const int64_t before = os::CountProcess().handles;
  for (uint32_t i = 0; i < context.Count(1000); i++) round();
  const int64_t after = os::CountProcess().handles;
  // What the C++ library makes once for a lock that was waited for.
  constexpr int64_t kSlack = 8;
  CHECK(before > 0);
  if (after > before + kSlack) Fail(__FILE__, __LINE__, std::to_string(before) + " handles before, " + std::to_string(after) + " after");
}

}  // namespace cp::test
