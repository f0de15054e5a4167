// The functions of a NativePort (src/native.ts). Each takes the binding from its own data pointer, so it can't be called on another object.
#include "addon/port_binding.h"

#include <string_view>

#include "addon/arguments.h"
#include "core/test_hooks.h"
#if defined(__linux__)
#include "linux/uring_port.h"
#endif

namespace cp::addon {

namespace {

napi_value Closed(napi_env env) {
  napi_throw_error(env, "ERR_PORT_CLOSED", "the port is closed");
  return nullptr;
}

PortBinding* Self(napi_env env, napi_callback_info info) {
  void* data = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data);
  return static_cast<PortBinding*>(data);
}

napi_value Undefined(napi_env env) {
  napi_value value = nullptr;
  napi_get_undefined(env, &value);
  return value;
}

EndedBy EndedByOf(uint32_t by) {
  return by >= static_cast<uint32_t>(EndedBy::kCancel) && by <= static_cast<uint32_t>(EndedBy::kClose) ? static_cast<EndedBy>(by)
                                                                                                       : EndedBy::kCancel;
}

bool Contains(std::string_view list, std::string_view name) {
  return ("," + std::string(list) + ",").find("," + std::string(name) + ",") != std::string::npos;
}

std::unique_ptr<Port> MakePort(const std::string& backend, const PortOptions& options, CreateError* error) {
#if defined(__linux__)
  if (backend == "io_uring") return UringPort::Create(options, error);
#endif
  *error = {0, "this version of completion-port has no backend '" + backend + "' for this system"};
  return nullptr;
}

}  // namespace

