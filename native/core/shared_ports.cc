#include "core/shared_ports.h"

#include <random>

#include "core/port.h"
#include "core/test_hooks.h"

namespace cp {

SharedPorts& SharedPorts::Process() {
  // Never destroyed: worker threads may still end while the process's static objects go.
  static SharedPorts* ports = new SharedPorts;
  return *ports;
}

Token SharedPorts::Publish(std::shared_ptr<Port> port, const std::byte* arena) {
  std::random_device random;
  std::lock_guard lock(mutex_);
  if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(entries_.size()));
    entries_.emplace_back();
  }
  Entry& entry = entries_[free_.back()];
  entry.token.index = free_.back();
  free_.pop_back();
  entry.token.generation++;
  for (uint32_t& word : entry.token.secret) word = random();
  entry.port = std::move(port);
  entry.arena = arena;
  return entry.token;
}

namespace {

// In time that doesn't tell how much of a guess was right.
bool Same(const Token& a, const Token& b) {
  uint32_t difference = (a.index ^ b.index) | (a.generation ^ b.generation);
  for (size_t i = 0; i < a.secret.size(); i++) difference |= a.secret[i] ^ b.secret[i];
  return difference == 0;
}

}  // namespace

std::shared_ptr<Port> SharedPorts::Find(const Token& token, const std::byte* arena, bool* known) {
  std::lock_guard lock(mutex_);
  *known = false;
  for (const Token& gone : gone_) *known = *known || Same(token, gone);
  if (*known || token.index >= entries_.size()) return nullptr;
  const Entry& entry = entries_[token.index];
  const bool good = MutantIs(Mutant::kAnySecret) ? token.generation == entry.token.generation : Same(token, entry.token);
  if (!good || entry.port == nullptr || arena != entry.arena) return nullptr;
  *known = true;
  return entry.port;
}

void SharedPorts::Forget(const Port* port) {
  std::shared_ptr<Port> last;  // goes without the mutex
  std::lock_guard lock(mutex_);
  for (Entry& entry : entries_) {
    if (entry.port.get() != port) continue;
    last = std::move(entry.port);
    entry.port = nullptr;
    gone_.push_back(entry.token);
    if (gone_.size() > kGoneMax) gone_.pop_front();
    free_.push_back(entry.token.index);
    return;
  }
}

}  // namespace cp
