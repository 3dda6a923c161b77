// AdamW and the global norm for C++ callers, and what the ops' CPU and CUDA halves share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "kernels/adamw/adamw.h"

namespace lehr::kernels {

// Parameters that share a learning rate and a decay; the lists run in parallel. All tensors of a
// call are on one device, dense, and (but for gradients) of their parameter's strides.
struct AdamWGroup {
  std::vector<at::Tensor> parameters;  // float32: the master weights
  std::vector<at::Tensor> gradients;   // float32, bfloat16 or float16; undefined: left alone
  std::vector<at::Tensor> exp_avg, exp_avg_sq;  // float32
  std::vector<at::Tensor> copies;    // written with the new weights; none, or undefined where none
  std::vector<at::Tensor> averages;  // float32, moved towards the new weights; likewise
  double lr = 1e-3, weight_decay = 0;
};

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  int64_t step = 1;     // the update's number, from 1: for the bias corrections
  double divide = 1;    // what the gradients were multiplied by (the loss scale)
  double max_norm = 0;  // 0: no clipping
  double ema_decay = 0;
  // global_norm of the gradients over `divide`, where the caller has it: saves the first pass
  std::optional<double> norm;
};

// One step of all groups, in place; launches twice on a GPU, once if the norm is given. Returns the
// norm of gradient / divide before clipping, 0-d float64 on the same device (no wait for it). Where
// that is not finite, nothing has moved. The same bits on any number of threads.
at::Tensor adamw_step(const std::vector<AdamWGroup>& groups, const AdamWOptions& options);

// Square root of the sum of squares, in double, over all elements of dense float32, bfloat16 or
// float16 tensors of one device: 0-d float64 there. Not finite when an element is not. The same
// bits on any number of threads.
at::Tensor global_norm(const std::vector<at::Tensor>& tensors);

// The checked arguments of one call; the tensors own what `args` points to, but for args.tensors,
// which is on the host and to be moved. Undefined copies and averages: there are none.
struct AdamWCall {
  std::vector<at::Tensor> gradients;  // with their parameter's strides
  std::vector<AdamWTensor> table;
  at::Tensor partials, norm;
  AdamW args;
};
AdamWCall prepare_adamw(at::TensorList parameters, at::TensorList gradients, at::TensorList exp_avg,
                        at::TensorList exp_avg_sq, at::TensorList copies, at::TensorList averages,
                        at::ArrayRef<double> lr, at::ArrayRef<double> weight_decay, double beta1,
                        double beta2, double eps, int64_t step, double divide, double max_norm,
                        double ema_decay, std::optional<double> norm);
AdamWCall prepare_global_norm(at::TensorList tensors);

}  // namespace lehr::kernels
