// The op for C++ callers, and what its CPU and CUDA halves share.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/swiglu/swiglu.h"

namespace lehr::kernels {

// lehr::swiglu: gate_up [..., 2F] (gate first) of float32, bfloat16 or float16 -> silu(gate) * up
// [..., F], not rounded in between; differentiable once.
at::Tensor swiglu(const at::Tensor& gate_up);

// The checked arguments of one call; the tensors own what `args` points to.
struct SwiGluCall {
  at::Tensor gate_up;  // contiguous
  at::Tensor output;   // allocated
  SwiGlu args;
};
SwiGluCall prepare_swiglu(const at::Tensor& gate_up);

struct SwiGluBackwardCall {
  at::Tensor grad, gate_up;  // contiguous
  at::Tensor grad_gate_up;   // allocated
  SwiGluBackward args;
};
SwiGluBackwardCall prepare_swiglu_backward(const at::Tensor& grad, const at::Tensor& gate_up);

}  // namespace lehr::kernels
