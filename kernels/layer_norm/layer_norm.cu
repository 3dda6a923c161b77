// Bound by memory. A block per row, of as many warps as the row has packs for, striding over the
// rows; the row comes from memory once and then twice from the caches. The backward keeps its
// block's share of the parameters' gradients in shared memory, each thread its own columns, so that
// x and grad are read once for all three gradients; a second launch adds the blocks up in order.
#include "kernels/common/cast.h"
#include "kernels/common/launch.h"
#include "kernels/common/pack.h"
#include "kernels/common/parameters.h"
#include "kernels/common/reduce.h"
#include "kernels/common/shared.h"
#include "kernels/layer_norm/layer_norm.h"

namespace lehr::kernels {
namespace {

// beyond this many bytes (rows above 12288) the partial sums stay in global memory, in L2
constexpr int64_t kMaxSharedBytes = 96 << 10;

template <class T, int kWidth>
__global__ void __launch_bounds__(kMaxRowThreads) layer_norm_kernel(LayerNorm args) {
  __shared__ float shared[1][32];
  const int64_t packs = args.columns / kWidth;
  const float n = static_cast<float>(args.columns);
  const bool wide = args.parameter_type == Float::kFloat32;
  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    const int64_t first = row * args.columns;
    const T* x = static_cast<const T*>(args.x) + first;
    float sum[1] = {0};
    if (args.residual) {
      const T* residual = static_cast<const T*>(args.residual) + first;
      T* total = static_cast<T*>(args.sum) + first;
      for (int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
        auto values = load_pack<kWidth>(x, pack);
        const auto more = load_pack<kWidth>(residual, pack);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          values[i] = from_float<T>(to_float(values[i]) + to_float(more[i]));
          sum[0] += to_float(values[i]);
        }
        store_pack(total, pack, values);
      }
      x = total;  // each thread reads what it wrote itself
    } else {
      for (int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
        const auto values = load_pack<kWidth>(x, pack);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) sum[0] += to_float(values[i]);
      }
    }
    block_sum(sum, shared);
    const float mean = sum[0] / n;

    float squares[1] = {0};
    for (int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
      const auto values = load_pack<kWidth>(x, pack);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float distance = to_float(values[i]) - mean;
        squares[0] = fmaf(distance, distance, squares[0]);
      }
    }
    block_sum(squares, shared);
    const float rstd = 1.0f / sqrtf(squares[0] / n + args.eps);
    if (threadIdx.x == 0) {
      args.stats[row] = mean;
      args.stats[args.rows + row] = rstd;
    }

    T* output = static_cast<T*>(args.output) + first;
    for (int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
      const auto values = load_pack<kWidth>(x, pack);
      float weight[kWidth], bias[kWidth];
      load_parameters<T>(args.weight, wide, pack, weight);
      load_parameters<T>(args.bias, wide, pack, bias);
      Pack<T, kWidth> out;
#pragma unroll
      for (int i = 0; i < kWidth; ++i)
        out[i] = from_float<T>(fmaf((to_float(values[i]) - mean) * rstd, weight[i], bias[i]));
      store_pack(output, pack, out);
    }
  }
}

