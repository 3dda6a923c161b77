// The one way from tensors to their bytes. A device's tensor shows an address that the host may not
// read, so whoever hashes, compares or writes bytes asks here.
#pragma once

#include <functional>
#include <vector>

#include "engine/base/device.h"
#include "engine/base/named_tensor.h"
#include "engine/base/safetensors.h"

namespace lehr {

// A tensor's elements in row-major order: its own memory where that is on the CPU and so laid out,
// else a copy. For a tensor of a device the host waits.
class HostBytes {
 public:
  explicit HostBytes(const at::Tensor& tensor);
  const void* data() const { return held_.const_data_ptr(); }
  uint64_t size() const { return held_.nbytes(); }

 private:
  at::Tensor held_;
};

// f(bytes) of all tensors in their order. What is on `device` crosses in pieces through pinned
// memory, the next one while f has the last.
void for_each_piece(const NamedTensors& tensors, DeviceRuntime* device,
                    const std::function<void(const void*, uint64_t)>& f);

// Same dtype, sizes and bytes.
bool same_bytes(const at::Tensor& a, const at::Tensor& b);

// In safetensors' words: "F32". Throws Error{kInternal} that names the tensor.
TensorView described(const NamedTensor& named);  // without data
// Tensors as a safetensors file takes them. The views live as long as this.
class HostViews {
 public:
  HostViews() = default;
  explicit HostViews(const NamedTensors& tensors);
  void add(const NamedTensor& named);
  const std::vector<TensorView>& views() const { return views_; }

 private:
  std::vector<HostBytes> held_;
  std::vector<TensorView> views_;
};

}  // namespace lehr