napi_value PortBinding::Create(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  PortOptions options;
  options.block = arguments.Bytes(0, kBlockBytes, true);
  options.arena = arguments.Bytes(1, 0, true);
  if (!arguments.Good("createPort")) return nullptr;
  Napi::Value given(env, arguments.value(2));
  if (!given.IsObject()) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "createPort: options must be an object");
    return nullptr;
  }
  const auto object = given.As<Napi::Object>();
  const auto number = [&](const char* name, double min, double max, double otherwise) {
    const Napi::Value value = object.Get(name);
    if (!value.IsNumber()) return otherwise;
    const double result = value.As<Napi::Number>().DoubleValue();
    return result >= min && result <= max ? result : otherwise;
  };
  const auto text = [&](const char* name) {
    const Napi::Value value = object.Get(name);
    return value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string();
  };
  options.max_operations = static_cast<uint32_t>(number("maxOperations", 1, 1 << 20, 65'536));
  options.ring_entries = static_cast<uint32_t>(number("ringEntries", 0, 4096, 0));
  options.concurrency = static_cast<uint32_t>(number("concurrency", 1, 2147483647, 1));
  options.disable = text("disable");
  const bool inverted = object.Get("inverted").ToBoolean().Value();
  if (env == nullptr || Napi::Env(env).IsExceptionPending()) return nullptr;

  auto* environment = Napi::Env(env).GetInstanceData<Environment>();
  if (environment == nullptr || environment->ending) return Closed(env);
  options.owner = environment->id;
  CreateError error;
  const bool no_uv = Contains(options.disable, "uv_poll") || !EventLoop::HasUv(env);
  std::unique_ptr<Port> port;
  if (inverted && no_uv)
    error = {0, "an inverted event loop needs Node.js's libuv, which this runtime doesn't offer"};
  else
    port = MakePort(text("backend"), options, &error);
  Napi::Object result = Napi::Object::New(env);
  if (!port) {
    Napi::Object description = Napi::Object::New(env);
    description.Set("errno", Napi::Number::New(env, error.native_code));
    description.Set("reason", Napi::String::New(env, error.reason));
    result.Set("error", description);
    return result;
  }

  auto* binding = new PortBinding(env);
  binding->environment_ = environment;
  binding->port_ = std::move(port);
  binding->inverted_ = inverted && environment->inverted == nullptr;
  if (binding->inverted_) environment->inverted = binding;
  binding->thread_loop_ = no_uv;
  environment->ports.insert(binding);
  napi_create_reference(env, arguments.value(0), 1, &binding->control_ref_);
  napi_create_reference(env, arguments.value(1), 1, &binding->arena_ref_);
  binding->port_->on_memory_free = [binding](uint32_t id) {
    const auto found = binding->memory_.find(id);
    if (found == binding->memory_.end()) return;
    napi_delete_reference(binding->env_, found->second);
    binding->memory_.erase(found);
  };

  result.Set("name", Napi::String::New(env, binding->port_->name()));
  Napi::Object features = Napi::Object::New(env);
  for (const auto& [name, on] : binding->port_->features()) features.Set(name, Napi::Boolean::New(env, on));
  if (inverted) features.Set("inverted", Napi::Boolean::New(env, binding->inverted_));
  result.Set("features", features);
  constexpr struct {
    const char* name;
    napi_callback callback;
  } kFunctions[] = {{"enter", &Enter},
                    {"post", &Post},
                    {"cancel", &Cancel},
                    {"cancelHandle", &CancelHandle},
                    {"associate", &Associate},
                    {"registerMemory", &RegisterMemory},
                    {"unregisterMemory", &UnregisterMemory},
                    {"arenaAllocate", &ArenaAllocate},
                    {"arenaRelease", &ArenaRelease},
                    {"open", &OpenFile},
                    {"startLoop", &StartLoop},
                    {"ref", &Ref},
                    {"unref", &Unref},
                    {"wake", &WakeUp},
                    {"stats", &Stats},
                    {"close", &Close}};
  for (const auto& function : kFunctions) {
    napi_value value;
    if (napi_create_function(env, function.name, NAPI_AUTO_LENGTH, function.callback, binding, &value) != napi_ok) continue;
    if (napi_add_finalizer(env, value, binding, &OnFunctionGone, nullptr, nullptr) != napi_ok) continue;
    binding->functions_++;
    napi_set_named_property(env, result, function.name, value);
  }
  return result;
}

void PortBinding::OnFunctionGone(napi_env, void* data, void*) {
  auto* self = static_cast<PortBinding*>(data);
  if (--self->functions_ == 0) delete self;
}

PortBinding::~PortBinding() { End(); }

void PortBinding::End() {
  loop_.reset();
  if (port_) {
    port_->CloseAndWait();
    port_.reset();
  }
  Release();
  LeaveEnvironment();
}

void PortBinding::LeaveEnvironment() {
  if (environment_ == nullptr) return;
  environment_->ports.erase(this);
  if (environment_->inverted == this) environment_->inverted = nullptr;
  environment_ = nullptr;
}

void PortBinding::Release() {
  for (const auto& [id, reference] : memory_) napi_delete_reference(env_, reference);
  memory_.clear();
  for (napi_ref* reference : {&control_ref_, &arena_ref_, &on_wake_, &on_closed_}) {
    if (*reference != nullptr) napi_delete_reference(env_, *reference);
    *reference = nullptr;
  }
  if (context_ != nullptr) napi_async_destroy(env_, context_);
  context_ = nullptr;
}

bool PortBinding::EnsureLoop() {
  if (loop_) return true;
  using Mode = EventLoop::Mode;
  loop_ = EventLoop::Start(env_, *port_, inverted_ ? Mode::kInverted : thread_loop_ ? Mode::kThread : Mode::kPlain, &OnWake, this);
  return loop_ != nullptr;
}

void PortBinding::OnWake(void* data) { static_cast<PortBinding*>(data)->Wake(); }

void PortBinding::Wake() {
  if (!port_ || environment_ == nullptr) return;
  if (port_->closing()) {
    port_->DriveClosing();
    if (port_->in_kernel() == 0) FinishClose();
    return;
  }
  bool again = on_wake_ != nullptr;
  // Each batch in a callback scope of its own: ticks and promise continuations run between batches (DISP-03).
  while (again && port_ && !port_->closing()) CallWake(&again);
}

void PortBinding::CallWake(bool* again) {
  *again = false;
  Napi::HandleScope scope(env_);
  napi_value function, receiver, result = nullptr;
  if (napi_get_reference_value(env_, on_wake_, &function) != napi_ok || napi_get_global(env_, &receiver) != napi_ok) return;
  const napi_env env = env_;
  const napi_status status = napi_make_callback(env, context_, receiver, function, 0, nullptr, &result);
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (pending) {
    napi_value exception;
    if (napi_get_and_clear_last_exception(env, &exception) == napi_ok) napi_fatal_exception(env, exception);
  }
  if (status == napi_ok && result != nullptr) {
    napi_get_value_bool(env, result, again);
  } else if (loop_ && port_ && !port_->closing()) {
    // A tick or continuation threw once the function had returned: what it returned is lost, and it may be that it wants to be called
    // again. The function itself doesn't throw, so this goes on only as long as there is something to run.
    loop_->Wake();
  }
}

void PortBinding::FinishClose() {
  loop_.reset();
  if (port_->in_kernel() > 0) return;
  port_.reset();
  LeaveEnvironment();
  Napi::HandleScope scope(env_);
  napi_value function = nullptr, receiver = nullptr;
  if (on_closed_ != nullptr) napi_get_reference_value(env_, on_closed_, &function);
  napi_get_global(env_, &receiver);
  const napi_env env = env_;
  const napi_async_context context = context_;
  context_ = nullptr;
  Release();
  if (function != nullptr) napi_make_callback(env, context, receiver, function, 0, nullptr, nullptr);
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (pending) {
    napi_value exception;
    if (napi_get_and_clear_last_exception(env, &exception) == napi_ok) napi_fatal_exception(env, exception);
  }
  if (context != nullptr) napi_async_destroy(env, context);
}

// ---- hot ------------------------------------------------------------------------------------------------------------------

napi_value PortBinding::Enter(napi_env env, napi_callback_info info) {
  PortBinding* self = Self(env, info);
  if (!self->port_) return Closed(env);
  napi_value result = nullptr;
  napi_create_uint32(env, self->port_->Enter(), &result);
  return result;
}

napi_value PortBinding::Post(napi_env env, napi_callback_info info) {
  PortBinding* self = Self(env, info);
  if (!self->port_ || self->port_->closing()) return Closed(env);
  if (!self->port_->Post()) napi_throw_error(env, "ENOMEM", "no memory for one more posted packet");
  return nullptr;
}

// ---- operations and handles -----------------------------------------------------------------------------------------------

napi_value PortBinding::Cancel(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const uint32_t slot = arguments.U32(0), generation = arguments.U32(1), by = arguments.U32(2);
  if (!arguments.Good("cancel")) return nullptr;
  if (!self->port_) return Closed(env);
  napi_value result = nullptr;
  napi_get_boolean(env, self->port_->Cancel(slot, generation, EndedByOf(by)), &result);
  return result;
}

napi_value PortBinding::CancelHandle(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const uint32_t index = arguments.U32(0), generation = arguments.U32(1), by = arguments.U32(2);
  if (!arguments.Good("cancelHandle")) return nullptr;
  if (!self->port_) return Closed(env);
  Handle* handle = HandleTable::Process().Find(index, generation, self->environment_->id);
  if (handle == nullptr || handle->port != self->port_.get()) return Number(env, -1);
  return Number(env, self->port_->CancelHandle(*handle, EndedByOf(by)));
}

napi_value PortBinding::Associate(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const uint32_t index = arguments.U32(0), generation = arguments.U32(1);
  const double key = arguments.Integer(2, 0, kSafeIntegerMax);
  if (!arguments.Good("associate")) return nullptr;
  if (!self->port_ || self->port_->closing()) return Closed(env);
  Handle* handle = HandleTable::Process().Find(index, generation, self->environment_->id);
  if (handle == nullptr) return Number(env, -1);
  if (handle->associated) return Number(env, -2);
  return Number(env, self->port_->Associate(*handle, key));
}

napi_value PortBinding::OpenFile(napi_env env, napi_callback_info info) {
  Arguments<9> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const uint32_t slot = arguments.U32(0), generation = arguments.U32(1);
  const std::string path = arguments.Path(2);
  const int32_t flags = arguments.I32(3);
  const uint32_t mode = arguments.U32(4);
  const double key = arguments.Integer(5, 0, kSafeIntegerMax);
  const double timeout = arguments.Double(6), operation_id = arguments.Double(7);
  const uint32_t entry_flags = arguments.U32(8);
  if (!arguments.Good("open")) return nullptr;
  if (!self->port_ || self->port_->closing()) return Closed(env);
  if (path.find('\0') != std::string::npos) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_VALUE", "a path can't contain a null byte");
    return nullptr;
  }
  const double limit = (entry_flags & kSubmissionHasTimeout) != 0 ? timeout : -1;
  const bool started =
      self->port_->Open(slot, generation, path, flags, mode, key, limit, operation_id, (entry_flags & kSubmissionInternal) != 0);
  return Number(env, started ? 0 : -1);
}

