// See event_loop.h. Facts: the handle types' numbers, uv_backend_timeout and uv_backend_fd are of libuv's public ABI (docs.libuv.org, "uv_loop_t",
// "uv_handle_t"); uv_backend_timeout answers 0 while a watcher waits to be registered, so an inverted loop never sleeps over one.
#include "addon/event_loop.h"

#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "core/assert.h"
#include "posix/errors.h"
#include "posix/signal_descriptor.h"
#include "posix/thread_name.h"

namespace cp::addon {

namespace {

// Opaque to us: libuv tells the sizes, and the first member of every handle is `void* data`.
struct UvHandle {
  void* data;
};
using UvCallback = void (*)(UvHandle*);
using UvPollCallback = void (*)(UvHandle*, int status, int events);

constexpr int kUvAsync = 1, kUvCheck = 2, kUvIdle = 6, kUvPoll = 8, kUvPrepare = 9, kUvTimer = 13;
constexpr int kUvRunDefault = 0;
constexpr int kUvReadable = 1;

struct Uv {
  size_t (*handle_size)(int);
  void (*close)(UvHandle*, UvCallback);
  void (*ref)(UvHandle*);
  void (*unref)(UvHandle*);
  int (*poll_init)(void* loop, UvHandle*, int fd);
  int (*poll_start)(UvHandle*, int events, UvPollCallback);
  int (*prepare_init)(void* loop, UvHandle*);
  int (*prepare_start)(UvHandle*, UvCallback);
  int (*idle_init)(void* loop, UvHandle*);
  int (*idle_start)(UvHandle*, UvCallback);
  int (*idle_stop)(UvHandle*);
  int (*backend_fd)(const void* loop);
  int (*backend_timeout)(const void* loop);
  void* (*default_loop)();
  size_t (*loop_size)();
  int (*loop_init)(void* loop);
  int (*loop_close)(void* loop);
  int (*run)(void* loop, int mode);
  void (*walk)(void* loop, void (*each)(UvHandle*, void*), void* data);
  int (*handle_type)(const UvHandle*);
  int (*async_init)(void* loop, UvHandle*, UvCallback);
  int (*async_send)(UvHandle*);
  bool complete;
};

const Uv& TheUv() {
  static const Uv uv = [] {
    Uv found{};
    found.complete = true;
    const auto look = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(RTLD_DEFAULT, name));
      if (function == nullptr) found.complete = false;
    };
    look(found.handle_size, "uv_handle_size");
    look(found.close, "uv_close");
    look(found.ref, "uv_ref");
    look(found.unref, "uv_unref");
    look(found.poll_init, "uv_poll_init");
    look(found.poll_start, "uv_poll_start");
    look(found.prepare_init, "uv_prepare_init");
    look(found.prepare_start, "uv_prepare_start");
    look(found.idle_init, "uv_idle_init");
    look(found.idle_start, "uv_idle_start");
    look(found.idle_stop, "uv_idle_stop");
    look(found.backend_fd, "uv_backend_fd");
    look(found.backend_timeout, "uv_backend_timeout");
    look(found.default_loop, "uv_default_loop");
    look(found.loop_size, "uv_loop_size");
    look(found.loop_init, "uv_loop_init");
    look(found.loop_close, "uv_loop_close");
    look(found.run, "uv_run");
    look(found.walk, "uv_walk");
    look(found.handle_type, "uv_handle_get_type");
    look(found.async_init, "uv_async_init");
    look(found.async_send, "uv_async_send");
    return found;
  }();
  return uv;
}

void* UvLoop(napi_env env) {
  // Bun exports uv symbols that abort when they are called, so the runtime's name decides before any of them is touched.
  static const bool node = dlsym(RTLD_DEFAULT, "node_module_register") != nullptr;
  if (!node || !TheUv().complete) return nullptr;
  uv_loop_s* loop = nullptr;
  return napi_get_uv_event_loop(env, &loop) == napi_ok ? loop : nullptr;
}

int LoadWord(const UvHandle* handle, size_t at) {
  return __atomic_load_n(reinterpret_cast<const int*>(reinterpret_cast<const char*>(handle) + at), __ATOMIC_SEQ_CST);
}

