// The ops of language models that have a kernel of Lehr's and a path of ATen's. Which one runs is
// the caller's choice (`training.kernels`); without a choice it is ATen, so that a traced graph
// holds nothing that stock PyTorch lacks.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <utility>

namespace lehr::models {

enum class Kernels {
  kAten,
  kCustom,
  kCheck,  // Lehr's, and the largest relative difference from ATen's is kept
};
// "aten", "custom", "check", or "auto": what was measured to be faster on such a device
// (kernels/README.md), Lehr's on a CPU, and ATen's on a GPU, where nothing is measured yet.
// Error{kInternal} for another name.
Kernels kernels_of(const std::string& name, const at::Device& device);
Kernels kernels_in_use();  // of this thread

// The choice for this thread while it lives.
class KernelScope {
 public:
  explicit KernelScope(Kernels kernels);
  ~KernelScope();
  KernelScope(const KernelScope&) = delete;
  KernelScope& operator=(const KernelScope&) = delete;

 private:
  Kernels before_;
};

// Largest |ours - ATen's| / max(|ATen's|) of each op's output seen under kCheck, by op.
std::map<std::string, double> kernel_differences();
// Under kCheck, and only there: keeps the difference of `ours` from what `reference` makes of the
// same inputs by ATen's ops.
void compare_kernel(const char* op, const at::Tensor& ours,
                    const std::function<at::Tensor()>& reference);

// [..., D] over the last dimension; weight and bias [D].
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      double eps);
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
// (norm(x + branch), x + branch). An undefined branch adds nothing.
std::pair<at::Tensor, at::Tensor> add_layer_norm(const at::Tensor& x, const at::Tensor& branch,
                                                 const at::Tensor& weight, const at::Tensor& bias,
                                                 double eps);
std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& branch,
                                               const at::Tensor& weight, double eps);
// GELU by its tanh approximation (Hendrycks and Gimpel, arXiv 1606.08415) of x + bias.
at::Tensor bias_gelu(const at::Tensor& x, const at::Tensor& bias);
// linear(bias_gelu(linear(x, weight_1), bias_1), weight_2, bias_2): x [..., D], weights [F, D] and
// [D, F].
at::Tensor linear_gelu_linear(const at::Tensor& x, const at::Tensor& weight_1,
                              const at::Tensor& bias_1, const at::Tensor& weight_2,
                              const at::Tensor& bias_2);
// [..., 2F], gate before up -> silu(gate) * up [..., F] (Shazeer, arXiv 2002.05202).
at::Tensor swiglu(const at::Tensor& gate_up);
// Rotary position embedding (Su et al., arXiv 2104.09864) of the queries and keys in
// qkv [B, T, (heads + 2 kv_heads) head_size], in halves as Llama does; cos_sin float32
// [T, head_size], cosines before sines.
at::Tensor rope(const at::Tensor& qkv, const at::Tensor& cos_sin, int64_t heads, int64_t kv_heads,
                int64_t head_size);
// weight[ids] + positions[0..T), or weight[ids] where positions is undefined; [B, T, D].
at::Tensor embedding(const at::Tensor& weight, const at::Tensor& positions, const at::Tensor& ids);

}  // namespace lehr::models
