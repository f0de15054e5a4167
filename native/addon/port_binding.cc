// The functions of a NativePort (src/native.ts). Each takes the binding from its own data pointer, so it can't be called on another object.
#include "addon/port_binding.h"

#include "addon/arguments.h"
#include "addon/values.h"
#include "core/os.h"
#include "core/test_hooks.h"

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

// What JavaScript gets in place of the functions; nothing where the environment is going.
napi_value Refused(napi_env env, const CreateError& error) {
  napi_value result = NewObject(env), description = NewObject(env);
  Set(env, description, "errno", Number(env, error.native_code));
  Set(env, description, "reason", Text(env, error.reason));
  // Defined, not assigned: a script may have put a setter of this name on Object.prototype, and it is by this property that a refusal is told.
  const napi_property_descriptor error_property = {"error", nullptr, nullptr, nullptr, nullptr, description, napi_enumerable, nullptr};
  return napi_define_properties(env, result, 1, &error_property) == napi_ok ? result : nullptr;
}

// Whether Node refuses to run more of this thread's script: a terminated worker, from the call on (Environment::ExitEnv sets is_stopping, which
// can_call_into_js reads). A function of Node-API that may run a script looks at that first, and without a value this one does nothing else.
bool IsEnding(void* env) {
  napi_value none = nullptr;
  return napi_coerce_to_bool(static_cast<napi_env>(env), nullptr, &none) != napi_invalid_arg;
}

bool IsCalled(void* env) { return EventLoop::IsCalled(static_cast<napi_env>(env)); }

EndedBy EndedByOf(uint32_t by) {
  return by >= static_cast<uint32_t>(EndedBy::kCancel) && by <= static_cast<uint32_t>(EndedBy::kClose) ? static_cast<EndedBy>(by)
                                                                                                       : EndedBy::kCancel;
}

}  // namespace