// Where a uv_async_t says that it was sent and its callback hasn't been called (uv.h, `pending`; src/unix/async.c: uv_async_send sets it, and makes
// the loop's descriptor readable only if it wasn't; uv__async_io reads the descriptor empty, and then calls one handle after the other).
// Found on a handle of a loop of our own: the word that a send changes from 0. Where a descriptor or memory is short it is tried again.
constexpr size_t kNotFound = 0, kUnlike = SIZE_MAX;

size_t PendingOffset() {
  static std::atomic<size_t> known{kNotFound};
  if (const size_t at = known.load()) return at == kUnlike ? kNotFound : at;
  const Uv& uv = TheUv();
  const size_t bytes = uv.handle_size(kUvAsync);
  const std::unique_ptr<char[]> loop(new (std::nothrow) char[uv.loop_size()]()), memory(new (std::nothrow) char[bytes]()),
      before(new (std::nothrow) char[bytes]);
  if (!loop || !memory || !before || uv.loop_init(loop.get()) != 0) return kNotFound;
  auto* const handle = reinterpret_cast<UvHandle*>(memory.get());
  size_t at = kNotFound;
  if (uv.async_init(loop.get(), handle, [](UvHandle*) {}) == 0) {
    std::memcpy(before.get(), memory.get(), bytes);
    uv.async_send(handle);
    unsigned changed = 0;
    for (size_t word = 0; word + sizeof(int) <= bytes; word += sizeof(int)) {
      if (std::memcmp(before.get() + word, memory.get() + word, sizeof(int)) == 0) continue;
      changed++;
      int was;
      std::memcpy(&was, before.get() + word, sizeof(was));
      at = was == 0 && word != 0 ? word : kUnlike;
    }
    // Not one: this libuv does it in another way.
    if (changed != 1) at = kUnlike;
    uv.close(handle, nullptr);
  }
  uv.run(loop.get(), kUvRunDefault);
  uv.loop_close(loop.get());
  known.store(at);
  return at == kUnlike ? kNotFound : at;
}

// The handles that a loop has.
struct LoopHandles {
  struct Each {
    const UvHandle* handle;
    int type;
  };
  // The environment's own are among the first.
  static constexpr size_t kMax = 64;
  Each found[kMax];
  size_t count = 0;
  bool all = true;

  static void Collect(UvHandle* handle, void* into) {
    const int type = TheUv().handle_type(handle);
    if (type != kUvAsync && type != kUvCheck && type != kUvIdle && type != kUvPrepare && type != kUvTimer) return;
    auto* handles = static_cast<LoopHandles*>(into);
    if (handles->count == kMax)
      handles->all = false;
    else
      handles->found[handles->count++] = {handle, type};
  }
  bool Has(const char* address, int type) const {
    return std::any_of(found, found + count,
                       [&](const Each& each) { return reinterpret_cast<const char*>(each.handle) == address && each.type == type; });
  }
  // Whether an async handle is the one by which others send for the environment itself, to terminate it above all (src/env.h, task_queues_async_): it
  // stands behind five others in one object. Where none does, as it may be in a later Node, none is known.
  bool IsEnvironments(const UvHandle* async) const {
    const char* at = reinterpret_cast<const char*>(async);
    for (const int before : {kUvCheck, kUvPrepare, kUvIdle, kUvCheck, kUvTimer}) {
      at -= TheUv().handle_size(before);
      if (!Has(at, before)) return false;
    }
    return true;
  }
};

// The uv handles of one loop. They outlive the EventLoop until libuv has closed them; an asynchronous clean-up hook keeps the
// environment for so long.
class UvHandles {
 public:
  static UvHandles* Make(napi_env env) {
    auto* handles = new UvHandles;
    if (napi_add_async_cleanup_hook(env, &UvHandles::OnCleanup, handles, &handles->hook_) == napi_ok) return handles;
    delete handles;
    return nullptr;
  }

