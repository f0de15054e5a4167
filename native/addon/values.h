// Reading and building JavaScript values by plain Node-API calls, whose failures are passed over: an environment that is being terminated
// refuses them all, and node-addon-api's wrappers end the process then (a worker that is terminated while it creates a port).
#pragma once

#include <napi.h>

#include <string>
#include <string_view>

namespace cp::addon {

inline napi_value Text(napi_env env, std::string_view text) {
  napi_value value = nullptr;
  napi_create_string_utf8(env, text.data(), text.size(), &value);
  return value;
}
inline napi_value Boolean(napi_env env, bool on) {
  napi_value value = nullptr;
  napi_get_boolean(env, on, &value);
  return value;
}
inline napi_value Null(napi_env env) {
  napi_value value = nullptr;
  napi_get_null(env, &value);
  return value;
}
inline napi_value NewObject(napi_env env) {
  napi_value value = nullptr;
  napi_create_object(env, &value);
  return value;
}
inline napi_value NewArray(napi_env env) {
  napi_value value = nullptr;
  napi_create_array(env, &value);
  return value;
}
// False: it isn't set, because the environment is going and takes no more calls.
inline bool Set(napi_env env, napi_value object, const char* name, napi_value value) {
  return object != nullptr && value != nullptr && napi_set_named_property(env, object, name, value) == napi_ok;
}
inline void Set(napi_env env, napi_value array, uint32_t index, napi_value value) {
  if (array != nullptr && value != nullptr) napi_set_element(env, array, index, value);
}

inline napi_value Get(napi_env env, napi_value object, const char* name) {
  napi_value value = nullptr;
  napi_get_named_property(env, object, name, &value);
  return value;
}
// A number of that name within [min, max], or `otherwise`.
inline double GetNumber(napi_env env, napi_value object, const char* name, double min, double max, double otherwise) {
  double number = 0;
  if (napi_get_value_double(env, Get(env, object, name), &number) != napi_ok) return otherwise;
  return number >= min && number <= max ? number : otherwise;
}
// Bounded: names and lists of names.
inline std::string GetText(napi_env env, napi_value object, const char* name) {
  char text[1024];
  size_t length = 0;
  if (napi_get_value_string_utf8(env, Get(env, object, name), text, sizeof(text), &length) != napi_ok) return {};
  return std::string(text, length);
}
// The whole of it.
inline std::string GetWholeText(napi_env env, napi_value object, const char* name) {
  const napi_value value = Get(env, object, name);
  size_t length = 0;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) return {};
  std::string text(length + 1, '\0');  // with room for the end that Node-API writes
  if (napi_get_value_string_utf8(env, value, text.data(), text.size(), &length) != napi_ok) return {};
  text.resize(length);
  return text;
}
inline bool GetBoolean(napi_env env, napi_value object, const char* name) {
  bool on = false;
  napi_get_value_bool(env, Get(env, object, name), &on);
  return on;
}

template <typename Data>
Data* InstanceData(napi_env env) {
  void* data = nullptr;
  return napi_get_instance_data(env, &data) == napi_ok ? static_cast<Data*>(data) : nullptr;
}

class Scope {
 public:
  explicit Scope(napi_env env) : env_(env) { open_ = napi_open_handle_scope(env, &scope_) == napi_ok; }
  ~Scope() {
    if (open_) napi_close_handle_scope(env_, scope_);
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  bool open() const { return open_; }

 private:
  napi_env env_;
  napi_handle_scope scope_ = nullptr;
  bool open_ = false;
};

}  // namespace cp::addon
