// Bound by memory: packs of 16 bytes in a grid-stride loop, the column of the bias carried along.
// The backward with a bias takes tiles of columns by chunks of rows instead, so that the bias's
// gradient is summed in registers while x and grad pass by once.
#include "kernels/common/cast.h"
#include "kernels/common/chunks.h"
#include "kernels/common/grid_walk.h"
#include "kernels/common/launch.h"
#include "kernels/common/pack.h"
#include "kernels/common/parameters.h"
#include "kernels/common/reduce.h"
#include "kernels/gelu/gelu.h"

namespace lehr::kernels {
namespace {

// eight warps: enough of them fit a multiprocessor to hide the loads
constexpr int kThreads = 256;

// -2u / v = -2 sqrt(2 / pi) (1 + 0.044715 v^2)
constexpr float kTwice = -1.5957691216057308f, kTwiceCubic = -0.0713548162726009f;

__device__ inline float gelu(float v) {
  return v / (1.0f + expf(v * fmaf(v * v, kTwiceCubic, kTwice)));
}

// s + v s (1 - s) (2u)' with s = 1 / (1 + e^-2u). Beyond 10 it is 0 or 1 to the last bit, and
// within, nothing overflows.
__device__ inline float gelu_derivative(float v) {
  v = v > 10.0f ? 10.0f : v < -10.0f ? -10.0f : v;
  const float e = expf(v * fmaf(v * v, kTwiceCubic, kTwice));
  const float s = 1.0f / (1.0f + e);
  return fmaf(v * fmaf(v * v, -3 * kTwiceCubic, -kTwice), s * (s * e), s);
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) gelu_kernel(Gelu args) {
  const T* x = static_cast<const T*>(args.x);
  T* output = static_cast<T*>(args.output);
  const bool wide = args.bias_type == Float::kFloat32;
  const int64_t elements = args.rows * args.columns, packs = elements / kWidth;
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  GridWalk at(thread, stride, args.bias ? args.columns / kWidth : 1);
  for (int64_t pack = thread; pack < packs; pack += stride, at.next()) {
    const auto in = load_pack<kWidth>(x, pack);
    float bias[kWidth] = {};
    if (args.bias) load_parameters<T>(args.bias, wide, at.column, bias);
    Pack<T, kWidth> out;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) out[i] = from_float<T>(gelu(to_float(in[i]) + bias[i]));
    store_pack(output, pack, out);
  }
  // with a bias, rows are whole packs and nothing is left over
  const int64_t rest = packs * kWidth + thread;
  if (rest < elements) output[rest] = from_float<T>(gelu(to_float(x[rest])));
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) gelu_backward_kernel(GeluBackward args) {
  const T *grad = static_cast<const T*>(args.grad), *x = static_cast<const T*>(args.x);
  T* grad_x = static_cast<T*>(args.grad_x);
  const int64_t elements = args.rows * args.columns, packs = elements / kWidth;
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t pack = thread; pack < packs; pack += stride) {
    const auto grads = load_pack<kWidth>(grad, pack), values = load_pack<kWidth>(x, pack);
    Pack<T, kWidth> out;
#pragma unroll
    for (int i = 0; i < kWidth; ++i)
      out[i] = from_float<T>(to_float(grads[i]) * gelu_derivative(to_float(values[i])));
    store_pack(grad_x, pack, out);
  }
  const int64_t rest = packs * kWidth + thread;
  if (rest < elements)
    grad_x[rest] = from_float<T>(to_float(grad[rest]) * gelu_derivative(to_float(x[rest])));
}