  // Memory for a handle; it is closed with the others once it is said to be initialised.
  UvHandle* Allocate(int type) {
    auto* handle = static_cast<UvHandle*>(std::calloc(1, TheUv().handle_size(type)));
    CP_ASSERT(handle != nullptr && count_ < 3);
    return handle;
  }
  void Keep(UvHandle* handle) {
    handle->data = this;
    handles_[count_++] = handle;
  }

  void Close() {
    if (closing_) return;
    closing_ = true;
    open_ = count_;
    if (count_ == 0) return Done();
    for (unsigned i = 0; i < count_; i++) TheUv().close(handles_[i], &UvHandles::OnClosed);
  }

  void* owner = nullptr;

 private:
  static void OnCleanup(napi_async_cleanup_hook_handle, void* data) { static_cast<UvHandles*>(data)->Close(); }
  static void OnClosed(UvHandle* handle) {
    auto* self = static_cast<UvHandles*>(handle->data);
    std::free(handle);
    if (--self->open_ == 0) self->Done();
  }
  void Done() {
    napi_remove_async_cleanup_hook(hook_);
    delete this;
  }

  napi_async_cleanup_hook_handle hook_ = nullptr;
  UvHandle* handles_[3] = {};
  unsigned count_ = 0;
  unsigned open_ = 0;
  bool closing_ = false;
};

// False, for the caller to return. `number`: an errno; what Node-API refuses without one is for want of memory.
bool Lacks(CreateError* error, int number = ENOMEM) {
  const char* shortage = posix::ExplainShortage(number);
  *error = {number, shortage != nullptr ? shortage : "the runtime's event loop refuses it"};
  return false;
}

class PlainLoop final : public EventLoop {
 public:
  ~PlainLoop() override {
    if (handles_ == nullptr) return;
    handles_->owner = nullptr;
    handles_->Close();
  }
  bool Open(napi_env env, LoopSource& source, Port*, void (*wake)(void*), void* data, CreateError* error) {
    void* loop = UvLoop(env);
    if (loop == nullptr) return Lacks(error);
    source_ = &source;
    wake_ = wake;
    data_ = data;
    handles_ = UvHandles::Make(env);
    if (handles_ == nullptr) return Lacks(error);
    handles_->owner = this;
    poll_ = handles_->Allocate(kUvPoll);
    if (const int result = TheUv().poll_init(loop, poll_, source.notification_fd()); result != 0) {
      std::free(poll_);
      return Lacks(error, -result);  // libuv's numbers are negative errnos here
    }
    handles_->Keep(poll_);
    TheUv().unref(poll_);
    const int result = TheUv().poll_start(poll_, kUvReadable, &PlainLoop::OnPoll);
    return result == 0 || Lacks(error, -result);
  }
  void Ref() override { TheUv().ref(poll_); }
  void Unref() override { TheUv().unref(poll_); }
  void Wake() override { source_->RaiseNotification(); }

 private:
  static void OnPoll(UvHandle* handle, int, int) {
    auto* self = static_cast<PlainLoop*>(static_cast<UvHandles*>(handle->data)->owner);
    if (self == nullptr) return;
    self->source_->ClearNotification();
    self->source_->Look();
    self->wake_(self->data_);  // may end `self`
  }

  UvHandles* handles_ = nullptr;
  UvHandle* poll_ = nullptr;
  LoopSource* source_ = nullptr;
  void (*wake_)(void*) = nullptr;
  void* data_ = nullptr;
};

