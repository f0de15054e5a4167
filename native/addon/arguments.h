// Reading a call's arguments without trusting them: a wrong type or range makes the call throw ERR_INVALID_ARG_TYPE and do nothing.
#pragma once

#include <napi.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace cp::addon {

// A text or path that a script may give in any length: beyond this nothing is copied and the call throws. No system takes longer paths;
// src/files.ts cuts those to a length that each system answers for, which is below this in any encoding.
inline constexpr size_t kTextBytesMax = 256 * 1024;

template <size_t kCount>
class Arguments {
 public:
  Arguments(napi_env env, napi_callback_info info) : env_(env) {
    size_t count = kCount;
    if (napi_get_cb_info(env, info, &count, values_, nullptr, &data_) != napi_ok) ok_ = false;
    given_ = count;
  }

  template <typename Data>
  Data* data() const {
    return static_cast<Data*>(data_);
  }
  napi_value value(size_t i) const { return values_[i]; }

  double Double(size_t i) {
    double value = 0;
    Expect(i, napi_get_value_double(env_, values_[i], &value));
    return value;
  }
  // An integer in [min, max].
  double Integer(size_t i, double min, double max) {
    const double value = Double(i);
    if (!(value >= min && value <= max && value == std::floor(value))) ok_ = false;
    return ok_ ? value : min;
  }
  uint32_t U32(size_t i) { return static_cast<uint32_t>(Integer(i, 0, 4294967295.0)); }
  int32_t I32(size_t i) { return static_cast<int32_t>(Integer(i, -2147483648.0, 2147483647.0)); }
  bool Bool(size_t i) {
    bool value = false;
    Expect(i, napi_get_value_bool(env_, values_[i], &value));
    return value;
  }
  napi_value Function(size_t i) {
    napi_valuetype type = napi_undefined;
    Expect(i, napi_typeof(env_, values_[i], &type));
    if (type != napi_function) ok_ = false;
    return values_[i];
  }
  std::string String(size_t i) {
    size_t length = 0;
    Expect(i, napi_get_value_string_utf8(env_, values_[i], nullptr, 0, &length));
    if (length > kTextBytesMax) ok_ = false;
    if (!ok_) return {};
    std::string text(length, '\0');
    Expect(i, napi_get_value_string_utf8(env_, values_[i], text.data(), length + 1, &length));
    return text;
  }
  // A string, or the bytes of a Uint8Array.
  std::string Path(size_t i) {
    bool is_view = false;
    napi_is_typedarray(env_, values_[i], &is_view);
    if (!is_view) return String(i);
    const auto bytes = Bytes(i, 0, false);
    if (bytes.size() > kTextBytesMax) ok_ = false;
    if (!ok_) return {};
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  // A Uint8Array of at least `bytes`; with `shared` only over a SharedArrayBuffer, which no script can detach.
  std::span<std::byte> Bytes(size_t i, size_t bytes, bool shared) {
    napi_typedarray_type type;
    size_t length = 0;
    void* data = nullptr;
    napi_value buffer = nullptr;
    Expect(i, napi_get_typedarray_info(env_, values_[i], &type, &length, &data, &buffer, nullptr));
    if (!ok_ || type != napi_uint8_array || length < bytes || (length > 0 && data == nullptr)) {
      ok_ = false;
      return {};
    }
    bool detachable = true;
    if (shared && (napi_is_arraybuffer(env_, buffer, &detachable) != napi_ok || detachable)) {
      ok_ = false;
      return {};
    }
    return {static_cast<std::byte*>(data), length};
  }

  // To be asked after the last argument was read. False: the call has thrown.
  bool Good(const char* function) {
    if (ok_) return true;
    napi_throw_type_error(env_, "ERR_INVALID_ARG_TYPE", (std::string(function) + ": wrong arguments").c_str());
    return false;
  }

 private:
  void Expect(size_t i, napi_status status) {
    if (i >= given_ || status != napi_ok) ok_ = false;
  }

  napi_env env_;
  napi_value values_[kCount == 0 ? 1 : kCount] = {};
  void* data_ = nullptr;
  size_t given_ = 0;
  bool ok_ = true;
};

inline napi_value Number(napi_env env, double value) {
  napi_value result = nullptr;
  napi_create_double(env, value, &result);
  return result;
}

}  // namespace cp::addon
