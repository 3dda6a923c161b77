// Bound by memory. Both kernels walk the chunks of all tensors, which each block finds in the table
// by bisection, so that one launch serves a model. Sums of squares are doubles, one a chunk; every
// block of the second kernel adds them up itself, in the same order, instead of waiting for
// another.
#include "kernels/adamw/adamw.h"
#include "kernels/common/cast.h"
#include "kernels/common/launch.h"
#include "kernels/common/pack.h"

namespace lehr::kernels {
namespace {

constexpr unsigned kWarp = 0xffffffffu;
// eight warps: a chunk is sixteen packs of four for each thread
constexpr int kThreads = 256;
constexpr int kWidth = 4;          // floats in 16 bytes
constexpr double kClipEps = 1e-6;  // as in PyTorch's clip_grad_norm_

// in every thread, the same bits; `by_warp` may be reused after the next barrier
__device__ double block_sum(double value, double* by_warp) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kWarp, value, lanes);
  if (threadIdx.x % 32 == 0) by_warp[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0;
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += by_warp[warp];
  return sum;
}

__device__ int64_t tensor_of(const AdamW& args, int64_t chunk) {
  int64_t low = 0, high = args.tensor_count;  // the answer is in [low, high)
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (args.tensors[middle].first_chunk <= chunk)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// calls f(first element, how many of up to four) for this thread's parts of a chunk
template <class F>
__device__ void for_each_pack(const AdamWTensor& tensor, int64_t chunk, F f) {
  const int64_t begin = (chunk - tensor.first_chunk) * kAdamWChunk;
  const int64_t left = tensor.count - begin;
  const int n = static_cast<int>(left < kAdamWChunk ? left : kAdamWChunk);
  for (int i = threadIdx.x * kWidth; i < n; i += kThreads * kWidth)
    f(begin + i, n - i < kWidth ? n - i : kWidth);
}

template <class T>
__device__ Pack<T, kWidth> load(const T* array, int64_t first, int n, bool wide) {
  if (wide && n == kWidth) return load_pack<kWidth>(array, first / kWidth);
  Pack<T, kWidth> pack{};
  for (int i = 0; i < n; ++i) pack[i] = array[first + i];
  return pack;
}

template <class T>
__device__ void store(T* array, int64_t first, int n, bool wide, const Pack<T, kWidth>& pack) {
  if (wide && n == kWidth) return store_pack(array, first / kWidth, pack);
  for (int i = 0; i < n; ++i) array[first + i] = pack[i];
}

template <class T>
__device__ Pack<float, kWidth> load_as_float(const void* array, int64_t first, int n, bool wide) {
  const auto pack = load(static_cast<const T*>(array), first, n, wide);
  Pack<float, kWidth> result;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) result[i] = to_float(pack[i]);
  return result;
}

__device__ Pack<float, kWidth> load_gradient(const AdamWTensor& tensor, int64_t first, int n) {
  switch (tensor.gradient_type) {
    case Float::kBFloat16:
      return load_as_float<__nv_bfloat16>(tensor.gradient, first, n, tensor.wide);
    case Float::kFloat16:
      return load_as_float<__half>(tensor.gradient, first, n, tensor.wide);
    default:
      return load_as_float<float>(tensor.gradient, first, n, tensor.wide);
  }
}

template <class T>
__device__ void store_as(void* array, int64_t first, int n, bool wide,
                         const Pack<float, kWidth>& values) {
  Pack<T, kWidth> pack;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) pack[i] = from_float<T>(values[i]);
  store(static_cast<T*>(array), first, n, wide, pack);
}

__global__ void __launch_bounds__(kThreads) squares_kernel(AdamW args) {
  __shared__ double by_warp[kThreads / 32];
  for (int64_t chunk = blockIdx.x; chunk < args.chunks; chunk += gridDim.x) {
    const AdamWTensor tensor = args.tensors[tensor_of(args, chunk)];
    double sum = 0;
    for_each_pack(tensor, chunk, [&](int64_t first, int n) {
      const auto g = load_gradient(tensor, first, n);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum += static_cast<double>(g[i]) * g[i];  // 0 beyond n
    });
    sum = block_sum(sum, by_warp);
    if (threadIdx.x == 0) args.partials[chunk] = sum;
    __syncthreads();  // the next chunk overwrites by_warp
  }
}