// The port waits, libuv only looks: a prepare handle blocks in the port's own wait, which also watches libuv's descriptor, and an idle
// handle keeps libuv from blocking a second time. With nothing to keep it alive the loop ends as always (backend_timeout is 0 then).
class InvertedLoop final : public EventLoop {
 public:
  ~InvertedLoop() override {
    if (handles_ == nullptr) return;
    handles_->owner = nullptr;
    handles_->Close();
  }
  bool Open(napi_env env, LoopSource&, Port* driven, void (*wake)(void*), void* data, CreateError* error) {
    loop_ = UvLoop(env);
    if (loop_ == nullptr || driven == nullptr) return Lacks(error);
    port_ = driven;
    wake_ = wake;
    data_ = data;
    handles_ = UvHandles::Make(env);
    if (handles_ == nullptr) return Lacks(error);
    handles_->owner = this;
    prepare_ = handles_->Allocate(kUvPrepare);
    idle_ = handles_->Allocate(kUvIdle);
    TheUv().prepare_init(loop_, prepare_);  // these two can't fail
    handles_->Keep(prepare_);
    TheUv().idle_init(loop_, idle_);
    handles_->Keep(idle_);
    TheUv().unref(prepare_);
    TheUv().unref(idle_);
    TheUv().prepare_start(prepare_, &InvertedLoop::OnPrepare);
    return true;
  }
  void Ref() override { TheUv().ref(prepare_); }
  void Unref() override { TheUv().unref(prepare_); }
  void Wake() override { woken_ = true; }

 private:
  static void OnIdle(UvHandle*) {}
  static void OnPrepare(UvHandle* handle) {
    auto* self = static_cast<InvertedLoop*>(static_cast<UvHandles*>(handle->data)->owner);
    if (self == nullptr) return;
    const Uv& uv = TheUv();
    uv.idle_stop(self->idle_);
    double timeout = uv.backend_timeout(self->loop_);
    if (timeout < 0) timeout = std::numeric_limits<double>::infinity();
    if (self->woken_) timeout = 0;
    // Where there is no memory to watch libuv, or no room, it is looked at every millisecond: dear, and nothing is slept over.
    if (timeout > 0 && !self->port_->WatchLoop(uv.backend_fd(self->loop_))) timeout = std::min(timeout, 1.0);
    const bool woken = self->woken_;
    self->woken_ = false;
    self->port_->DriveLoop(timeout);
    uv.idle_start(self->idle_, &InvertedLoop::OnIdle);
    if (woken || self->port_->has_wanted() || self->port_->closing() || self->port_->idle_changed())
      self->wake_(self->data_);  // may end `self`
  }

  UvHandles* handles_ = nullptr;
  UvHandle* prepare_ = nullptr;
  UvHandle* idle_ = nullptr;
  void* loop_ = nullptr;
  Port* port_ = nullptr;
  bool woken_ = false;
  void (*wake_)(void*) = nullptr;
  void* data_ = nullptr;
};

