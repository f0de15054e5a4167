// A disk that stands still while what waits for it ends: an environment, a thread, a port. Nobody waits for it, no byte is written to memory that
// is gone, no descriptor is closed under a call or left behind.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/file_pool.h"
#include "core/test_hooks.h"
#include "test/members.h"

namespace cp::test {

namespace {

constexpr double kPromptMs = 2'000;  // a wait for the disk would last for ever

// Holds every call that a thread of the pool makes.
struct HeldDisk {
  HeldDisk() { HoldDisk(true); }
  ~HeldDisk() { Release(); }
  static void Await(uint32_t calls) {
    const double deadline = MonotonicMs() + 10'000;
    while (HeldByDisk() < calls && MonotonicMs() < deadline) SleepMs(0.2);
    CHECK_EQ(HeldByDisk(), calls);
  }
  static void Release() { HoldDisk(false); }
};

void AwaitDescriptors(int count) {
  const double deadline = MonotonicMs() + 5'000;
  while (OpenDescriptors() != count && MonotonicMs() < deadline) SleepMs(1);
  CHECK_EQ(OpenDescriptors(), count);
}

TestPortOptions ReadsWait() {
  TestPortOptions options;
  options.disable = "read_nowait";
  return options;
}

std::string TextOf(int fd, size_t bytes) {
  std::string text(bytes, '\0');
  const ssize_t count = pread(fd, text.data(), bytes, 0);
  CHECK(count >= 0);
  text.resize(static_cast<size_t>(count));
  return text;
}

}  // namespace

static Register left_behind(
    "disk/environment",
    "a port ends, its memory and its handles with it, while all its calls hang: nobody waits, and each descriptor is closed once",
    [](const Context& context) {
      for (uint32_t round = 0; round < context.Count(20); round++) {
        const int before = OpenDescriptors();
        const int kept = TempFile();
        CHECK_EQ(write(kept, "as before", 9), 9);
        HeldDisk disk;
        double ended;
        {
          auto test = std::make_unique<TestPort>(ReadsWait());
          Handle& file = test->Adopt(HandleKind::kFile, fcntl(kept, F_DUPFD_CLOEXEC, 0), 1);
          Handle& other = test->Adopt(HandleKind::kFile, fcntl(kept, F_DUPFD_CLOEXEC, 0), 2);
          // Two on one descriptor, of which one is closed with its handle, an open whose descriptor nobody will want.
          test->Start(Opcode::kRead, file, 0, 9);
          test->Start(Opcode::kWrite, other, 64, 9);
          test->Start(Opcode::kSync, other, 0, 0);
          test->Open("/dev/zero", O_RDONLY, 3);
          test->Submit();
          HeldDisk::Await(kPoolThreadsDefault);
          // Nobody has begun with it, and nobody will.
          test->Start(Opcode::kTruncate, file, 0, 0, 0);
          test->Submit();
          if (round % 2 == 0) CHECK(test->Close(other, false));
          const double started = MonotonicMs();
          test.reset();
          ended = MonotonicMs() - started;
        }
        CHECK(ended < kPromptMs);
        // Numbers that are free again are somebody else's by now.
        const int stranger = TempFile();
        HeldDisk::Release();
        AwaitDescriptors(before + 2);
        const std::string text = TextOf(kept, 16);
        CHECK(text.size() == 9 && text != "as before");  // the write had begun; it writes what stood there when it began
        CHECK_EQ(TextOf(stranger, 16).size(), size_t{0});
        close(stranger);
        close(kept);
      }
    },
    On::kReactor);

static Register thread_leaves(
    "disk/thread", "a thread of a shared port leaves while calls into its memory hang: their packets say so, those in the arena go on",
    [](const Context& context) {
      const int before = OpenDescriptors();
      for (uint32_t round = 0; round < context.Count(20); round++) {
        SharedPort shared(4, 512, 64, "read_nowait");
        const int fd = TempFile();
        CHECK_EQ(write(fd, "0123456789", 10), 10);
        Handle& file = shared.Adopt(HandleKind::kFile, fd, 7);
        const uint32_t index = file.index, generation = file.last_generation;
        HeldDisk disk;
        Wrong wrong;
        std::thread thread([&] {
          Fenced own(4096);
          Member member(shared.port(), kOwner + 1);
          const uint32_t memory = shared.port().RegisterMemory(member.attachment(), own.span());
          EXPECT(wrong, member.Start(Opcode::kRead, index, generation, memory, 0, 10, 1));
          EXPECT(wrong, member.Start(Opcode::kRead, index, generation, kMemoryArena, 128, 10, 2));
          HeldDisk::Await(2);
          const double started = MonotonicMs();
          member.Leave();
          EXPECT(wrong, MonotonicMs() - started < kPromptMs);
          // `own` is unmapped
        });
        thread.join();
        CHECK_NONE(wrong);
        const auto first = shared.first().Get(8, 2'000);
        CHECK_EQ(first.size(), size_t{1});
        CHECK(first[0].operation_id == 1 && first[0].status == kCanceled && first[0].key == 7 && first[0].bytes == 0);
        // The handle is closed under the calls: its number is given out only when they are over, and what was started has its packets.
        const bool closes = round % 2 == 0;
        if (closes) CHECK(shared.port().CloseHandle(shared.first().attachment(), index, generation, false));
        const int stranger = TempFile();
        CHECK(stranger != fd);
        HeldDisk::Release();
        const auto second = shared.first().Get(8, 2'000);
        CHECK_EQ(second.size(), size_t{1});
        CHECK(second[0].operation_id == 2 && second[0].status == kOk && second[0].bytes == 10);
        CHECK(std::memcmp(shared.arena() + 128, "0123456789", 10) == 0);
        close(stranger);
        if (round % 4 < 2) continue;  // and the port ends with one call over and perhaps not seen
        // All of them are over, and the port goes on with the handle, or without it.
        if (!closes) {
          CHECK(shared.first().Start(Opcode::kRead, index, generation, kMemoryArena, 256, 4, 3));
          const auto third = shared.first().Get(8, 2'000);
          CHECK(third.size() == 1 && third[0].bytes == 4);
        }
      }
      AwaitDescriptors(before);
    },
    On::kReactor);

static Register port_stops(
    "disk/stop", "the last thread of a shared port leaves while calls hang, into its memory and the arena: both are unmapped at once",
    [](const Context& context) {
      for (uint32_t round = 0; round < context.Count(20); round++) {
        const int before = OpenDescriptors();
        const int kept = TempFile();
        CHECK_EQ(write(kept, "0123456789", 10), 10);
        HeldDisk disk;
        double ended;
        {
          auto shared = std::make_unique<SharedPort>(4, 512, 64, "read_nowait");
          Handle& file = shared->Adopt(HandleKind::kFile, fcntl(kept, F_DUPFD_CLOEXEC, 0), 7);
          Handle& closed = shared->Adopt(HandleKind::kFile, fcntl(kept, F_DUPFD_CLOEXEC, 0), 8);
          Member& first = shared->first();
          CHECK(first.Start(Opcode::kRead, file.index, file.last_generation, kMemoryArena, 0, 10, 1));
          CHECK(first.Start(Opcode::kRead, closed.index, closed.last_generation, kMemoryArena, 64, 10, 2));
          Wrong wrong;
          std::thread thread([&] {
            Fenced own(4096);
            Member member(shared->port(), kOwner + 1);
            const uint32_t memory = shared->port().RegisterMemory(member.attachment(), own.span());
            EXPECT(wrong, member.Start(Opcode::kRead, file.index, file.last_generation, memory, 0, 10, 3));
            EXPECT(wrong, member.Start(Opcode::kRead, closed.index, closed.last_generation, memory, 64, 10, 4));
            HeldDisk::Await(4);
            if (round % 2 == 0) EXPECT(wrong, shared->port().CloseHandle(member.attachment(), closed.index, closed.last_generation, false));
            member.Leave();
          });
          thread.join();
          CHECK_NONE(wrong);
          const double started = MonotonicMs();
          shared.reset();
          ended = MonotonicMs() - started;
        }
        CHECK(ended < kPromptMs);
        const int stranger = TempFile();
        HeldDisk::Release();
        AwaitDescriptors(before + 2);
        CHECK_EQ(TextOf(stranger, 16).size(), size_t{0});
        close(stranger);
        close(kept);
      }
    },
    On::kReactor);

static Register ends_meanwhile(
    "disk/races",
    "calls end at the very moment at which their environment or thread does: no use of memory that is gone, nothing is left behind",
    [](const Context& context) {
      Random random(context.seed);
      const int before = OpenDescriptors();
      for (uint32_t round = 0; round < context.Count(200); round++) {
        HoldDisk(true);
        std::thread disk([pause = random.Below(300)] {
          SleepMs(pause / 1e3);
          HoldDisk(false);
        });
        const uint32_t length = 1 + random.Below(60'000);
        if (random.OneIn(2)) {
          TestPort test(ReadsWait());
          Handle& file = test.Adopt(HandleKind::kFile, TempFile(), 1);
          CHECK_EQ(ftruncate(static_cast<int>(file.os), length), 0);
          for (uint32_t i = 0; i < 6; i++) {
            const uint32_t at = i * 65'536;
            if (random.OneIn(3))
              test.StartVector(random.OneIn(2) ? Opcode::kReadv : Opcode::kWritev, file,
                               {{at, length / 2}, {at + length / 2, length - length / 2}});
            else
              test.Start(random.OneIn(2) ? Opcode::kRead : Opcode::kWrite, file, at, length);
          }
          test.Submit();
          if (random.OneIn(2)) SleepMs(random.Below(300) / 1e3);
          if (random.OneIn(4)) test.Close(file, false);
        } else {
          SharedPort shared(4, 512, 64, "read_nowait");
          Handle& file = shared.Adopt(HandleKind::kFile, TempFile(), 1);
          CHECK_EQ(ftruncate(static_cast<int>(file.os), length), 0);
          uint32_t started = 0;
          Fenced own(400'000);
          Member member(shared.port(), kOwner + 1);
          const uint32_t memory = shared.port().RegisterMemory(member.attachment(), own.span());
          for (uint32_t i = 0; i < 6; i++)
            started += member.Start(random.OneIn(2) ? Opcode::kRead : Opcode::kWrite, file.index, file.last_generation,
                                    random.OneIn(2) ? memory : kMemoryArena, i * 65'536, length, i);
          if (random.OneIn(2)) SleepMs(random.Below(300) / 1e3);
          member.Leave();
          uint32_t ended = 0;
          const double deadline = MonotonicMs() + 5'000;
          while (ended < started && MonotonicMs() < deadline) ended += static_cast<uint32_t>(shared.first().Get(8, 1).size());
          CHECK_EQ(ended, started);
          CHECK(shared.first().Get(8, 0).empty());
        }
        disk.join();
      }
      AwaitDescriptors(before);
    },
    On::kReactor);

static Register parts(
    "disk/parts", "what is moved in several parts, from and to one piece of memory or many, arrives whole, at the end of the file short",
    [](const Context& context) {
      TestPortOptions options = ReadsWait();
      options.arena_bytes = 16 << 20;
      TestPort test(options);
      Random random(context.seed);
      Handle& file = test.Adopt(HandleKind::kFile, TempFile(), 1);
      const int fd = static_cast<int>(file.os);
      constexpr uint64_t kHalf = 8 << 20;
      for (uint32_t round = 0; round < context.Count(20); round++) {
        CHECK_EQ(ftruncate(fd, 0), 0);
        const uint64_t length = 1 + random.Below(5 << 20), at = random.Below(100'000), from = random.Below(4096);
        for (uint64_t i = 0; i < length; i++) test.arena()[from + i] = static_cast<std::byte>((i * 2654435761u + round) >> 13);
        test.Start(Opcode::kWrite, file, from, length, static_cast<double>(at));
        CompletionEntry packet = test.GetOne();
        CHECK(packet.status == kOk && packet.bytes == static_cast<double>(length));
        struct stat info;
        CHECK(fstat(fd, &info) == 0 && info.st_size == static_cast<off_t>(at + length));
        // One byte more than there is.
        std::memset(test.arena() + kHalf, 0, length + 1);
        test.Start(Opcode::kRead, file, kHalf, length + 1, static_cast<double>(at));
        packet = test.GetOne();
        CHECK(packet.status == kOk && packet.bytes == static_cast<double>(length));
        CHECK(std::memcmp(test.arena() + kHalf, test.arena() + from, length) == 0);
        CHECK(test.arena()[kHalf + length] == std::byte{0});
      }
    },
    On::kReactor);

}  // namespace cp::test
