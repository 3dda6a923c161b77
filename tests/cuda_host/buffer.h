// Global memory for a host-compiled kernel: exact in size, so that AddressSanitizer sees the first
// byte beyond it, aligned as the device aligns plus a chosen skew, and filled with a pattern that
// is NaN in every float type, so that what was never written shows.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

namespace cuda_host {

template <class T>
class Buffer {
 public:
  // `skew` bytes beyond an address that is a multiple of 256.
  explicit Buffer(size_t count, size_t skew = 0) : count_(count) {
    const size_t bytes = skew + count * sizeof(T);
    if (posix_memalign(&base_, 256, bytes == 0 ? 1 : bytes) != 0) throw std::bad_alloc();
    data_ = reinterpret_cast<T*>(static_cast<char*>(base_) + skew);
    std::memset(static_cast<void*>(data_), 0xff, count * sizeof(T));
  }
  explicit Buffer(const std::vector<T>& values, size_t skew = 0) : Buffer(values.size(), skew) {
    if (!values.empty()) std::memcpy(static_cast<void*>(data_), values.data(), count_ * sizeof(T));
  }
  ~Buffer() { std::free(base_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() { return data_; }
  std::vector<T> values() const { return std::vector<T>(data_, data_ + count_); }

 private:
  void* base_ = nullptr;
  T* data_ = nullptr;
  size_t count_;
};

}  // namespace cuda_host
