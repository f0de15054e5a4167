// See addon/event_loop.h. On Windows libuv watches sockets only (uv_poll_t, docs.libuv.org), and a port is none: whoever has packets calls a
// thread-safe function. Calls that are on their way already are not repeated.
#include "addon/event_loop.h"

#include <atomic>

namespace cp::addon {

namespace {

class CallLoop final : public EventLoop {
 public:
  ~CallLoop() override {
    if (function_ == nullptr) return;
    source_->SetWaker(nullptr);  // nobody calls any more
    shared_->loop = nullptr;
    napi_release_threadsafe_function(function_, napi_tsfn_abort);
  }
  bool Open(napi_env env, LoopSource& source, void (*wake)(void*), void* data) {
    source_ = &source;
    wake_ = wake;
    data_ = data;
    env_ = env;
    napi_value name;
    if (napi_create_string_utf8(env, "completion-port", NAPI_AUTO_LENGTH, &name) != napi_ok) return false;
    shared_ = new Shared{this};
    if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, shared_, &CallLoop::OnFinalize, shared_, &CallLoop::OnCall,
                                        &function_) != napi_ok) {
      delete shared_;
      function_ = nullptr;
      return false;
    }
    napi_unref_threadsafe_function(env, function_);
    source.SetWaker([this] { Call(); });
    return true;
  }
  void Ref() override { napi_ref_threadsafe_function(env_, function_); }
  void Unref() override { napi_unref_threadsafe_function(env_, function_); }
  void Wake() override { Call(); }

 private:
  struct Shared {
    CallLoop* loop;
  };
  static void OnFinalize(napi_env, void* data, void*) { delete static_cast<Shared*>(data); }
  static void OnCall(napi_env env, napi_value, void* context, void*) {
    CallLoop* self = static_cast<Shared*>(context)->loop;
    if (env == nullptr || self == nullptr) return;
    self->called_.store(false);
    self->source_->ClearNotification();
    self->source_->Look();
    self->wake_(self->data_);  // may end `self`
  }
  void Call() {
    if (!called_.exchange(true)) napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
  }

  napi_env env_ = nullptr;
  napi_threadsafe_function function_ = nullptr;
  Shared* shared_ = nullptr;
  std::atomic<bool> called_{false};
  LoopSource* source_ = nullptr;
  void (*wake_)(void*) = nullptr;
  void* data_ = nullptr;
};

}  // namespace

bool EventLoop::HasUv(napi_env) { return false; }
bool EventLoop::CanInvert(napi_env) { return false; }

std::unique_ptr<EventLoop> EventLoop::Start(napi_env env, LoopSource& source, Port*, Mode, void (*wake)(void*), void* data) {
  auto loop = std::make_unique<CallLoop>();
  if (!loop->Open(env, source, wake, data)) return nullptr;
  return loop;
}

}  // namespace cp::addon