napi_value PortBinding::Create(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  PortOptions options;
  options.block = arguments.Bytes(0, kBlockBytes, true);
  options.arena = arguments.Bytes(1, 0, true);
  if (!arguments.Good("createPort")) return nullptr;
  const napi_value given = arguments.value(2);
  napi_valuetype type = napi_undefined;
  napi_typeof(env, given, &type);
  if (type != napi_object) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "createPort: options must be an object");
    return nullptr;
  }
  options.max_operations = static_cast<uint32_t>(GetNumber(env, given, "maxOperations", 1, 1 << 20, 65'536));
  options.ring_entries = static_cast<uint32_t>(GetNumber(env, given, "ringEntries", 0, 4096, 0));
  options.concurrency = static_cast<uint32_t>(GetNumber(env, given, "concurrency", 1, 2147483647, 1));
  options.pool_threads = static_cast<uint32_t>(GetNumber(env, given, "poolThreads", 1, kPoolThreadsMax, kPoolThreadsDefault));
  options.disable = GetText(env, given, "disable");
  options.fallback_reason = GetWholeText(env, given, "fallbackReason");
  const std::string backend = GetText(env, given, "backend");
  const bool inverted = GetBoolean(env, given, "inverted");
  options.shared = GetBoolean(env, given, "shared");
  bool pending = true;
  napi_is_exception_pending(env, &pending);
  if (pending) return nullptr;

  auto* environment = InstanceData<Environment>(env);
  if (environment == nullptr || environment->ending) return Closed(env);
  options.owner = environment->id;
  CreateError error;
  std::shared_ptr<ThreadNotifier> notifier;
  if (options.shared) notifier = os::MakeNotifier(&error);
  const bool no_uv = IsDisabled(options.disable, "uv_poll") || !EventLoop::HasUv(env);
  std::unique_ptr<Port> port;
  if (inverted && no_uv)
    error = {0, "an inverted event loop needs Node.js's libuv, which this runtime doesn't offer"};
  else if (error.reason.empty())
    port = os::MakePort(backend, options, &error);
  if (!port) return Refused(env, error);

  std::shared_ptr<Port> made = std::move(port);
  Attachment* attachment = options.shared ? made->Attach(environment->id, options.block, notifier, os::CurrentThread()) : &made->first();
  CP_ASSERT(attachment != nullptr);  // nobody can have closed it
  PortBinding* binding = New(env, made, attachment, std::move(notifier), arguments.value(0), arguments.value(1));
  binding->inverted_wanted_ = inverted;
  binding->inverted_ = inverted && environment->inverted == nullptr;
  if (binding->inverted_) environment->inverted = binding;
  binding->thread_loop_ = no_uv;
  if (options.shared) binding->token_ = SharedPorts::Process().Publish(made, options.arena.data());
  return binding->Functions();
}

PortBinding* PortBinding::New(napi_env env, std::shared_ptr<Port> port, Attachment* attachment, std::shared_ptr<ThreadNotifier> notifier,
                              napi_value control, napi_value arena) {
  auto* binding = new PortBinding(env);
  binding->environment_ = InstanceData<Environment>(env);
  binding->port_ = std::move(port);
  binding->attachment_ = attachment;
  binding->notifier_ = std::move(notifier);
  if (binding->notifier_ && EventLoop::HasUv(env))
    binding->notifier_->LookAfter(
        {.must_leave = &IsEnding, .loop_descriptor = EventLoop::Descriptor(env), .is_called = &IsCalled, .data = env});
  binding->environment_->ports.insert(binding);
  napi_create_reference(env, control, 1, &binding->control_ref_);
  napi_create_reference(env, arena, 1, &binding->arena_ref_);
  return binding;
}

// attachPort(control, arena, index, generation, s0, s1, s2, s3): the functions, or what create says where something is short; -1: the port is
// closed; -2: no such token; -3: no room for one more thread.
napi_value PortBinding::Attach(napi_env env, napi_callback_info info) {
  Arguments<9> arguments(env, info);
  // Without a control block only the token is looked at.
  napi_valuetype type = napi_undefined;
  napi_typeof(env, arguments.value(0), &type);
  const auto block = type == napi_null ? std::span<std::byte>() : arguments.Bytes(0, kBlockBytes, true);
  const auto arena = arguments.Bytes(1, 0, true);
  Token token;
  token.index = arguments.U32(2);
  token.generation = arguments.U32(3);
  for (size_t i = 0; i < token.secret.size(); i++) token.secret[i] = arguments.U32(4 + i);
  const std::string disable = arguments.String(8);
  if (!arguments.Good("attachPort")) return nullptr;
  auto* environment = InstanceData<Environment>(env);
  if (environment == nullptr || environment->ending) return Closed(env);
  bool known = false;
  std::shared_ptr<Port> port = SharedPorts::Process().Find(token, arena.data(), &known);
  if (!port) return Number(env, known ? -1 : -2);
  if (type == napi_null) return Number(env, 0);
  CreateError error;
  std::shared_ptr<ThreadNotifier> notifier = os::MakeNotifier(&error);
  if (!notifier) return Refused(env, error);
  Attachment* attachment = port->Attach(environment->id, block, notifier, os::CurrentThread());
  if (attachment == nullptr) return Number(env, port->closing() || port->deserted() ? -1 : -3);
  PortBinding* binding = New(env, std::move(port), attachment, std::move(notifier), arguments.value(0), arguments.value(1));
  binding->thread_loop_ = IsDisabled(disable, "uv_poll") || !EventLoop::HasUv(env);
  binding->token_ = token;
  return binding->Functions();
}

// The object of functions that JavaScript gets; each keeps the binding alive. Nothing, rather than half an object, where the environment is
// going: Node refuses calls from there on for good (Environment::ExitEnv), so that the last one tells of all.
napi_value PortBinding::Functions() {
  const napi_env env = env_;
  PortBinding* binding = this;
  napi_value result = NewObject(env), features = NewObject(env);
  Set(env, result, "name", Text(env, port_->name()));
  for (const auto& [name, on] : port_->features()) Set(env, features, name.c_str(), Boolean(env, on));
  Set(env, result, "movesNow", Boolean(env, port_->CanMoveNow()));
  Set(env, result, "looksForEnd", Boolean(env, notifier_ && EventLoop::HasUv(env)));
  if (inverted_wanted_) Set(env, features, "inverted", Boolean(env, inverted_));
  Set(env, result, "features", features);
  Set(env, result, "maxOperations", Number(env, port_->options().max_operations));
  Set(env, result, "concurrency", Number(env, port_->options().concurrency));
  if (const std::string& reason = port_->options().fallback_reason; !reason.empty()) Set(env, result, "fallbackReason", Text(env, reason));
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
                    {"token", &GetToken},
                    {"detach", &Detach},
                    {"endJob", &EndJob},
                    {"setBlocking", &SetBlocking},
                    {"reserve", &Reserve},
                    {"unreserve", &Unreserve},
                    {"handleInfo", &HandleInfo},
                    {"close", &Close}};
  bool whole = false;
  for (const auto& function : kFunctions) {
    whole = false;
    napi_value value;
    if (napi_create_function(env, function.name, NAPI_AUTO_LENGTH, function.callback, binding, &value) != napi_ok) continue;
    if (napi_add_finalizer(env, value, binding, &OnFunctionGone, nullptr, nullptr) != napi_ok) continue;
    binding->functions_++;
    whole = Set(env, result, function.name, value);
  }
  if (functions_ == 0) delete this;  // nothing else would
  return whole ? result : nullptr;
}

