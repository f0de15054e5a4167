// The process's shared ports, by token. A token is an index, a generation and 128 random bits: never a pointer, and of no use to whoever
// guesses or edits it. Any thread may call.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

namespace cp {

class Port;

struct Token {
  uint32_t index = 0;
  uint32_t generation = 0;
  std::array<uint32_t, 4> secret{};
};

class SharedPorts {
 public:
  static SharedPorts& Process();

  Token Publish(std::shared_ptr<Port> port, const std::byte* arena);
  // Sets `*known` if there is such a token, or was; null: its port has gone. `arena` must be the port's own.
  std::shared_ptr<Port> Find(const Token& token, const std::byte* arena, bool* known);
  // Nobody attaches any more.
  void Forget(const Port* port);

 private:
  struct Entry {
    std::shared_ptr<Port> port;
    const std::byte* arena = nullptr;
    Token token;
  };
  // Of ports that have gone, the latest: their tokens are told from what never was one.
  static constexpr size_t kGoneMax = 4096;
  std::mutex mutex_;
  std::deque<Token> gone_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> free_;
};

}  // namespace cp
