// The module's entry: one object of functions per environment. See src/native.ts for what each function is to its caller.
#include <napi.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "addon/arguments.h"
#include "addon/environment.h"
#include "addon/port_binding.h"
#include "addon/values.h"
#include "core/abi.h"
#include "core/errors.h"
#include "core/handle_table.h"
#include "core/os.h"

namespace cp::addon {

namespace {

Environment* Current(napi_env env) { return InstanceData<Environment>(env); }

double KeepHandle(napi_env env, HandleKind kind, OsHandle os, bool append) {
  Handle* handle = HandleTable::Process().Create(Current(env)->id, kind, os);
  if (handle == nullptr) {
    os::Close(kind, os, false);
    return -os::TooManyFilesCode();
  }
  handle->append = append;
  return handle->id();
}

napi_value Now(napi_env env, napi_callback_info) { return Number(env, MonotonicMs()); }

napi_value OpenFileSync(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  const std::string path = arguments.Path(0);
  const int32_t flags = arguments.I32(1);
  const uint32_t mode = arguments.U32(2);
  if (!arguments.Good("openFile")) return nullptr;
  if (path.find('\0') != std::string::npos) return Number(env, -os::InvalidCode());
  const OsHandle file = os::OpenFile(path.c_str(), flags, mode);
  if (file == os::kIsDirectory) return Number(env, -os::DirectoryCode());
  if (file < 0) return Number(env, static_cast<double>(file));
  return Number(env, KeepHandle(env, HandleKind::kFile, file, os::Appends(flags)));
}

AddressEntry ReadAddress(std::span<const std::byte> bytes) {
  AddressEntry address;
  std::memcpy(&address, bytes.data(), sizeof(address));
  return address;
}

napi_value Listen(napi_env env, napi_callback_info info) {
  Arguments<5> arguments(env, info);
  const uint32_t family = arguments.U32(0);
  const auto bytes = arguments.Bytes(1, sizeof(AddressEntry), false);
  const int32_t backlog = arguments.I32(2);
  const bool reuse_port = arguments.Bool(3), ipv6_only = arguments.Bool(4);
  if (!arguments.Good("listen")) return nullptr;
  AddressEntry address = ReadAddress(bytes);
  if ((family != 4 && family != 6) || backlog < 0) return Number(env, -os::InvalidCode());
  address.family = static_cast<uint16_t>(family);
  const OsHandle socket = os::Listen(address, backlog, reuse_port, ipv6_only);
  if (socket < 0) return Number(env, static_cast<double>(socket));
  return Number(env, KeepHandle(env, HandleKind::kListener, socket, false));
}

napi_value Socket(napi_env env, napi_callback_info info) {
  Arguments<2> arguments(env, info);
  const uint32_t family = arguments.U32(0);
  napi_valuetype type = napi_undefined;
  napi_typeof(env, arguments.value(1), &type);
  const bool bound = type != napi_null && type != napi_undefined;
  AddressEntry local{};
  if (bound) {
    const auto bytes = arguments.Bytes(1, sizeof(AddressEntry), false);
    if (!bytes.empty()) local = ReadAddress(bytes);
  }
  if (!arguments.Good("socket")) return nullptr;
  if (family != 4 && family != 6) return Number(env, -os::InvalidCode());
  local.family = static_cast<uint16_t>(family);
  const OsHandle socket = os::Socket(static_cast<int>(family), bound ? &local : nullptr);
  if (socket < 0) return Number(env, static_cast<double>(socket));
  return Number(env, KeepHandle(env, HandleKind::kSocket, socket, false));
}

// Calls with(handle) where this environment may use it: its own, or one of a shared port that it is attached to. False: stale, or not.
template <typename With>
bool WithHandle(napi_env env, uint32_t index, uint32_t generation, With&& with) {
  Environment* environment = Current(env);
  Handle* handle = HandleTable::Process().Find(index, generation);
  if (handle == nullptr) return false;
  if (handle->owner.load(std::memory_order_relaxed) == environment->id) {
    with(*handle);
    return true;
  }
  PortBinding* binding = environment->FindPort(handle->port.load(std::memory_order_relaxed));
  return binding != nullptr && binding->port()->shared() && binding->port()->WithHandle(index, generation, with);
}

void CloseUnbound(Handle& handle, bool reset) {
  if (handle.os != kOsHandleNone) os::Close(handle.kind, handle.os, reset);  // else its port has left it to a job
  handle.os = kOsHandleNone;
  HandleTable::Process().Retire(handle);
  HandleTable::Process().Free(handle);
}

napi_value CloseHandle(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  const uint32_t index = arguments.U32(0), generation = arguments.U32(1);
  const bool reset = arguments.Bool(2);
  if (!arguments.Good("closeHandle")) return nullptr;
  Handle* handle = HandleTable::Process().Find(index, generation);
  if (handle == nullptr) return Number(env, -1);
  Port* port = handle->port.load(std::memory_order_relaxed);
  PortBinding* binding = Current(env)->FindPort(port);
  if (binding != nullptr) return Number(env, port->CloseHandle(binding->attachment(), index, generation, reset) ? 0 : -1);
  if (port != nullptr || handle->owner.load(std::memory_order_relaxed) != Current(env)->id) return Number(env, -1);
  CloseUnbound(*handle, reset);
  return Number(env, 0);
}

napi_value Address(napi_env env, napi_callback_info info) {
  Arguments<4> arguments(env, info);
  const uint32_t index = arguments.U32(0), generation = arguments.U32(1);
  const bool peer = arguments.Bool(2);
  const auto out = arguments.Bytes(3, sizeof(AddressEntry), false);
  if (!arguments.Good("address")) return nullptr;
  AddressEntry address{};
  int result = -os::BadHandleCode();
  WithHandle(env, index, generation, [&](Handle& handle) {
    if (handle.kind == HandleKind::kFile) return;
    result = 0;
    // The peer of an accepted connection is known even when it has reset the connection since.
    if (peer && handle.peer.family != 0)
      address = handle.peer;
    else
      result = os::Address(handle.os, peer, &address);
  });
  if (result == 0) std::memcpy(out.data(), &address, sizeof(address));
  return Number(env, result);
}

napi_value SetOption(napi_env env, napi_callback_info info) {
  Arguments<4> arguments(env, info);
  const uint32_t index = arguments.U32(0), generation = arguments.U32(1);
  const int32_t option = arguments.I32(2), value = arguments.I32(3);
  if (!arguments.Good("setOption")) return nullptr;
  int result = -os::BadHandleCode();
  WithHandle(env, index, generation, [&](Handle& handle) {
    if (handle.kind != HandleKind::kFile) result = os::SetOption(handle.os, static_cast<os::SocketOption>(option), value);
  });
  return Number(env, result);
}

napi_value GetOption(napi_env env, napi_callback_info info) {
  Arguments<3> arguments(env, info);
  const uint32_t index = arguments.U32(0), generation = arguments.U32(1);
  const int32_t option = arguments.I32(2);
  if (!arguments.Good("getOption")) return nullptr;
  int result = -os::BadHandleCode();
  WithHandle(env, index, generation, [&](Handle& handle) {
    if (handle.kind != HandleKind::kFile) result = os::GetOption(handle.os, static_cast<os::SocketOption>(option));
  });
  return Number(env, result);
}

napi_value ParseAddress(napi_env env, napi_callback_info info) {
  Arguments<2> arguments(env, info);
  const std::string host = arguments.String(0);
  const auto out = arguments.Bytes(1, sizeof(AddressEntry), false);
  if (!arguments.Good("parseAddress")) return nullptr;
  AddressEntry address;
  const int family = host.find('\0') == std::string::npos ? os::ParseAddress(host, &address) : 0;
  if (family != 0) std::memcpy(out.data(), &address, sizeof(address));
  return Number(env, family);
}

// copy(to, toAt, from, fromAt, length): as Uint8Array's set(), which goes word by word where one side is a SharedArrayBuffer.
napi_value Copy(napi_env env, napi_callback_info info) {
  Arguments<5> arguments(env, info);
  const auto to = arguments.Bytes(0, 0, false);
  const double to_at = arguments.Integer(1, 0, static_cast<double>(to.size()));
  const auto from = arguments.Bytes(2, 0, false);
  const double from_at = arguments.Integer(3, 0, static_cast<double>(from.size()));
  const double length =
      arguments.Integer(4, 0, std::min(static_cast<double>(to.size()) - to_at, static_cast<double>(from.size()) - from_at));
  if (!arguments.Good("copy")) return nullptr;
  if (length > 0)
    std::memmove(to.data() + static_cast<size_t>(to_at), from.data() + static_cast<size_t>(from_at), static_cast<size_t>(length));
  return nullptr;
}

// receiveNow, sendNow (index, generation, view, at, length): how many bytes; 0: start an operation.
napi_value MoveNow(napi_env env, napi_callback_info info, bool sending) {
  Arguments<5> arguments(env, info);
  const uint32_t index = arguments.U32(0), generation = arguments.U32(1);
  const auto view = arguments.Bytes(2, 0, false);
  const double at = arguments.Integer(3, 0, static_cast<double>(view.size()));
  const double length = arguments.Integer(4, 0, static_cast<double>(view.size()) - at);
  if (!arguments.Good(sending ? "sendNow" : "receiveNow")) return nullptr;
  const auto memory = view.subspan(static_cast<size_t>(at), static_cast<size_t>(length));
  uint64_t moved = 0;
  WithHandle(env, index, generation, [&](Handle& handle) {
    Port* port = handle.port.load(std::memory_order_relaxed);
    if (port != nullptr) moved = sending ? port->SendNow(handle, memory) : port->ReceiveNow(handle, memory);
  });
  return Number(env, static_cast<double>(moved));
}

napi_value ReceiveNow(napi_env env, napi_callback_info info) { return MoveNow(env, info, false); }
napi_value SendNow(napi_env env, napi_callback_info info) { return MoveNow(env, info, true); }

napi_value FormatAddress(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  const auto bytes = arguments.Bytes(0, sizeof(AddressEntry), false);
  if (!arguments.Good("formatAddress")) return nullptr;
  return Text(env, os::FormatAddress(ReadAddress(bytes)));
}

napi_value MapError(napi_env env, napi_callback_info info) {
  Arguments<2> arguments(env, info);
  const int32_t code = arguments.I32(0);
  arguments.U32(1);  // the operation: Windows' numbers mean different things by context
  if (!arguments.Good("mapError")) return nullptr;
  return Number(env, static_cast<double>(os::MapError(code)));
}

napi_value FatalException(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  if (!arguments.Good("fatalException")) return nullptr;
  napi_fatal_exception(env, arguments.value(0));
  return nullptr;
}

napi_value CountProcess(napi_env env, napi_callback_info) {
  const os::ProcessCounts counts = os::CountProcess();
  napi_value all = NewObject(env);
  Set(env, all, "descriptors", Number(env, static_cast<double>(counts.descriptors)));
  Set(env, all, "handles", Number(env, static_cast<double>(counts.handles)));
  Set(env, all, "threads", Number(env, static_cast<double>(counts.threads)));
  return all;
}

napi_value Report(napi_env env, const char* name, bool available, const std::string& reason, napi_value features) {
  napi_value report = NewObject(env);
  Set(env, report, "name", Text(env, name));
  Set(env, report, "available", Boolean(env, available));
  Set(env, report, "reason", available ? Null(env) : Text(env, reason));
  Set(env, report, "features", features);
  return report;
}

napi_value Probe(napi_env env, napi_callback_info info) {
  Arguments<1> arguments(env, info);
  const std::string disable = arguments.String(0);
  if (!arguments.Good("probe")) return nullptr;
  PortOptions options;
  options.max_operations = 1;
  options.ring_entries = 8;
  options.disable = disable;
  std::vector<std::byte> block(kBlockBytes);
  options.block = block;
  napi_value reports = NewArray(env);
  const auto report = [&](uint32_t at, const char* backend) {
    CreateError error;
    const std::unique_ptr<Port> port = os::MakePort(backend, options, &error);
    napi_value features = NewObject(env);
    if (port) {
      for (const auto& [name, on] : port->features()) Set(env, features, name.c_str(), Boolean(env, on));
      port->Close();
    }
    Set(env, reports, at, Report(env, backend, port != nullptr, error.reason, features));
  };
  const auto foreign = [&](uint32_t at, const char* backend, const char* reason) {
    Set(env, reports, at, Report(env, backend, false, reason, NewObject(env)));
  };
  uint32_t at = 0;
  for (const os::Backend& backend : os::Backends()) {
    if (backend.foreign == nullptr)
      report(at++, backend.name);
    else
      foreign(at++, backend.name, backend.foreign);
  }
  return reports;
}

std::atomic<uint64_t> last_environment{0};

}  // namespace

PortBinding* Environment::FindPort(const Port* port) const {
  if (port == nullptr) return nullptr;
  for (PortBinding* binding : ports)
    if (binding->port() == port) return binding;
  return nullptr;
}

void Environment::CleanUp(void* data) {
  auto* self = static_cast<Environment*>(data);
  self->ending = true;
  while (!self->ports.empty()) (*self->ports.begin())->End(true);
  HandleTable::Process().ForEachOwned(self->id, [](Handle& handle) { CloseUnbound(handle, false); });
}

namespace {

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  os::StayLoaded();
  auto* environment = new Environment;
  environment->id = ++last_environment;
  napi_set_instance_data(
      env, environment, [](napi_env, void* data, void*) { delete static_cast<Environment*>(data); }, nullptr);  // after its clean-up hooks
  napi_add_env_cleanup_hook(env, &Environment::CleanUp, environment);

