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

std::shared_ptr<Port> SharedPorts::Find(const Token& token, const std::byte* arena, bool* known) {
  std::lock_guard lock(mutex_);
  *known = false;
  if (token.index >= entries_.size()) return nullptr;
  const Entry& entry = entries_[token.index];
  // An older generation's secret isn't kept; that it was one of ours is all that can be said.
  *known = token.generation > 0 && token.generation < entry.token.generation;
  if (token.generation != entry.token.generation) return nullptr;
  uint32_t difference = 0;
  for (size_t i = 0; i < token.secret.size(); i++) difference |= token.secret[i] ^ entry.token.secret[i];
  if (difference != 0 && !MutantIs(Mutant::kAnySecret)) return nullptr;
  *known = true;
  if (entry.port != nullptr && arena != entry.arena) {
    *known = false;
    return nullptr;
  }
  return entry.port;
}

void SharedPorts::Forget(const Port* port) {
  std::shared_ptr<Port> last;  // goes without the mutex
  std::lock_guard lock(mutex_);
  for (Entry& entry : entries_) {
    if (entry.port.get() != port) continue;
    last = std::move(entry.port);
    entry.port = nullptr;
    free_.push_back(entry.token.index);
    return;
  }
}

}  // namespace cp