// ---- memory ---------------------------------------------------------------------------------------------------------------

napi_value PortBinding::RegisterMemory(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const auto memory = arguments.Bytes(0, 0, true);
  if (!arguments.Good("registerMemory")) return nullptr;
  if (!self->port_ || self->port_->closing()) return Closed(env);
  napi_ref reference = nullptr;
  if (napi_create_reference(env, arguments.value(0), 1, &reference) != napi_ok) return Number(env, 0);
  const uint32_t id = self->port_->RegisterMemory(memory);
  if (id == 0)
    napi_delete_reference(env, reference);
  else
    self->memory_[id] = reference;
  return Number(env, id);
}

napi_value PortBinding::UnregisterMemory(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const uint32_t id = arguments.U32(0);
  if (!arguments.Good("unregisterMemory")) return nullptr;
  if (self->port_) self->port_->UnregisterMemory(id);
  return Undefined(env);
}

napi_value PortBinding::ArenaAllocate(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const double bytes = arguments.Integer(0, 0, kSafeIntegerMax);
  if (!arguments.Good("arenaAllocate")) return nullptr;
  if (!self->port_ || self->port_->closing()) return Closed(env);
  const uint64_t offset = self->port_->ArenaAllocate(static_cast<uint64_t>(bytes));
  return Number(env, offset == Arena::kNone ? -1 : static_cast<double>(offset));
}

