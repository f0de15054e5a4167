// All native state of one environment (the main thread or a worker): its ports and the handles it made. One struct, one clean-up.
#pragma once

#include <napi.h>

#include <cstdint>
#include <unordered_set>

namespace cp {
class Port;
}

namespace cp::addon {

class PortBinding;

struct Environment {
  uint64_t id = 0;  // owner of handles; never reused
  std::unordered_set<PortBinding*> ports;
  // The port of this thread that waits in libuv's place, if there is one: a thread sleeps in one place.
  PortBinding* inverted = nullptr;
  bool ending = false;

  // The binding of that port in this environment; null: none, or no port. Only the pointer is looked at.
  PortBinding* FindPort(const Port* port) const;

  // While the environment's memory is still mapped: cancels, waits until the kernel has let go, closes what is open.
  static void CleanUp(void* data);
};

}  // namespace cp::addon
