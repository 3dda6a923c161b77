// Sums over warps and blocks in a fixed order, for kernels whose block works on one row, and the
// sum over the partial rows that such blocks leave behind.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/common/launch.h"

namespace lehr::kernels {

// every lane gets the sum, by a butterfly: both partners add the same two numbers
__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
  return value;
}

// Replaces each of `values` by its sum over the block, in every thread. The block is whole warps,
// all of it calls; `shared` is the same array in every call.
template <int kCount>
__device__ inline void block_sum(float (&values)[kCount], float (&shared)[kCount][32]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = warp_sum(values[i]);
  const int warps = static_cast<int>(blockDim.x / 32);
  if (warps == 1) return;  // the whole block
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  __syncthreads();  // another sum may still be read
  if (lane == 0) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) shared[i][warp] = values[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = warp_sum(lane < warps ? shared[i][lane] : 0.0f);
}

// Threads for a row of `packs`: whole warps, so that a short row leaves few idle; eight at most,
// beyond which a thread takes several packs and has their loads in flight together.
constexpr int kMaxRowThreads = 256;
constexpr int row_threads(int64_t packs) {
  return static_cast<int>(std::clamp<int64_t>((packs + 31) / 32 * 32, 32, kMaxRowThreads));
}

namespace {

constexpr int kSumGroups = 8;

// 32 columns a block, eight threads a column: each its stride of the rows, then the eight in order
__global__ void __launch_bounds__(32 * kSumGroups)
    column_sum_kernel(const float* rows, int64_t count, int64_t columns, float* sums) {
  __shared__ float by_group[kSumGroups][32];
  const int lane = static_cast<int>(threadIdx.x % 32), group = static_cast<int>(threadIdx.x / 32);
  for (int64_t first = int64_t{blockIdx.x} * 32; first < columns;
       first += int64_t{gridDim.x} * 32) {
    const int64_t column = first + lane;
    float sum = 0;
    if (column < columns)
      for (int64_t row = group; row < count; row += kSumGroups) sum += rows[row * columns + column];
    by_group[group][lane] = sum;
    __syncthreads();
    if (group == 0 && column < columns) {
      float total = 0;
      for (int i = 0; i < kSumGroups; ++i) total += by_group[i][lane];
      sums[column] = total;
    }
    __syncthreads();  // the next columns overwrite what these still read
  }
}

}  // namespace

// sums[c] = sum over the rows of [count, columns], in an order that depends on `count` alone; 0 for
// no rows.
[[nodiscard]] inline cudaError_t column_sum(const float* rows, int64_t count, int64_t columns,
                                            float* sums, cudaStream_t stream) {
  unsigned blocks = 0;
  const int threads = 32 * kSumGroups;
  if (cudaError_t error = grid_stride_blocks((columns + 31) / 32 * threads, threads, &blocks))
    return error;
  return launch(column_sum_kernel, blocks, threads, 0, stream, rows, count, columns, sums);
}

}  // namespace lehr::kernels
