// adamw and global_norm on CUDA: the table of tensors goes to the device, then guard, current
// stream, error to exception.
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <cstring>

#include "kernels/adamw/adamw_op.h"

namespace lehr::kernels {
namespace {

// from pinned memory, which the allocator keeps until the copy is done; the tensor owns the table
at::Tensor move_table(AdamWCall* call) {
  const auto bytes = static_cast<int64_t>(call->table.size() * sizeof(AdamWTensor));
  const auto options = at::TensorOptions().dtype(at::kByte);
  at::Tensor host = at::empty({bytes}, options.pinned_memory(true));
  std::memcpy(host.mutable_data_ptr(), call->table.data(), static_cast<size_t>(bytes));
  const at::Tensor device = host.to(call->norm.device(), /*non_blocking=*/true);
  call->args.tensors = static_cast<const AdamWTensor*>(device.const_data_ptr());
  return device;
}

at::Tensor step_on_cuda(at::TensorList parameters, at::TensorList gradients, at::TensorList exp_avg,
                        at::TensorList exp_avg_sq, at::TensorList copies, at::TensorList averages,
                        at::ArrayRef<double> lr, at::ArrayRef<double> weight_decay, double beta1,
                        double beta2, double eps, int64_t step, double divide, double max_norm,
                        double ema_decay, std::optional<double> known) {
  TORCH_CHECK(!parameters.empty(), "adamw: there are no parameters");
  const c10::cuda::CUDAGuard guard(parameters[0].device());
  AdamWCall call =
      prepare_adamw(parameters, gradients, exp_avg, exp_avg_sq, copies, averages, lr, weight_decay,
                    beta1, beta2, eps, step, divide, max_norm, ema_decay, known);
  const at::Tensor table = move_table(&call);
  C10_CUDA_CHECK(adamw_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return call.norm;
}

at::Tensor norm_on_cuda(at::TensorList tensors) {
  TORCH_CHECK(!tensors.empty(), "global_norm: there are no tensors");
  const c10::cuda::CUDAGuard guard(tensors[0].device());
  AdamWCall call = prepare_global_norm(tensors);
  const at::Tensor table = move_table(&call);
  C10_CUDA_CHECK(global_norm_cuda(call.args, c10::cuda::getCurrentCUDAStream()));
  return call.norm;
}

}  // namespace

TORCH_LIBRARY_IMPL(lehr, CUDA, m) {
  m.impl("adamw_", step_on_cuda);
  m.impl("global_norm", norm_on_cuda);
}

}  // namespace lehr::kernels