void PortBinding::OnFunctionGone(napi_env, void* data, void*) {
  auto* self = static_cast<PortBinding*>(data);
  if (--self->functions_ == 0) delete self;
}

PortBinding::~PortBinding() { End(); }

void PortBinding::End(bool ending) {
  loop_.reset();
  if (port_) {
    if (!port_->shared()) port_->CloseAndWait();
    Leave();
  }
  Release(ending);
}

// The thread has done with the port; with the last one a shared port ends.
void PortBinding::Leave() {
  if (port_->shared() && port_->Detach(*attachment_)) {
    SharedPorts::Process().Forget(port_.get());
    port_->Stop();
  }
  attachment_ = nullptr;
  port_.reset();
  notifier_.reset();
  if (environment_ == nullptr) return;
  environment_->ports.erase(this);
  if (environment_->inverted == this) environment_->inverted = nullptr;
  environment_ = nullptr;
}

// Lets go of registered memory that nothing uses any more.
void PortBinding::ReleaseMemory() {
  if (!port_->shared() && attachment_->freed_memory.empty()) return;
  std::vector<uint32_t> ids;
  port_->TakeFreedMemory(*attachment_, &ids);
  for (const uint32_t id : ids) {
    const auto found = memory_.find(id);
    if (found == memory_.end()) continue;
    napi_delete_reference(env_, found->second);
    memory_.erase(found);
  }
}

void PortBinding::Release(bool ending) {
  for (const auto& [id, reference] : memory_) napi_delete_reference(env_, reference);
  memory_.clear();
  for (napi_ref* reference : {&control_ref_, &arena_ref_, &on_wake_, &on_closed_}) {
    if (*reference != nullptr) napi_delete_reference(env_, *reference);
    *reference = nullptr;
  }
  // Deno 2.9 has no handle scope in its clean-up hooks, nor does napi_open_handle_scope make one there, and napi_async_destroy ends the process without
  // (seen; V8: "Cannot create a handle without a HandleScope"). What it would give back there goes with the environment's isolate, or is a few bytes.
  const bool destroys = !ending || EventLoop::HasUv(env_);
  if (context_ != nullptr && destroys) napi_async_destroy(env_, context_);
  context_ = nullptr;
}

bool PortBinding::EnsureLoop(CreateError* error) {
  if (loop_) return true;
  using Mode = EventLoop::Mode;
  LoopSource& source = notifier_ ? static_cast<LoopSource&>(*notifier_) : *port_;
  loop_ = EventLoop::Start(env_, source, notifier_ ? nullptr : port_.get(),
                           inverted_      ? Mode::kInverted
                           : thread_loop_ ? Mode::kThread
                                          : Mode::kPlain,
                           &OnWake, this, error);
  return loop_ != nullptr;
}

void PortBinding::OnWake(void* data) { static_cast<PortBinding*>(data)->Wake(); }

void PortBinding::Wake() {
  if (!port_ || environment_ == nullptr) return;
  if (closing_) {
    if (!port_->shared()) port_->DriveClosing();
    if (port_->Closed()) FinishClose();
    return;
  }
  bool again = on_wake_ != nullptr;
  // Each batch in a callback scope of its own: ticks and promise continuations run between batches (DISP-03).
  while (again && port_ && !closing_) CallWake(&again);
  if (port_ && port_->shared()) port_->EndJob(*attachment_, false);
}

