#include "models/products.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include "kernels/linear/linear_op.h"
#include "models/ops.h"

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

// Product(operands) with operands of one type, out of autocast's sight where they were rounded and
// are float32 again. An undefined bias stays so.
template <class Product>
at::Tensor multiply(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    Product product) {
  const auto type = product_type(weight);
  const bool in_float = products_in_float(weight);
  if (!in_float && autocasts(x)) return product(x, weight, bias);
  auto operand = [&](const at::Tensor& t) {
    if (!t.defined() || (t.scalar_type() == type && !in_float)) return t;
    return in_float ? t.to(type).to(at::kFloat) : t.to(type);
  };
  if (!in_float) return product(operand(x), operand(weight), operand(bias));
  const at::Tensor a = operand(x), w = operand(weight), b = operand(bias);
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  return product(a, w, b).to(type);
}

}  // namespace

bool autocasts(const at::Tensor& tensor) {
  return !tensor.is_meta() && at::autocast::is_autocast_enabled(tensor.device().type());
}

at::ScalarType product_type(const at::Tensor& weight) {
  return autocasts(weight) ? at::autocast::get_autocast_dtype(weight.device().type())
                           : weight.scalar_type();
}

bool products_in_float(const at::Tensor& weight) {
  if (!weight.is_cpu()) return false;
  const auto type = product_type(weight);
  return (type == at::kBFloat16 || type == at::kHalf) && !cpu_multiplies(type);
}

bool products_are_custom(const at::Tensor& x, const at::Tensor& weight) {
  if (kernels_in_use() == Kernels::kAten || !x.is_cuda()) return false;
  const auto type = product_type(weight);
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  // without a bias there is nothing that ATen's would not do
  if (bias.defined() && products_are_custom(x, weight)) {
    const auto type = product_type(weight);
    at::Tensor y = kernels::linear(x.to(type), weight.to(type), bias.to(type));
    compare_kernel("linear", y, [&] { return linear(x, weight, bias); });
    return y;
  }
  return multiply(x, weight, bias,
                  [](const auto& a, const auto& w, const auto& b) { return at::linear(a, w, b); });
}

at::Tensor conv2d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  int64_t stride, int64_t padding) {
  return multiply(x, weight, bias, [&](const auto& a, const auto& w, const auto& b) {
    return at::conv2d(a, w, b, stride, padding);
  });
}

}  // namespace lehr::models