// a block per tile of 32 packs and chunk of rows: a warp takes every eighth row of its chunk
constexpr int kRowsAtOnce = kThreads / 32;

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    bias_gelu_backward_kernel(GeluBackward args, int64_t tiles) {
  __shared__ float by_warp[kRowsAtOnce][32][kWidth];
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const bool wide = args.bias_type == Float::kFloat32;
  const int64_t packs = args.columns / kWidth;
  for (int64_t block = blockIdx.x; block < tiles * args.chunks; block += gridDim.x) {
    const int64_t chunk = block / tiles, pack = block % tiles * 32 + lane;
    const int64_t last = chunk_begin(chunk + 1, args.chunks, args.rows);
    float sums[kWidth] = {};
    if (pack < packs) {
      float bias[kWidth];
      load_parameters<T>(args.bias, wide, pack, bias);
      for (int64_t row = chunk_begin(chunk, args.chunks, args.rows) + warp; row < last;
           row += kRowsAtOnce) {
        const int64_t first = row * args.columns;
        const auto grads = load_pack<kWidth>(static_cast<const T*>(args.grad) + first, pack);
        const auto values = load_pack<kWidth>(static_cast<const T*>(args.x) + first, pack);
        Pack<T, kWidth> out;
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          const float d = to_float(grads[i]) * gelu_derivative(to_float(values[i]) + bias[i]);
          out[i] = from_float<T>(d);
          sums[i] += d;
        }
        store_pack(static_cast<T*>(args.grad_x) + first, pack, out);
      }
    }
#pragma unroll
    for (int i = 0; i < kWidth; ++i) by_warp[warp][lane][i] = sums[i];
    __syncthreads();
    if (warp == 0 && pack < packs) {
      for (int other = 1; other < kRowsAtOnce; ++other) {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) sums[i] += by_warp[other][lane][i];
      }
      store_floats(args.partials + chunk * args.columns, pack, sums);
    }
    __syncthreads();  // the next tile overwrites what this one still reads
  }
}

// wide where every pointer, and with a bias every row, allows it
template <class T>
bool wide_enough(const void* bias, int64_t columns, std::initializer_list<const void*> arrays) {
  return rows_of_packs<T>(bias ? columns : 0, arrays) && aligned(bias, kPackBytes);
}

template <class T, int kWidth>
cudaError_t run(const Gelu& args, cudaStream_t stream) {
  unsigned blocks = 0;
  const int64_t packs = (args.rows * args.columns + kWidth - 1) / kWidth;
  if (cudaError_t error = grid_stride_blocks(packs, kThreads, &blocks)) return error;
  return launch(gelu_kernel<T, kWidth>, blocks, kThreads, 0, stream, args);
}
template <class T>
cudaError_t run_aligned(const Gelu& args, cudaStream_t stream) {
  if (wide_enough<T>(args.bias, args.columns, {args.x, args.output}))
    return run<T, kPackBytes / sizeof(T)>(args, stream);
  return run<T, 1>(args, stream);
}

template <class T, int kWidth>
cudaError_t run(const GeluBackward& args, cudaStream_t stream) {
  unsigned blocks = 0;
  if (!args.bias) {
    const int64_t packs = (args.rows * args.columns + kWidth - 1) / kWidth;
    if (cudaError_t error = grid_stride_blocks(packs, kThreads, &blocks)) return error;
    return launch(gelu_backward_kernel<T, kWidth>, blocks, kThreads, 0, stream, args);
  }
  const int64_t tiles = (args.columns / kWidth + 31) / 32;
  if (cudaError_t error = grid_stride_blocks(tiles * args.chunks * kThreads, kThreads, &blocks))
    return error;
  if (cudaError_t error =
          launch(bias_gelu_backward_kernel<T, kWidth>, blocks, kThreads, 0, stream, args, tiles))
    return error;
  return column_sum(args.partials, args.chunks, args.columns, args.grad_bias, stream);
}
template <class T>
cudaError_t run_aligned(const GeluBackward& args, cudaStream_t stream) {
  if (wide_enough<T>(args.bias, args.columns, {args.grad, args.x, args.grad_x, args.partials}))
    return run<T, kPackBytes / sizeof(T)>(args, stream);
  return run<T, 1>(args, stream);
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

cudaError_t gelu_cuda(const Gelu& args, cudaStream_t stream) {
  if (args.rows * args.columns == 0) return cudaSuccess;
  if (cudaError_t error = run_typed(args, stream)) return error;
  return cudaGetLastError();
}

cudaError_t gelu_backward_cuda(const GeluBackward& args, cudaStream_t stream) {
  if (args.columns == 0 || (args.rows == 0 && !args.bias)) return cudaSuccess;
  const cudaError_t error = args.rows == 0
                                ? column_sum(nullptr, 0, args.columns, args.grad_bias, stream)
                                : run_typed(args, stream);
  if (error) return error;
  return cudaGetLastError();
}

}  // namespace lehr::kernels
