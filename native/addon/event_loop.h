// How a port wakes the event loop of its thread. On Node: a uv_poll on the backend's notification descriptor, or inverted, a uv_prepare
// that waits in the port itself. Elsewhere (Bun, Deno): a helper thread and a thread-safe function. libuv's functions are looked up at run
// time; there is no libuv header and no symbol of it at link time.
#pragma once

#include <napi.h>

#include <memory>

#include "core/port.h"

namespace cp::addon {

class EventLoop {
 public:
  enum class Mode { kPlain, kInverted, kThread };

  // `wake` is called with `data` on the environment's thread. Null: a descriptor, a thread or memory is short, *error says which; the modes
  // with uv are for where HasUv says so. `driven`: the port that an inverted loop waits in.
  static std::unique_ptr<EventLoop> Start(napi_env env, LoopSource& source, Port* driven, Mode mode, void (*wake)(void*), void* data,
                                          CreateError* error);
  static bool CanInvert(napi_env env);
  static bool HasUv(napi_env env);
  // libuv's own descriptor of a worker's loop, which becomes readable whenever somebody sends for it. -1: none is known, or it is no worker's.
  static int Descriptor(napi_env env);
  // Whether others have sent for the environment and it hasn't come to that: who sends again, to terminate it, won't make the descriptor readable.
  // Also where that isn't known. On the loop's thread.
  static bool IsCalled(napi_env env);

  virtual ~EventLoop() = default;  // stops at once; what libuv still holds goes later by itself
  virtual void Ref() = 0;
  virtual void Unref() = 0;
  virtual void Wake() = 0;
};

}  // namespace cp::addon
