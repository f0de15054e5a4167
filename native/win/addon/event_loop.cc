// See addon/event_loop.h. On Windows libuv watches sockets only (uv_poll_t, docs.libuv.org), and a port is none: whoever has packets sends for the loop.
// On Node by a uv_async: a thread-safe function calls within a callback scope, so that ticks and promise continuations of what it calls, the jobs that
// hold a place at a shared port among them, would run only when all is over (seen: more threads at once than `concurrency`). Elsewhere by a
// thread-safe function all the same. libuv's functions are looked up at run time.
#include "addon/event_loop.h"

#include <atomic>
#include <cstdlib>
#include <type_traits>

#include "win/windows.h"

namespace cp::addon {

namespace {

// Opaque to us: libuv tells the sizes, and the first member of every handle is `void* data`.
struct UvHandle {
  void* data;
};
using UvCallback = void (*)(UvHandle*);
constexpr int kUvAsync = 1;  // of libuv's public ABI, uv_handle_type

struct Uv {
  size_t (*handle_size)(int);
  void (*close)(UvHandle*, UvCallback);
  void (*ref)(UvHandle*);
  void (*unref)(UvHandle*);
  int (*async_init)(void* loop, UvHandle*, UvCallback);
  int (*async_send)(UvHandle*);
  bool complete;
};

const Uv& TheUv() {
  static const Uv uv = [] {
    Uv found{};
    // node.exe exports them, with its own functions; Bun exports some that abort, so the runtime's own decides.
    const HMODULE program = GetModuleHandleW(nullptr);
    found.complete = GetProcAddress(program, "node_module_register") != nullptr;
    const auto look = [&](auto& function, const char* name) {
      const FARPROC address = GetProcAddress(program, name);
      if (address == nullptr) found.complete = false;
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(reinterpret_cast<void*>(address));
    };
    look(found.handle_size, "uv_handle_size");
    look(found.close, "uv_close");
    look(found.ref, "uv_ref");
    look(found.unref, "uv_unref");
    look(found.async_init, "uv_async_init");
    look(found.async_send, "uv_async_send");
    return found;
  }();
  return uv;
}

// The uv_async of one loop. It outlives the EventLoop until libuv has closed it; an asynchronous clean-up hook keeps the environment for so long.
class AsyncHandle {
 public:
  // Null: no memory, or this environment ends.
  static AsyncHandle* Make(napi_env env, void* loop, UvCallback call) {
    auto* made = new AsyncHandle;
    made->handle_ = static_cast<UvHandle*>(std::calloc(1, TheUv().handle_size(kUvAsync)));
    if (made->handle_ != nullptr && napi_add_async_cleanup_hook(env, &AsyncHandle::OnCleanup, made, &made->hook_) == napi_ok) {
      if (TheUv().async_init(loop, made->handle_, call) == 0) {
        made->handle_->data = made;
        return made;
      }
      napi_remove_async_cleanup_hook(made->hook_);
    }
    std::free(made->handle_);
    delete made;
    return nullptr;
  }
  UvHandle* handle() const { return handle_; }
  void Close() {
    if (closing_) return;
    closing_ = true;
    TheUv().close(handle_, &AsyncHandle::OnClosed);
  }

  void* owner = nullptr;
  void (*leave)(void* owner) = nullptr;

 private:
  // The environment ends, and its ports after this: until then nobody may send to a handle that is being closed.
  static void OnCleanup(napi_async_cleanup_hook_handle, void* data) {
    auto* self = static_cast<AsyncHandle*>(data);
    if (self->owner != nullptr)
      self->leave(self->owner);
    else
      self->Close();
  }
  static void OnClosed(UvHandle* handle) {
    auto* self = static_cast<AsyncHandle*>(handle->data);
    std::free(handle);
    napi_remove_async_cleanup_hook(self->hook_);
    delete self;
  }

  UvHandle* handle_ = nullptr;
  napi_async_cleanup_hook_handle hook_ = nullptr;
  bool closing_ = false;
};

class AsyncLoop final : public EventLoop {
 public:
  ~AsyncLoop() override { Leave(); }
  bool Open(napi_env env, LoopSource& source, void (*wake)(void*), void* data) {
    uv_loop_s* loop = nullptr;
    if (!TheUv().complete || napi_get_uv_event_loop(env, &loop) != napi_ok) return false;
    async_ = AsyncHandle::Make(env, loop, &AsyncLoop::OnAsync);
    if (async_ == nullptr) return false;
    async_->owner = this;
    async_->leave = [](void* owner) { static_cast<AsyncLoop*>(owner)->Leave(); };
    source_ = &source;
    wake_ = wake;
    data_ = data;
    TheUv().unref(async_->handle());
    source.SetWaker([handle = async_->handle()] { TheUv().async_send(handle); });
    return true;
  }
  void Ref() override {
    if (async_ != nullptr) TheUv().ref(async_->handle());
  }
  void Unref() override {
    if (async_ != nullptr) TheUv().unref(async_->handle());
  }
  void Wake() override {
    if (async_ != nullptr) TheUv().async_send(async_->handle());
  }

 private:
  void Leave() {
    if (async_ == nullptr) return;
    source_->SetWaker(nullptr);  // nobody sends any more
    async_->owner = nullptr;
    async_->Close();
    async_ = nullptr;
  }

  static void OnAsync(UvHandle* handle) {
    auto* self = static_cast<AsyncLoop*>(static_cast<AsyncHandle*>(handle->data)->owner);
    if (self == nullptr) return;
    self->source_->ClearNotification();
    self->source_->Look();
    self->wake_(self->data_);  // may end `self`
  }

  AsyncHandle* async_ = nullptr;
  LoopSource* source_ = nullptr;
  void (*wake_)(void*) = nullptr;
  void* data_ = nullptr;
};

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
int EventLoop::Descriptor(napi_env) { return -1; }
bool EventLoop::IsCalled(napi_env) { return true; }
bool EventLoop::CanInvert(napi_env) { return false; }

std::unique_ptr<EventLoop> EventLoop::Start(napi_env env, LoopSource& source, Port*, Mode, void (*wake)(void*), void* data,
                                            CreateError* error) {
  auto async = std::make_unique<AsyncLoop>();
  if (async->Open(env, source, wake, data)) return async;
  auto loop = std::make_unique<CallLoop>();
  if (loop->Open(env, source, wake, data)) return loop;
  *error = {ERROR_NOT_ENOUGH_MEMORY, "not enough memory"};
  return nullptr;
}

}  // namespace cp::addon