napi_value PortBinding::ArenaRelease(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const double offset = arguments.Integer(0, 0, kSafeIntegerMax);
  if (!arguments.Good("arenaRelease")) return nullptr;
  if (!self->port_ || self->port_->closing()) return Closed(env);
  return Number(env, self->port_->ArenaRelease(static_cast<uint64_t>(offset)) ? 0 : -1);
}

// ---- event loop, close ----------------------------------------------------------------------------------------------------

napi_value PortBinding::StartLoop(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const napi_value function = arguments.Function(0);
  if (!arguments.Good("startLoop")) return nullptr;
  if (!self->port_ || self->port_->closing()) return Closed(env);
  if (self->on_wake_ != nullptr) {
    napi_throw_error(env, "ERR_INVALID_STATE", "startLoop was called already");
    return nullptr;
  }
  napi_value name;
  napi_create_string_utf8(env, "completion-port", NAPI_AUTO_LENGTH, &name);
  if (self->context_ == nullptr) napi_async_init(env, nullptr, name, &self->context_);
  if (!self->EnsureLoop()) {
    napi_throw_error(env, "ERR_NOT_SUPPORTED", "the event loop of this runtime can't be woken");
    return nullptr;
  }
  napi_create_reference(env, function, 1, &self->on_wake_);
  return Undefined(env);
}

napi_value PortBinding::Ref(napi_env env, napi_callback_info info) {
  PortBinding* self = Self(env, info);
  if (self->loop_ && !self->referenced_) self->loop_->Ref();
  self->referenced_ = self->loop_ != nullptr;
  return Undefined(env);
}

napi_value PortBinding::Unref(napi_env env, napi_callback_info info) {
  PortBinding* self = Self(env, info);
  if (self->loop_ && self->referenced_) self->loop_->Unref();
  self->referenced_ = false;
  return Undefined(env);
}

napi_value PortBinding::WakeUp(napi_env env, napi_callback_info info) {
  PortBinding* self = Self(env, info);
  if (self->loop_) self->loop_->Wake();
  return Undefined(env);
}

napi_value PortBinding::Stats(napi_env env, napi_callback_info info) {
  PortBinding* self = Self(env, info);
  if (!self->port_) return Closed(env);
  self->port_->WriteStats();
  return Undefined(env);
}

napi_value PortBinding::Close(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const napi_value function = arguments.Function(0);
  if (!arguments.Good("close")) return nullptr;
  if (!self->port_ || self->port_->closing()) return Closed(env);
  napi_create_reference(env, function, 1, &self->on_closed_);
  napi_value name;
  napi_create_string_utf8(env, "completion-port", NAPI_AUTO_LENGTH, &name);
  if (self->context_ == nullptr) napi_async_init(env, nullptr, name, &self->context_);
  self->port_->Close();
  if (MutantIs(Mutant::kEarlyClose) && self->port_->in_kernel() > 0) {
    napi_value receiver;
    napi_get_global(env, &receiver);
    napi_call_function(env, receiver, function, 0, nullptr, nullptr);
    napi_delete_reference(env, self->on_closed_);
    self->on_closed_ = nullptr;
  }
  if (self->port_->in_kernel() == 0) {
    self->FinishClose();
  } else if (self->EnsureLoop()) {
    // Something can't be stopped: the loop is told when the kernel lets go, and stays alive until then.
    if (!self->referenced_) self->loop_->Ref();
    self->referenced_ = true;
    self->port_->DriveClosing();
    if (self->port_->in_kernel() == 0) self->FinishClose();
  }
  return Undefined(env);
}

}  // namespace cp::addon
