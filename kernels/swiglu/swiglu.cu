// Bound by memory: packs of 16 bytes of gate and of up in a grid-stride loop over rows and packs.
#include "kernels/common/cast.h"
#include "kernels/common/grid_walk.h"
#include "kernels/common/launch.h"
#include "kernels/common/pack.h"
#include "kernels/common/parameters.h"
#include "kernels/swiglu/swiglu.h"

namespace lehr::kernels {
namespace {

// eight warps: enough of them fit a multiprocessor to hide the loads
constexpr int kThreads = 256;

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) swiglu_kernel(SwiGlu args) {
  const int64_t packs = args.columns / kWidth;
  GridWalk at(int64_t{blockIdx.x} * kThreads + threadIdx.x, int64_t{gridDim.x} * kThreads, packs);
  for (; at.row < args.rows; at.next()) {
    const T* gate = static_cast<const T*>(args.gate_up) + at.row * 2 * args.columns;
    const auto gates = load_pack<kWidth>(gate, at.column);
    const auto ups = load_pack<kWidth>(gate + args.columns, at.column);
    Pack<T, kWidth> out;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float g = to_float(gates[i]);
      out[i] = from_float<T>(g / (1.0f + expf(-g)) * to_float(ups[i]));
    }
    store_pack(static_cast<T*>(args.output) + at.row * args.columns, at.column, out);
  }
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) swiglu_backward_kernel(SwiGluBackward args) {
  const int64_t packs = args.columns / kWidth;
  GridWalk at(int64_t{blockIdx.x} * kThreads + threadIdx.x, int64_t{gridDim.x} * kThreads, packs);
  for (; at.row < args.rows; at.next()) {
    const T* gate = static_cast<const T*>(args.gate_up) + at.row * 2 * args.columns;
    T* grad_gate = static_cast<T*>(args.grad_gate_up) + at.row * 2 * args.columns;
    const auto gates = load_pack<kWidth>(gate, at.column);
    const auto ups = load_pack<kWidth>(gate + args.columns, at.column);
    const auto grads =
        load_pack<kWidth>(static_cast<const T*>(args.grad) + at.row * args.columns, at.column);
    Pack<T, kWidth> of_gate, of_up;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float g = to_float(gates[i]), e = expf(-g), s = 1.0f / (1.0f + e);
      // 1 - s without cancelling; where e is infinite s is 0 and so is the product
      const float rest = (e > 3e38f ? 3e38f : e) * s;
      const float grad_s = to_float(grads[i]) * s;
      of_gate[i] = from_float<T>(grad_s * to_float(ups[i]) * fmaf(g, rest, 1.0f));
      of_up[i] = from_float<T>(grad_s * g);
    }
    store_pack(grad_gate, at.column, of_gate);
    store_pack(grad_gate + args.columns, at.column, of_up);
  }
}

template <class T, int kWidth>
cudaError_t run(const SwiGlu& args, cudaStream_t stream) {
  unsigned blocks = 0;
  const int64_t packs = args.rows * (args.columns / kWidth);
  if (cudaError_t error = grid_stride_blocks(packs, kThreads, &blocks)) return error;
  return launch(swiglu_kernel<T, kWidth>, blocks, kThreads, 0, stream, args);
}
template <class T, int kWidth>
cudaError_t run(const SwiGluBackward& args, cudaStream_t stream) {
  unsigned blocks = 0;
  const int64_t packs = args.rows * (args.columns / kWidth);
  if (cudaError_t error = grid_stride_blocks(packs, kThreads, &blocks)) return error;
  return launch(swiglu_backward_kernel<T, kWidth>, blocks, kThreads, 0, stream, args);
}

template <class T>
bool wide_enough(const SwiGlu& args) {
  return rows_of_packs<T>(args.columns, {args.gate_up, args.output});
}
template <class T>
bool wide_enough(const SwiGluBackward& args) {
  return rows_of_packs<T>(args.columns, {args.grad, args.gate_up, args.grad_gate_up});
}

template <class T, class Args>
cudaError_t run_aligned(const Args& args, cudaStream_t stream) {
  return wide_enough<T>(args) ? run<T, kPackBytes / sizeof(T)>(args, stream)
                              : run<T, 1>(args, stream);
}

template <class Args>
cudaError_t run_typed(const Args& args, cudaStream_t stream) {
  if (args.rows == 0 || args.columns == 0) return cudaSuccess;
  cudaError_t error = cudaErrorInvalidValue;
  switch (args.type) {
    case Float::kFloat32:
      error = run_aligned<float>(args, stream);
      break;
    case Float::kBFloat16:
      error = run_aligned<__nv_bfloat16>(args, stream);
      break;
    case Float::kFloat16:
      error = run_aligned<__half>(args, stream);
      break;
  }
  if (error) return error;
  return cudaGetLastError();
}

}  // namespace

cudaError_t swiglu_cuda(const SwiGlu& args, cudaStream_t stream) { return run_typed(args, stream); }

cudaError_t swiglu_backward_cuda(const SwiGluBackward& args, cudaStream_t stream) {
  return run_typed(args, stream);
}

}  // namespace lehr::kernels