// as many blocks as args.chunks; the chunk of a block is every chunks-th row from its own on
template <class T, int kWidth>
__global__ void __launch_bounds__(kMaxRowThreads)
    layer_norm_backward_kernel(LayerNormBackward args, bool sums_in_shared) {
  DYN_SHARED(float, dynamic);
  __shared__ float shared[2][32];
  const int64_t packs = args.columns / kWidth;
  const float n = static_cast<float>(args.columns);
  const bool wide = args.parameter_type == Float::kFloat32;
  float* const partial = args.partials + int64_t{blockIdx.x} * 2 * args.columns;
  float* const of_weight = sums_in_shared ? dynamic : partial;
  float* const of_bias = of_weight + args.columns;
  for (int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
    const float zeros[kWidth] = {};
    store_floats(of_weight, pack, zeros);
    store_floats(of_bias, pack, zeros);
  }

  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    const int64_t first = row * args.columns;
    const T* grad = static_cast<const T*>(args.grad) + first;
    const T* x = static_cast<const T*>(args.x) + first;
    const float mean = args.stats[row], rstd = args.stats[args.rows + row];

    // the row's sums of g w and g w x_hat; its share of the parameters' gradients
    float sums[2] = {0, 0};
    for (int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
      const auto grads = load_pack<kWidth>(grad, pack), values = load_pack<kWidth>(x, pack);
      float weight[kWidth], weight_sums[kWidth], bias_sums[kWidth];
      load_parameters<T>(args.weight, wide, pack, weight);
      load_floats(of_weight, pack, weight_sums);
      load_floats(of_bias, pack, bias_sums);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float g = to_float(grads[i]), normal = (to_float(values[i]) - mean) * rstd;
        const float gw = g * weight[i];
        sums[0] += gw;
        sums[1] = fmaf(gw, normal, sums[1]);
        weight_sums[i] = fmaf(g, normal, weight_sums[i]);
        bias_sums[i] += g;
      }
      store_floats(of_weight, pack, weight_sums);
      store_floats(of_bias, pack, bias_sums);
    }
    block_sum(sums, shared);
    const float a = sums[0] / n, b = sums[1] / n;

    const T* grad_sum = args.grad_sum ? static_cast<const T*>(args.grad_sum) + first : nullptr;
    T* grad_x = static_cast<T*>(args.grad_x) + first;
    for (int64_t pack = threadIdx.x; pack < packs; pack += blockDim.x) {
      const auto grads = load_pack<kWidth>(grad, pack), values = load_pack<kWidth>(x, pack);
      float weight[kWidth], d[kWidth];
      load_parameters<T>(args.weight, wide, pack, weight);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float normal = (to_float(values[i]) - mean) * rstd;
        d[i] = rstd * (fmaf(to_float(grads[i]), weight[i], -a) - normal * b);
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
      load_floats(of_bias, pack, values);
      store_floats(partial + args.columns, pack, values);
    }
  }
}

template <class T, int kWidth>
cudaError_t run(const LayerNorm& args, cudaStream_t stream) {
  const int threads = row_threads(args.columns / kWidth);
  unsigned blocks = 0;
  if (cudaError_t error = grid_stride_blocks(args.rows * threads, threads, &blocks)) return error;
  if (cudaError_t error = launch(layer_norm_kernel<T, kWidth>, blocks, threads, 0, stream, args))
    return error;
  return cudaGetLastError();
}

template <class T, int kWidth>
cudaError_t run_backward(const LayerNormBackward& args, cudaStream_t stream) {
  const int threads = row_threads(args.columns / kWidth);
  const int64_t bytes = 2 * args.columns * int64_t{sizeof(float)};
  const bool in_shared = bytes <= kMaxSharedBytes;
  const auto kernel = layer_norm_backward_kernel<T, kWidth>;
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
          column_sum(args.partials, args.chunks, 2 * args.columns, args.grad_parameters, stream))
    return error;
  return cudaGetLastError();
}

// wide where every row of every tensor allows it, else element by element
template <class T>
cudaError_t run_aligned(const LayerNorm& args, cudaStream_t stream) {
  if (rows_of_packs<T>(args.columns, {args.x, args.residual, args.weight, args.bias, args.output,
                                      args.residual ? args.sum : nullptr}))
    return run<T, kPackBytes / sizeof(T)>(args, stream);
  return run<T, 1>(args, stream);
}
template <class T>
cudaError_t run_aligned(const LayerNormBackward& args, cudaStream_t stream) {
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

cudaError_t layer_norm_cuda(const LayerNorm& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  return run_typed(args, stream);
}

cudaError_t layer_norm_backward_cuda(const LayerNormBackward& args, cudaStream_t stream) {
  if (args.rows == 0) return column_sum(nullptr, 0, 2 * args.columns, args.grad_parameters, stream);
  return run_typed(args, stream);
}

}  // namespace lehr::kernels
