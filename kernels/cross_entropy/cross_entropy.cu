// Bound by memory. A long row is one block's, which keeps it in shared memory between its two
// passes where it fits; a short one is one warp's. The first pass finds the maximum, the sum of
// exponentials below it and the sum of the logits; the second writes the gradient where the logits
// were, each thread over what it has read itself.
#include "kernels/common/cast.h"
#include "kernels/common/launch.h"
#include "kernels/common/pack.h"
#include "kernels/common/shared.h"
#include "kernels/cross_entropy/cross_entropy.h"

namespace lehr::kernels {
namespace {

constexpr unsigned kWarp = 0xffffffffu;
// sixteen warps: two such blocks, each with a row of 100 KB, fill a multiprocessor of sm_90
constexpr int kBlockThreads = 512;
// rows of up to this many columns, 32 elements a lane, are done by a warp, eight warps to a block
constexpr int64_t kWarpColumns = 1024;
constexpr int kWarpRows = 8;
// kept for the kernel's own arrays when asking how long a row shared memory holds
constexpr int kStaticSharedBytes = 1024;

struct Sums {
  float max, exponentials, logits;  // exponentials of x - max
};

__device__ inline float minus_infinity() { return __uint_as_float(0xff800000u); }

// e^(x - max), also where both are infinite
__device__ inline float relative(float x, float max) { return x == max ? 1.0f : expf(x - max); }

__device__ inline Sums merge(const Sums& a, const Sums& b) {
  const float max = fmaxf(a.max, b.max);
  return {max, a.exponentials * relative(a.max, max) + b.exponentials * relative(b.max, max),
          a.logits + b.logits};
}

// the same bits in every lane: merging two is symmetric
__device__ inline Sums merge_warp(Sums sums) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const Sums other = {__shfl_xor_sync(kWarp, sums.max, lanes),
                        __shfl_xor_sync(kWarp, sums.exponentials, lanes),
                        __shfl_xor_sync(kWarp, sums.logits, lanes)};
    sums = merge(sums, other);
  }
  return sums;
}

template <class T, int kWidth>
__device__ inline void add(Sums* sums, const Pack<T, kWidth>& pack, int64_t first, int64_t n) {
  float max = sums->max;
#pragma unroll
  for (int i = 0; i < kWidth; ++i)
    if (first + i < n) max = fmaxf(max, to_float(pack[i]));
  float exponentials = sums->exponentials * relative(sums->max, max);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    if (first + i < n) {
      exponentials += relative(to_float(pack[i]), max);
      sums->logits += to_float(pack[i]);
    }
  }
  sums->max = max;
  sums->exponentials = exponentials;
}

