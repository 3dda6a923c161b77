#include "models/products.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

namespace lehr::models {
namespace {

// as oneDNN asks before it takes a product of the type (else ATen falls back to its loops)
bool cpu_multiplies(at::ScalarType type) {
#if defined(__x86_64__)
  static const bool avx512 = __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512vl") &&
                             __builtin_cpu_supports("avx512dq");
  static const bool fp16 = avx512 && __builtin_cpu_supports("avx512fp16");
  return type == at::kHalf ? fp16 : avx512;
#else
  return true;
#endif
}

// Product(float32 operands...) out of autocast's sight; an undefined operand stays so.
template <class Product, class... Operands>
at::Tensor in_float(const at::Tensor& x, Product product, const Operands&... operands) {
  const auto type = product_type(x);
  auto rounded = [&](const at::Tensor& t) { return t.defined() ? t.to(type).to(at::kFloat) : t; };
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  return product(rounded(x), rounded(operands)...).to(type);
}

}  // namespace

at::ScalarType product_type(const at::Tensor& x) {
  const auto device = x.device().type();
  return at::autocast::is_autocast_enabled(device) ? at::autocast::get_autocast_dtype(device)
                                                   : x.scalar_type();
}

bool products_in_float(const at::Tensor& x) {
  if (!x.is_cpu()) return false;
  const auto type = product_type(x);
  return (type == at::kBFloat16 || type == at::kHalf) && !cpu_multiplies(type);
}

at::Tensor rounded_to_float(const at::Tensor& x) {
  return x.to(product_type(x)).to(at::kFloat);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (!products_in_float(x)) return at::linear(x, weight, bias);
  return in_float(
      x, [](const auto& a, const auto& w, const auto& b) { return at::linear(a, w, b); }, weight,
      bias);
}

at::Tensor conv2d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  int64_t stride, int64_t padding) {
  if (!products_in_float(x)) return at::conv2d(x, weight, bias, stride, padding);
  return in_float(
      x,
      [&](const auto& a, const auto& w, const auto& b) {
        return at::conv2d(a, w, b, stride, padding);
      },
      weight, bias);
}

}  // namespace lehr::models
