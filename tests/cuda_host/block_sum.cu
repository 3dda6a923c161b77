// One block per row, in a fixed order: each thread its stride, each warp by shuffles, the first
// warp over the warps.
#include "kernels/common/launch.h"
#include "kernels/common/shared.h"
#include "tests/cuda_host/block_sum.h"

namespace lehr::kernels {
namespace {

constexpr unsigned kWarp = 0xffffffffu;

__device__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(kWarp, value, offset);
  return value;
}

// dynamic shared memory: the row, [columns]
__global__ void block_sum_kernel(BlockSum args) {
  DYN_SHARED(float, row);
  __shared__ float by_warp[32];
  __shared__ bool warp_is_positive[32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  for (int64_t r = blockIdx.x; r < args.rows; r += gridDim.x) {
    // through shared memory and back in another order, so that a missing barrier would show
    for (int64_t i = threadIdx.x; i < args.columns; i += blockDim.x)
      row[i] = args.input[r * args.columns + i];
    __syncthreads();
    float sum = 0;
    bool positive = true;
    for (int64_t i = threadIdx.x; i < args.columns; i += blockDim.x) {
      const float value = row[args.columns - 1 - i];
      sum += value;
      positive = positive && value > 0;
    }
    sum = warp_sum(sum);
    positive = __all_sync(kWarp, positive);
    if (lane == 0) {
      by_warp[warp] = sum;
      warp_is_positive[warp] = positive;
    }
    __syncthreads();
    if (warp == 0) {
      sum = warp_sum(lane < warps ? by_warp[lane] : 0.0f);
      const unsigned all = __ballot_sync(kWarp, lane >= warps || warp_is_positive[lane]);
      if (lane == 0) {
        args.sums[r] = sum;
        if (args.positive_rows && all == kWarp) atomicAdd(args.positive_rows, 1);
      }
    }
    __syncthreads();  // the next row overwrites what this one still reads
  }
}

}  // namespace

cudaError_t block_sum_cuda(const BlockSum& args, int threads, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  unsigned blocks = 0;
  if (cudaError_t error = grid_stride_blocks(args.rows * threads, threads, &blocks)) return error;
  const size_t shared = static_cast<size_t>(args.columns) * sizeof(float);
  if (cudaError_t error = cudaFuncSetAttribute(
          block_sum_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)))
    return error;
  if (cudaError_t error = launch(block_sum_kernel, blocks, threads, shared, stream, args))
    return error;
  return cudaGetLastError();
}

}  // namespace lehr::kernels