// kThreads a row: 32, or the whole block. dynamic shared memory if kStaged: the row, [stride]
template <class T, int kWidth, int kThreads, bool kStaged>
__global__ void __launch_bounds__(kThreads == 32 ? 32 * kWarpRows : kThreads)
    cross_entropy_kernel(CrossEntropy args) {
  DYN_SHARED(T, staged);
  __shared__ float by_warp[3][kBlockThreads / 32];
  const int thread = threadIdx.x % kThreads, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int rows_at_once = blockDim.x / kThreads;
  const int64_t n = args.vocabulary, packs = args.stride / kWidth;
  const float not_a_number = __uint_as_float(0x7fc00000u);

  for (int64_t r = int64_t{blockIdx.x} * rows_at_once + threadIdx.x / kThreads; r < args.rows;
       r += int64_t{gridDim.x} * rows_at_once) {
    T* row = static_cast<T*>(args.logits) + r * args.stride;
    const int64_t target = args.targets[r];
    if (target < 0 || target >= n) {
      const float value = target == kIgnoredTarget ? 0.0f : not_a_number;
      if (thread == 0) args.losses[r] = value;
      if (args.gradient) {
        for (int64_t p = thread; p < packs; p += kThreads) {
          Pack<T, kWidth> out;
#pragma unroll
          for (int i = 0; i < kWidth; ++i)
            out[i] = from_float<T>(p * kWidth + i < n ? value : 0.0f);
          store_pack(row, p, out);
        }
      }
      continue;  // the same for all threads of the row
    }

    Sums sums = {minus_infinity(), 0.0f, 0.0f};
    for (int64_t p = thread; p < packs; p += kThreads) {
      const auto pack = load_pack<kWidth>(row, p);
      if (kStaged) store_pack(staged, p, pack);
      add(&sums, pack, p * kWidth, n);
    }
    const float of_target = thread == 0 ? to_float(row[target]) : 0.0f;  // before it is overwritten
    sums = merge_warp(sums);
    if (kThreads > 32) {
      if (lane == 0) {
        by_warp[0][warp] = sums.max;
        by_warp[1][warp] = sums.exponentials;
        by_warp[2][warp] = sums.logits;
      }
      __syncthreads();
      sums = {minus_infinity(), 0.0f, 0.0f};
      if (lane < kThreads / 32) sums = {by_warp[0][lane], by_warp[1][lane], by_warp[2][lane]};
      sums = merge_warp(sums);
    } else {
      __syncwarp();
    }

    const float log_sum = logf(sums.exponentials), lse = sums.max + log_sum;
    const float smoothing = args.label_smoothing;
    if (thread == 0) {
      // differences to the maximum first: they are exact where logits are far from zero
      float loss = (1.0f - smoothing) * (sums.max - of_target + log_sum);
      if (smoothing > 0)
        loss += smoothing * (sums.max - sums.logits / static_cast<float>(n) + log_sum);
      if (args.z_loss != 0) loss += args.z_loss * lse * lse;
      args.losses[r] = loss;
    }
    if (args.gradient) {
      const float of_softmax = args.z_loss != 0 ? 1.0f + 2.0f * args.z_loss * lse : 1.0f;
      const float a = args.scale * of_softmax / sums.exponentials;
      const float b = -args.scale * smoothing / static_cast<float>(n);
      for (int64_t p = thread; p < packs; p += kThreads) {
        const auto pack = load_pack<kWidth>(kStaged ? staged : row, p);
        Pack<T, kWidth> out;
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          const int64_t j = p * kWidth + i;
          float value = 0.0f;
          if (j < n) value = fmaf(expf(to_float(pack[i]) - sums.max), a, b);
          if (j == target) value -= args.scale * (1.0f - smoothing);
          out[i] = from_float<T>(value);
        }
        store_pack(row, p, out);
      }
    }
    if (kThreads > 32) __syncthreads();  // the next row overwrites by_warp
  }
}

template <class T, int kWidth, int kThreads, bool kStaged>
cudaError_t run(const CrossEntropy& args, cudaStream_t stream) {
  constexpr int kThreadsInBlock = kThreads == 32 ? 32 * kWarpRows : kThreads;
  unsigned blocks = 0;
  if (cudaError_t error =
          grid_stride_blocks(args.rows * kThreads, kThreadsInBlock, &blocks, kStaged ? 1 : 4))
    return error;
  const auto kernel = cross_entropy_kernel<T, kWidth, kThreads, kStaged>;
  const size_t shared = kStaged ? static_cast<size_t>(args.stride) * sizeof(T) : 0;
  if (kStaged) {
    if (cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)))
      return error;
  }
  if (cudaError_t error = launch(kernel, blocks, kThreadsInBlock, shared, stream, args))
    return error;
  return cudaGetLastError();
}

template <class T, int kWidth>
cudaError_t run_sized(const CrossEntropy& args, cudaStream_t stream) {
  if (args.stride <= kWarpColumns) return run<T, kWidth, 32, false>(args, stream);
  int device = 0, most_shared = 0;
  if (cudaError_t error = cudaGetDevice(&device)) return error;
  if (cudaError_t error =
          cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device))
    return error;
  const bool fits =
      args.stride <= (most_shared - kStaticSharedBytes) / static_cast<int64_t>(sizeof(T));
  // the forward alone reads a row once anyway
  if (args.gradient && fits) return run<T, kWidth, kBlockThreads, true>(args, stream);
  return run<T, kWidth, kBlockThreads, false>(args, stream);
}

// wide where every row allows it, else element by element
template <class T>
cudaError_t run_aligned(const CrossEntropy& args, cudaStream_t stream) {
  constexpr int kWidth = kPackBytes / sizeof(T);
  if (aligned(args.logits, kPackBytes) && args.stride % kWidth == 0)
    return run_sized<T, kWidth>(args, stream);
  return run_sized<T, 1>(args, stream);
}

}  // namespace

cudaError_t cross_entropy_cuda(const CrossEntropy& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
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

}  // namespace lehr::kernels
