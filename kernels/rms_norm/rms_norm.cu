// Bound by memory. A block per row, of as many warps as the row has packs for, striding over the
// rows; the row comes from memory once and then from the caches. The backward keeps its
// block's share of the weight's gradient in shared memory, each thread its own columns, so that
// x and grad are read once for both gradients; a second launch adds the blocks up in order.
#include "kernels/common/cast.h"
#include "kernels/common/launch.h"
#include "kernels/common/pack.h"
#include "kernels/common/parameters.h"
#include "kernels/common/reduce.h"
#include "kernels/common/shared.h"
#include "kernels/rms_norm/rms_norm.h"

namespace lehr::kernels {
namespace {

// beyond this many bytes (rows above 24576) the partial sums stay in global memory, in L2
constexpr int64_t kMaxSharedBytes = 96 << 10;

template <class T, int kWidth>
__global__ void __launch_bounds__(kMaxRowThreads) rms_norm_kernel(RmsNorm args) {
  __shared__ float shared[1][32];
  const int64_t packs = args.columns / kWidth;
  const float n = static_cast<float>(args.columns);
  const bool wide = args.parameter_type == Float::kFloat32;
  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    const int64_t first = row * args.columns;
    const T* x = static_cast<const T*>(args.x) + first;
    float squares[1] = {0};
    if (args.residual) {
      const T* residual = static_cast<const T*>(args.residual) + first;
      T* total = static_cast<T*>(args.sum) + first;
      for (int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
        auto values = load_pack<kWidth>(x, pack);
        const auto more = load_pack<kWidth>(residual, pack);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          values[i] = from_float<T>(to_float(values[i]) + to_float(more[i]));
          squares[0] = fmaf(to_float(values[i]), to_float(values[i]), squares[0]);
        }
        store_pack(total, pack, values);
      }
      x = total;  // each thread reads what it wrote itself
    } else {
      for (int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
        const auto values = load_pack<kWidth>(x, pack);
#pragma unroll
        for (int i = 0; i < kWidth; ++i)
          squares[0] = fmaf(to_float(values[i]), to_float(values[i]), squares[0]);
      }
    }
    block_sum(squares, shared);
    const float rstd = 1.0f / sqrtf(squares[0] / n + args.eps);
    if (threadIdx.x == 0) args.rstd[row] = rstd;

    T* output = static_cast<T*>(args.output) + first;
    for (int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
      const auto values = load_pack<kWidth>(x, pack);
      float weight[kWidth];
      load_parameters<T>(args.weight, wide, pack, weight);
      Pack<T, kWidth> out;
#pragma unroll
      for (int i = 0; i < kWidth; ++i)
        out[i] = from_float<T>(to_float(values[i]) * rstd * weight[i]);
      store_pack(output, pack, out);
    }
  }
}

// as many blocks as args.chunks; the chunk of a block is every chunks-th row from its own on
template <class T, int kWidth>
__global__ void __launch_bounds__(kMaxRowThreads)
    rms_norm_backward_kernel(RmsNormBackward args, bool sums_in_shared) {
  DYN_SHARED(float, dynamic);
  __shared__ float shared[1][32];
  const int64_t packs = args.columns / kWidth;
  const float n = static_cast<float>(args.columns);
  const bool wide = args.parameter_type == Float::kFloat32;
  float* const partial = args.partials + int64_t{blockIdx.x} * args.columns;
  float* const of_weight = sums_in_shared ? dynamic : partial;
  for (int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
    const float zeros[kWidth] = {};
    store_floats(of_weight, pack, zeros);
  }

  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    const int64_t first = row * args.columns;
    const T* grad = static_cast<const T*>(args.grad) + first;
    const T* x = static_cast<const T*>(args.x) + first;
    const float rstd = args.rstd[row];

    // the row's sum of g w x_hat; its share of the weight's gradient
    float sum[1] = {0};
    for (int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
      const auto grads = load_pack<kWidth>(grad, pack), values = load_pack<kWidth>(x, pack);
      float weight[kWidth], weight_sums[kWidth];
      load_parameters<T>(args.weight, wide, pack, weight);
      load_floats(of_weight, pack, weight_sums);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float g = to_float(grads[i]), normal = to_float(values[i]) * rstd;
        sum[0] = fmaf(g * weight[i], normal, sum[0]);
        weight_sums[i] = fmaf(g, normal, weight_sums[i]);
      }
      store_floats(of_weight, pack, weight_sums);
    }
    block_sum(sum, shared);
    const float b = sum[0] / n;

    const T* grad_sum = args.grad_sum ? static_cast<const T*>(args.grad_sum) + first : nullptr;
    T* grad_x = static_cast<T*>(args.grad_x) + first;
    for (int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
      const auto grads = load_pack<kWidth>(grad, pack), values = load_pack<kWidth>(x, pack);
      float weight[kWidth], d[kWidth];
      load_parameters<T>(args.weight, wide, pack, weight);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float normal = to_float(values[i]) * rstd;
        d[i] = rstd * (to_float(grads[i]) * weight[i] - normal * b);
      }
      if (grad_sum) {
        const auto more = load_pack<kWidth>(grad_sum, pack);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) d[i] += to_float(more[i]);
      }
      Pack<T, kWidth> out;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) out[i] = from_float<T>(d[i]);
      store_pack(grad_x, pack, out);
    }
  }

  if (sums_in_shared) {
    for (int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
      float values[kWidth];
      load_floats(of_weight, pack, values);
      store_floats(partial, pack, values);
    }
  }
}