  Set(env, exports, "version", Text(env, CP_VERSION));
  napi_value abi = NewObject(env);
  Set(env, abi, "version", Number(env, kAbiVersion));
  Set(env, abi, "controlBytes", Number(env, kControlBytes));
  Set(env, abi, "entryBytes", Number(env, kEntryBytes));
  Set(env, abi, "maxSubmissions", Number(env, kSubmissionsMax));
  Set(env, abi, "maxCompletions", Number(env, kCompletionsMax));
  Set(env, exports, "abi", abi);
  napi_value errors = NewArray(env);
  for (uint32_t i = 0; i < static_cast<uint32_t>(Status::kCount); i++) {
    napi_value error = NewObject(env);
    Set(env, error, "code", Text(env, ErrorTable()[i].code));
    Set(env, error, "errno", Number(env, -ErrorTable()[i].number));
    Set(env, error, "message", Text(env, ErrorTable()[i].message));
    Set(env, errors, i, error);
  }
  Set(env, exports, "errors", errors);
  // What this addon has, the best first: what 'auto' tries.
  napi_value backends = NewArray(env);
  uint32_t count = 0;
  for (const os::Backend& backend : os::Backends())
    if (backend.foreign == nullptr) Set(env, backends, count++, Text(env, backend.name));
  Set(env, exports, "backends", backends);
  constexpr struct {
    const char* name;
    napi_callback callback;
  } kFunctions[] = {{"now", &Now},
                    {"probe", &Probe},
                    {"createPort", &PortBinding::Create},
                    {"attachPort", &PortBinding::Attach},
                    {"openFile", &OpenFileSync},
                    {"listen", &Listen},
                    {"socket", &Socket},
                    {"closeHandle", &CloseHandle},
                    {"address", &Address},
                    {"setOption", &SetOption},
                    {"getOption", &GetOption},
                    {"parseAddress", &ParseAddress},
                    {"formatAddress", &FormatAddress},
                    {"copy", &Copy},
                    {"receiveNow", &ReceiveNow},
                    {"sendNow", &SendNow},
                    {"mapError", &MapError},
                    {"fatalException", &FatalException},
                    {"countProcess", &CountProcess}};
  for (const auto& function : kFunctions) {
    napi_value value;
    if (napi_create_function(env, function.name, NAPI_AUTO_LENGTH, function.callback, nullptr, &value) == napi_ok)
      Set(env, exports, function.name, value);
  }
  return exports;
}

}  // namespace

}  // namespace cp::addon

using cp::addon::Init;
NODE_API_MODULE(completion_port, Init)
