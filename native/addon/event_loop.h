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
  // A descriptor that is readable while the environment's loop has been sent for, by whomever: libuv's own. -1: none is known.
  static int Descriptor(napi_env env);

  virtual ~EventLoop() = default;  // stops at once; what libuv still holds goes later by itself
  virtual void Ref() = 0;
  virtual void Unref() = 0;
  virtual void Wake() = 0;
};

}  // namespace cp::addon