void PortBinding::CallWake(bool* again) {
  *again = false;
  Scope scope(env_);
  if (!scope.open()) return;
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
  Leave();
  Scope scope(env_);
  napi_value function = nullptr, receiver = nullptr;
  if (on_closed_ != nullptr) napi_get_reference_value(env_, on_closed_, &function);
  napi_get_global(env_, &receiver);
  const napi_env env = env_;
  const napi_async_context context = context_;
  context_ = nullptr;
  Release();
  // Deno 2.9 writes the result even where nobody asks for it: without a place for it close() crashed there.
  napi_value ignored = nullptr;
  if (function != nullptr) napi_make_callback(env, context, receiver, function, 0, nullptr, &ignored);
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
  napi_create_uint32(env, self->port_->Enter(*self->attachment_), &result);
  if (!self->attachment_->freed_memory.empty()) self->ReleaseMemory();
  return result;
}

napi_value PortBinding::Post(napi_env env, napi_callback_info info) {
  PortBinding* self = Self(env, info);
  if (!self->port_ || self->port_->closing()) return Closed(env);
  if (self->port_->Post(*self->attachment_)) return nullptr;
  if (self->port_->closing()) return Closed(env);  // by another thread, just now
  napi_throw_error(env, "ENOMEM", "no memory for one more posted packet");
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
  napi_get_boolean(env, self->port_->Cancel(*self->attachment_, slot, generation, EndedByOf(by)), &result);
  return result;
}

napi_value PortBinding::CancelHandle(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const uint32_t index = arguments.U32(0), generation = arguments.U32(1), by = arguments.U32(2);
  if (!arguments.Good("cancelHandle")) return nullptr;
  if (!self->port_) return Closed(env);
  return Number(env, static_cast<double>(self->port_->CancelHandle(*self->attachment_, index, generation, EndedByOf(by))));
}

