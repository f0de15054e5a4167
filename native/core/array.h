// An array of plain values whose length a script chooses: where there is no memory for it the operation is refused, while a std::vector,
// without exceptions, would end the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <type_traits>

namespace cp {

template <typename T>
class Array {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  Array() = default;
  ~Array() { std::free(data_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  // Makes it `size` zeroed values; what it held is gone. False: no memory, and it is empty.
  bool Reset(size_t size) {
    std::free(data_);
    data_ = static_cast<T*>(std::calloc(size == 0 ? 1 : size, sizeof(T)));
    size_ = data_ == nullptr ? 0 : size;
    return data_ != nullptr;
  }

  size_t size() const { return size_; }
  T* data() { return data_; }
  T& operator[](size_t i) { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace cp
