#include "models/scope.h"

#include <ATen/ATen.h>

#include "engine/base/random.h"

namespace lehr::models {
namespace {

// FNV-1a: the same on every machine and release, unlike std::hash
uint64_t hash_of(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3ull;
  return hash;
}

// Drawn as float32 on the CPU, then moved: every device and dtype starts from the same values.
template <class Draw>
at::Tensor drawn(const at::TensorOptions& options, uint64_t seed, const std::string& name,
                 at::IntArrayRef sizes, Draw draw) {
  if (options.device().is_meta()) return at::empty(sizes, options);
  at::Tensor tensor = at::empty(sizes, at::kFloat);
  Random random(seed, Stream::kInit, hash_of(name));
  float* values = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i) values[i] = draw(random);
  return tensor.to(options);
}

}  // namespace

at::Tensor Scope::uniform(const std::string& name, at::IntArrayRef sizes, double bound) const {
  const float low = static_cast<float>(-bound), width = static_cast<float>(2 * bound);
  return drawn(options_, seed_, prefix_ + name, sizes,
               [=](Random& random) { return low + width * random.uniform(); });
}

at::Tensor Scope::normal(const std::string& name, at::IntArrayRef sizes, double deviation) const {
  const float scale = static_cast<float>(deviation);
  return drawn(options_, seed_, prefix_ + name, sizes,
               [=](Random& random) { return scale * random.normal(); });
}

at::Tensor Scope::filled(at::IntArrayRef sizes, double value) const {
  return at::full(sizes, value, options_);
}

}  // namespace lehr::models
