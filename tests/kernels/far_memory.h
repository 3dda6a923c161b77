// Address space without memory: large enough that an index of 32 bits would wrap, of which only the
// touched pages exist. For tests of 64-bit index arithmetic.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace lehr::kernels {

class FarMemory {
 public:
  explicit FarMemory(int64_t bytes) : bytes_(static_cast<size_t>(bytes)) {
    base_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base_ == MAP_FAILED) throw std::bad_alloc();
  }
  ~FarMemory() { munmap(base_, bytes_); }
  FarMemory(const FarMemory&) = delete;
  FarMemory& operator=(const FarMemory&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(base_);
  }

 private:
  void* base_ = nullptr;
  size_t bytes_;
};

}  // namespace lehr::kernels