napi_value PortBinding::Associate(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const uint32_t index = arguments.U32(0), generation = arguments.U32(1);
  const double key = arguments.Integer(2, 0, kSafeIntegerMax);
  if (!arguments.Good("associate")) return nullptr;
  if (!self->port_ || self->port_->closing()) return Closed(env);
  Handle* handle = HandleTable::Process().Find(index, generation);
  // Beyond every errno.
  constexpr int kClosed = -10'001, kAssociated = -10'002;
  if (handle == nullptr) return Number(env, kClosed);
  if (handle->owner.load(std::memory_order_relaxed) != self->environment_->id)
    return Number(env, self->environment_->FindPort(handle->port.load(std::memory_order_relaxed)) != nullptr ? kAssociated : kClosed);
  if (handle->associated) return Number(env, kAssociated);
  const int result = self->port_->Associate(*handle, key);
  if (result != 0 && self->port_->closing()) return Closed(env);  // by another thread, just now
  return Number(env, result);
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
  const bool started = self->port_->Open(*self->attachment_, slot, generation, path, flags, mode, key, limit, operation_id, entry_flags);
  return Number(env, started ? 0 : self->attachment_->control->refusal == kRefusalFull ? -2 : -1);
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
  const uint32_t id = self->port_->RegisterMemory(*self->attachment_, memory);
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
  if (self->port_) {
    self->port_->UnregisterMemory(*self->attachment_, id);
    self->ReleaseMemory();
  }
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
  CreateError error;
  if (!self->EnsureLoop(&error)) {
    const std::string words = "nothing is left to wake the event loop by: " + error.reason;
    napi_throw_error(env, ErrorTable()[static_cast<size_t>(os::MapError(error.native_code))].code, words.c_str());
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
  self->port_->WriteStats(*self->attachment_);
  return Undefined(env);
}

napi_value PortBinding::Close(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const napi_value function = arguments.Function(0);
  if (!arguments.Good("close")) return nullptr;
  // A shared port may have been closed by another thread: this one hears of the end all the same.
  if (!self->port_ || self->closing_) return Closed(env);
  self->closing_ = true;
  napi_create_reference(env, function, 1, &self->on_closed_);
  napi_value name;
  napi_create_string_utf8(env, "completion-port", NAPI_AUTO_LENGTH, &name);
  if (self->context_ == nullptr) napi_async_init(env, nullptr, name, &self->context_);
  CreateError none_left;
  self->port_->Close();
  if (self->port_->shared()) SharedPorts::Process().Forget(self->port_.get());
  const bool over = self->port_->Closed();
  if (MutantIs(Mutant::kEarlyClose) && !over) {
    napi_value receiver;
    napi_get_global(env, &receiver);
    napi_call_function(env, receiver, function, 0, nullptr, nullptr);
    napi_delete_reference(env, self->on_closed_);
    self->on_closed_ = nullptr;
  }
  if (over) {
    self->FinishClose();
  } else if (self->EnsureLoop(&none_left)) {
    // Something can't be stopped: the loop is told when the kernel lets go, and stays alive until then.
    if (!self->referenced_) self->loop_->Ref();
    self->referenced_ = true;
    if (!self->port_->shared()) self->port_->DriveClosing();
    if (self->port_->Closed()) self->FinishClose();
  } else if (!self->port_->shared()) {
    // Nothing is left that could tell of the end: it is waited for here. (A shared port has its loop from the start.)
    self->port_->CloseAndWait();
    self->FinishClose();
  }
  return Undefined(env);
}

// ---- threads of a shared port ---------------------------------------------------------------------------------------------

napi_value PortBinding::GetToken(napi_env env, napi_callback_info info) {
  PortBinding* self = Self(env, info);
  if (!self->port_) return Closed(env);
  if (!self->port_->shared()) return Undefined(env);
  const Token& token = self->token_;
  napi_value words = NewArray(env);
  Set(env, words, 0u, Number(env, token.index));
  Set(env, words, 1u, Number(env, token.generation));
  for (uint32_t i = 0; i < token.secret.size(); i++) Set(env, words, 2 + i, Number(env, token.secret[i]));
  return words;
}

napi_value PortBinding::Detach(napi_env env, napi_callback_info info) {
  PortBinding* self = Self(env, info);
  if (!self->port_) return Closed(env);
  if (!self->port_->shared()) return Undefined(env);
  self->loop_.reset();
  self->Leave();
  self->Release();
  return Undefined(env);
}

napi_value PortBinding::EndJob(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const bool all = arguments.Bool(0);
  if (!arguments.Good("endJob")) return nullptr;
  if (self->port_ && self->port_->shared()) self->port_->EndJob(*self->attachment_, all);
  return nullptr;
}

napi_value PortBinding::SetBlocking(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const bool on = arguments.Bool(0);
  if (!arguments.Good("setBlocking")) return nullptr;
  if (!self->port_ || !self->port_->shared()) return nullptr;
  if (on) {
    self->port_->BeginBlocking(*self->attachment_);
  } else if (self->attachment_->waiter.blocking > 0) {
    self->port_->EndBlocking(*self->attachment_);
  }
  return nullptr;
}

napi_value PortBinding::Reserve(napi_env env, napi_callback_info info) {
  PortBinding* self = Self(env, info);
  if (!self->port_ || !self->port_->shared() || self->port_->closing()) return Closed(env);
  napi_value result = nullptr;
  napi_get_boolean(env, self->port_->Reserve(*self->attachment_), &result);
  return result;
}

napi_value PortBinding::Unreserve(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const uint32_t count = arguments.U32(0);
  if (!arguments.Good("unreserve")) return nullptr;
  if (self->port_ && self->port_->shared()) self->port_->Unreserve(*self->attachment_, count);
  return nullptr;
}

// What a handle of this port is: [kind, key, append]; undefined: closed; null: another port's, or none's.
napi_value PortBinding::HandleInfo(napi_env env, napi_callback_info info) {
  Arguments<2> arguments(env, info);
  auto* self = arguments.data<PortBinding>();
  const uint32_t index = arguments.U32(0), generation = arguments.U32(1);
  if (!arguments.Good("handleInfo")) return nullptr;
  if (!self->port_) return Closed(env);
  uint32_t kind = 0;
  double key = 0;
  bool append = false;
  const bool found = self->port_->WithHandle(index, generation, [&](Handle& handle) {
    kind = static_cast<uint32_t>(handle.kind);
    key = handle.key;
    append = handle.append;
  });
  if (!found) return HandleTable::Process().Find(index, generation) == nullptr ? Undefined(env) : Null(env);
  napi_value result = NewArray(env);
  Set(env, result, 0u, Number(env, kind));
  Set(env, result, 1u, Number(env, key));
  Set(env, result, 2u, Boolean(env, append));
  return result;
}

}  // namespace cp::addon