// A thread waits on the descriptor and calls into the runtime; calls that are on their way already are not repeated.
class ThreadLoop final : public EventLoop {
 public:
  ~ThreadLoop() override {
    if (started_) {
      stopping_.store(true);
      control_.Raise();
      pthread_join(thread_, nullptr);
    }
    if (function_ != nullptr) {
      shared_->loop = nullptr;
      napi_release_threadsafe_function(function_, napi_tsfn_abort);
    }
  }
  bool Open(napi_env env, LoopSource& source, Port*, void (*wake)(void*), void* data, CreateError* error) {
    source_ = &source;
    wake_ = wake;
    data_ = data;
    if (!control_.Open()) return Lacks(error, errno);
    napi_value name;
    if (napi_create_string_utf8(env, "completion-port", NAPI_AUTO_LENGTH, &name) != napi_ok) return Lacks(error);
    shared_ = new Shared{this};
    if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, shared_, &ThreadLoop::OnFinalize, shared_, &ThreadLoop::OnCall,
                                        &function_) != napi_ok) {
      delete shared_;
      function_ = nullptr;
      return Lacks(error);
    }
    env_ = env;
    napi_unref_threadsafe_function(env, function_);
    // Signals are the program's business: none is handled on a thread of ours.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int result = pthread_create(&thread_, nullptr, &ThreadLoop::RunThread, this);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    started_ = result == 0;
    return started_ || Lacks(error, result);
  }
  void Ref() override { napi_ref_threadsafe_function(env_, function_); }
  void Unref() override { napi_unref_threadsafe_function(env_, function_); }
  void Wake() override { source_->RaiseNotification(); }

 private:
  struct Shared {
    ThreadLoop* loop;
  };
  static void OnFinalize(napi_env, void* data, void*) { delete static_cast<Shared*>(data); }
  static void OnCall(napi_env env, napi_value, void* context, void*) {
    ThreadLoop* self = static_cast<Shared*>(context)->loop;
    if (env == nullptr || self == nullptr) return;
    self->called_.store(false);
    self->source_->Look();
    if (self->source_->stays_ready()) self->control_.Raise();  // what was there has been taken: the descriptor may be waited for again
    self->wake_(self->data_);                                  // may end `self`
  }
  static void* RunThread(void* data) {
    auto* self = static_cast<ThreadLoop*>(data);
    posix::NameThread("cp-event-loop");
    self->Run(self->source_->notification_fd());
    return nullptr;
  }
  void Run(int fd) {
    // A descriptor that stays readable until the event loop has looked isn't waited for until then: this thread would spin.
    bool wait = true;
    for (;;) {
      pollfd fds[2] = {{wait ? fd : -1, POLLIN, 0}, {control_.descriptor(), POLLIN, 0}};
      if (poll(fds, 2, -1) < 0 && errno != EINTR) return;
      if ((fds[1].revents & POLLIN) != 0) {
        control_.Clear();
        if (stopping_.load()) return;
        wait = true;
        continue;
      }
      if ((fds[0].revents & POLLIN) == 0) continue;
      source_->ClearNotification();
      wait = !source_->stays_ready();
      if (!called_.exchange(true)) napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
    }
  }

  napi_env env_ = nullptr;
  napi_threadsafe_function function_ = nullptr;
  Shared* shared_ = nullptr;
  pthread_t thread_;
  bool started_ = false;
  std::atomic<bool> called_{false};
  std::atomic<bool> stopping_{false};
  posix::SignalDescriptor control_;
  LoopSource* source_ = nullptr;
  void (*wake_)(void*) = nullptr;
  void* data_ = nullptr;
};

template <typename Loop>
std::unique_ptr<EventLoop> Open(napi_env env, LoopSource& source, Port* driven, void (*wake)(void*), void* data, CreateError* error) {
  auto loop = std::make_unique<Loop>();
  if (!loop->Open(env, source, driven, wake, data, error)) return nullptr;
  return loop;
}

}  // namespace

bool EventLoop::HasUv(napi_env env) { return UvLoop(env) != nullptr; }

int EventLoop::Descriptor(napi_env env) {
  void* const loop = UvLoop(env);
  // The main thread's may not watch anything yet; nobody terminates it. A worker's does before any script runs there: the script comes by a message.
  return loop == nullptr || loop == TheUv().default_loop() ? -1 : TheUv().backend_fd(loop);
}

bool EventLoop::IsCalled(napi_env env) {
  void* const loop = UvLoop(env);
  const size_t pending_at = PendingOffset();
  if (loop == nullptr || pending_at == kNotFound) return true;
  LoopHandles handles;
  TheUv().walk(loop, &LoopHandles::Collect, &handles);
  const UvHandle* own = nullptr;
  unsigned owns = 0;
  bool any = !handles.all;
  for (size_t i = 0; i < handles.count; i++) {
    const LoopHandles::Each& each = handles.found[i];
    if (each.type != kUvAsync) continue;
    any = any || LoadWord(each.handle, pending_at) != 0;
    if (!handles.IsEnvironments(each.handle)) continue;
    own = each.handle;
    owns++;
  }
  return owns == 1 ? LoadWord(own, pending_at) != 0 : any;
}
bool EventLoop::CanInvert(napi_env env) { return HasUv(env); }

std::unique_ptr<EventLoop> EventLoop::Start(napi_env env, LoopSource& source, Port* driven, Mode mode, void (*wake)(void*), void* data,
                                            CreateError* error) {
  switch (mode) {
    case Mode::kPlain:
      return Open<PlainLoop>(env, source, driven, wake, data, error);
    case Mode::kInverted:
      return Open<InvertedLoop>(env, source, driven, wake, data, error);
    case Mode::kThread:
      return Open<ThreadLoop>(env, source, driven, wake, data, error);
  }
  return nullptr;
}

}  // namespace cp::addon