// the norm of all chunks, in every thread
__device__ double norm_of(const AdamW& args, double* by_warp) {
  if (args.has_norm) return args.known;
  double sum = 0;
  for (int64_t chunk = threadIdx.x; chunk < args.chunks; chunk += kThreads)
    sum += args.partials[chunk];
  return sqrt(block_sum(sum, by_warp)) / args.divide;
}

__global__ void __launch_bounds__(kThreads) norm_kernel(AdamW args) {
  __shared__ double by_warp[kThreads / 32];
  const double norm = norm_of(args, by_warp);
  if (threadIdx.x == 0) *args.norm = norm;
}

__global__ void __launch_bounds__(kThreads) adamw_kernel(AdamW args) {
  __shared__ double by_warp[kThreads / 32];
  const double norm = norm_of(args, by_warp);
  if (blockIdx.x == 0 && threadIdx.x == 0) *args.norm = norm;
  if (!(norm - norm == 0)) return;  // not finite; all blocks see the same
  const double clip = (norm + kClipEps) / args.max_norm;
  const float factor = static_cast<float>(1 / (args.divide * (clip > 1 ? clip : 1.0)));

  for (int64_t chunk = blockIdx.x; chunk < args.chunks; chunk += gridDim.x) {
    const AdamWTensor tensor = args.tensors[tensor_of(args, chunk)];
    for_each_pack(tensor, chunk, [&](int64_t first, int n) {
      const bool wide = tensor.wide;
      const auto g = load_gradient(tensor, first, n);
      auto p = load<float>(tensor.parameter, first, n, wide);
      auto m = load<float>(tensor.exp_avg, first, n, wide);
      auto v = load<float>(tensor.exp_avg_sq, first, n, wide);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float gradient = __fmul_rn(g[i], factor);
        m[i] = __fadd_rn(m[i], __fmul_rn(__fsub_rn(gradient, m[i]), args.one_minus_beta1));
        v[i] = __fadd_rn(__fmul_rn(v[i], args.beta2),
                         __fmul_rn(__fmul_rn(gradient, gradient), args.one_minus_beta2));
        const float divisor = __fadd_rn(__fdiv_rn(__fsqrt_rn(v[i]), args.root), args.eps);
        p[i] = __fsub_rn(__fmul_rn(p[i], tensor.decay),
                         __fdiv_rn(__fmul_rn(m[i], tensor.step_size), divisor));
      }
      store(tensor.parameter, first, n, wide, p);
      store(tensor.exp_avg, first, n, wide, m);
      store(tensor.exp_avg_sq, first, n, wide, v);
      if (tensor.copy) {
        if (tensor.copy_type == Float::kBFloat16)
          store_as<__nv_bfloat16>(tensor.copy, first, n, wide, p);
        else if (tensor.copy_type == Float::kFloat16)
          store_as<__half>(tensor.copy, first, n, wide, p);
        else
          store_as<float>(tensor.copy, first, n, wide, p);
      }
      if (tensor.average) {
        auto average = load<float>(tensor.average, first, n, wide);
#pragma unroll
        for (int i = 0; i < kWidth; ++i)
          average[i] =
              __fadd_rn(average[i], __fmul_rn(__fsub_rn(p[i], average[i]), args.one_minus_ema));
        store(tensor.average, first, n, wide, average);
      }
    });
  }
}

cudaError_t run(void (*kernel)(AdamW), int64_t chunks, const AdamW& args, cudaStream_t stream) {
  unsigned blocks = 0;
  if (cudaError_t error = grid_stride_blocks(chunks * kThreads, kThreads, &blocks)) return error;
  if (cudaError_t error = launch(kernel, blocks, kThreads, 0, stream, args)) return error;
  return cudaGetLastError();
}

}  // namespace

cudaError_t adamw_cuda(const AdamW& args, cudaStream_t stream) {
  if (args.chunks == 0) return cudaSuccess;
  if (!args.has_norm) {
    if (cudaError_t error = run(squares_kernel, args.chunks, args, stream)) return error;
  }
  return run(adamw_kernel, args.chunks, args, stream);
}

cudaError_t global_norm_cuda(const AdamW& args, cudaStream_t stream) {
  if (args.chunks == 0) return cudaSuccess;
  if (cudaError_t error = run(squares_kernel, args.chunks, args, stream)) return error;
  return run(norm_kernel, 1, args, stream);
}

}  // namespace lehr::kernels