template <class T, int kWidth>
cudaError_t run(const RmsNorm& args, cudaStream_t stream) {
  const int threads = row_threads(args.columns / kWidth);
  unsigned blocks = 0;
  if (cudaError_t error = grid_stride_blocks(args.rows * threads, threads, &blocks)) return error;
  if (cudaError_t error = launch(rms_norm_kernel<T, kWidth>, blocks, threads, 0, stream, args))
    return error;
  return cudaGetLastError();
}

template <class T, int kWidth>
cudaError_t run_backward(const RmsNormBackward& args, cudaStream_t stream) {
  const int threads = row_threads(args.columns / kWidth);
  const int64_t bytes = args.columns * int64_t{sizeof(float)};
  const bool in_shared = bytes <= kMaxSharedBytes;
  const auto kernel = rms_norm_backward_kernel<T, kWidth>;
  if (in_shared) {
    if (cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)))
      return error;
  }
  if (cudaError_t error =
          launch(kernel, static_cast<unsigned>(args.chunks), threads,
                 in_shared ? static_cast<size_t>(bytes) : 0, stream, args, in_shared))
    return error;
  if (cudaError_t error =
          column_sum(args.partials, args.chunks, args.columns, args.grad_weight, stream))
    return error;
  return cudaGetLastError();
}

// wide where every row of every tensor allows it, else element by element
template <class T>
cudaError_t run_aligned(const RmsNorm& args, cudaStream_t stream) {
  if (rows_of_packs<T>(args.columns, {args.x, args.residual, args.weight, args.output,
                                      args.residual ? args.sum : nullptr}))
    return run<T, kPackBytes / sizeof(T)>(args, stream);
  return run<T, 1>(args, stream);
}
template <class T>
cudaError_t run_aligned(const RmsNormBackward& args, cudaStream_t stream) {
  if (rows_of_packs<T>(args.columns,
                       {args.grad, args.grad_sum, args.x, args.weight, args.grad_x, args.partials}))
    return run_backward<T, kPackBytes / sizeof(T)>(args, stream);
  return run_backward<T, 1>(args, stream);
}

template <class Args>
cudaError_t run_typed(const Args& args, cudaStream_t stream) {
  switch (args.type) {
    case Float::kFloat32:
      return run_aligned<float>(args, stream);
    case Float::kBFloat16:
      return run_aligned<__nv_bfloat16>(args, stream);
    case Float::kFloat16:
      return run_aligned<__half>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t rms_norm_cuda(const RmsNorm& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  return run_typed(args, stream);
}

cudaError_t rms_norm_backward_cuda(const RmsNormBackward& args, cudaStream_t stream) {
  if (args.rows == 0) return column_sum(nullptr, 0, args.columns, args.grad_weight, stream);
  return run_typed(args, stream);
}

}  // namespace lehr::kernels
