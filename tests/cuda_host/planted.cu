// One small kernel per bug. They look like the real thing with a line wrong; with Planted::kNone
// the line is right.
#include "kernels/common/launch.h"
#include "kernels/common/pack.h"
#include "kernels/common/shared.h"
#include "tests/cuda_host/planted.h"

namespace lehr::kernels {
namespace {

constexpr unsigned kWarp = 0xffffffffu;

// every thread gives its value to its mirror image through shared memory
__global__ void mirror_kernel(Planted bug, float* output) {
  __shared__ float values[1024];
  const unsigned t = threadIdx.x, n = blockDim.x;
  values[t] = static_cast<float>(blockIdx.x * n + t);
  if (bug != Planted::kMissingBarrier) __syncthreads();
  output[blockIdx.x * n + t] = values[n - 1 - t];  // bug: MissingBarrier
}

__global__ void fill_kernel(Planted bug, float* output) {
  const unsigned begin = blockIdx.x * blockDim.x, end = begin + blockDim.x;
  const unsigned bound = bug == Planted::kOffByOne ? end + 1 : end;
  for (unsigned i = begin + threadIdx.x; i < bound; i += blockDim.x)
    output[i] = static_cast<float>(blockIdx.x);  // bug: OffByOne
}

__global__ void halves_kernel(Planted bug, float* output) {
  const int lane = threadIdx.x % 32;
  float value = static_cast<float>(lane);
  const unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  const int offset = bug == Planted::kWrongMask ? 16 : 8;
  value += __shfl_xor_sync(mask, value, offset);  // bug: WrongMask
  output[blockIdx.x * blockDim.x + threadIdx.x] = value;
}

__global__ void pairs_kernel(Planted bug, float* output) {
  const int64_t begin = int64_t{blockIdx.x} * blockDim.x;
  float* base = output + begin + (bug == Planted::kMisalignedLoad ? 1 : 0);
  if (bug == Planted::kOverlappingPacks) base = output;
  if (threadIdx.x + 1 < blockDim.x / 2) {
    auto pair = load_pack<2>(base, threadIdx.x);
    pair[0] = pair[1] = 1;
    store_pack(base, threadIdx.x, pair);
  }
}

// the last element of `values` is never written
__global__ void sum_shared_kernel(Planted bug, float* output) {
  __shared__ float values[1024];
  const unsigned t = threadIdx.x, n = blockDim.x;
  if (t + 1 < n || bug != Planted::kUninitialisedShared) values[t] = 1;
  __syncthreads();
  float sum = 0;
  for (unsigned i = 0; i < n; ++i) sum += values[i];  // bug: UninitialisedShared
  output[blockIdx.x * n + t] = sum;
}

__device__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kWarp, value, offset);
  return value;
}

__device__ float block_sum(float value, float* by_warp, bool trailing_barrier) {
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) by_warp[warp] = value;  // bug: MissingTrailingBarrier
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < warps; ++i) sum += by_warp[i];
  if (trailing_barrier) __syncthreads();
  return sum;
}

// two reductions through the same shared memory
__global__ void two_sums_kernel(Planted bug, float* output) {
  __shared__ float by_warp[32];
  const bool trailing = bug != Planted::kMissingTrailingBarrier;
  const float first = block_sum(1.0f, by_warp, trailing);
  const float second = block_sum(first, by_warp, trailing);
  output[blockIdx.x * blockDim.x + threadIdx.x] = second;
}

__global__ void neighbour_kernel(Planted bug, float* output) {
  __shared__ float values[1024];
  const unsigned t = threadIdx.x;
  values[t] = static_cast<float>(t);
  const unsigned neighbour = __shfl_xor_sync(kWarp, t, 1);
  if (bug != Planted::kShuffleAsFence) __syncwarp();
  output[blockIdx.x * blockDim.x + t] = values[neighbour];  // bug: ShuffleAsFence
}

__global__ void barriers_kernel(Planted bug, float* output) {
  const unsigned t = threadIdx.x, warp = t / 32;
  float value = 0;
  if (bug == Planted::kEarlyExit && warp == 1) return;
  if (bug == Planted::kDivergentBarrier) {
    if (warp == 0) {
      value = __shfl_sync(kWarp, value, 0);
      if (t == 0) __syncthreads();  // bug: DivergentBarrier
      __syncwarp();
    }
  } else if (bug == Planted::kTwoBarriers && warp == 0) {
    __syncthreads();  // bug: TwoBarriers
  } else if (bug == Planted::kMissingLanes && t % 32 >= 16) {
    value = 1;
  } else if (bug == Planted::kMissingLanes) {
    value = __shfl_sync(kWarp, value, 0);  // bug: MissingLanes
  } else {
    __syncthreads();  // bug: EarlyExit
  }
  output[blockIdx.x * blockDim.x + t] = value;
}

__global__ void overrun_kernel(Planted bug, float* output) {
  DYN_SHARED(float, dynamic);
  __shared__ float fixed[64];
  const unsigned t = threadIdx.x;
  if (t < 64) fixed[t] = 1;
  dynamic[t] = 1;
  if (bug == Planted::kDynamicSharedOverrun && t == 0)
    dynamic[blockDim.x] = 1;  // bug: DynamicSharedOverrun
  if (bug == Planted::kStaticSharedOverrun && t == 0) {
    float* end = fixed + 64;
    *end = 1;  // bug: StaticSharedOverrun
  }
  output[blockIdx.x * blockDim.x + t] = dynamic[t];
}

// a counter of the block, in shared memory
__global__ void count_kernel(Planted bug, float* output) {
  __shared__ unsigned count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1u);
  if (bug != Planted::kPlainBesideAtomic) __syncthreads();
  output[blockIdx.x * blockDim.x + threadIdx.x] =
      static_cast<float>(count);  // bug: PlainBesideAtomic
}

__global__ void neighbour_block_kernel(Planted bug, float* output) {
  const unsigned t = threadIdx.x, n = blockDim.x;
  output[blockIdx.x * n + t] = 1;
  if (bug == Planted::kReadsAnotherBlock)
    output[blockIdx.x * n + t] = output[(1 - blockIdx.x) * n + t];  // bug: ReadsAnotherBlock
}

// the last thread of the last block reads one further
__global__ void shift_kernel(Planted bug, float* output) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, last = gridDim.x * blockDim.x - 1;
  float value = output[i];
  if (bug == Planted::kReadBeyondEnd && i == last) value = output[last + 1];  // bug: ReadBeyondEnd
  output[i] = value == value ? value : 0;
}

// as sum_shared_kernel, in dynamic shared memory
__global__ void dynamic_kernel(Planted bug, float* output) {
  DYN_SHARED(float, dynamic);
  const unsigned t = threadIdx.x, n = blockDim.x;
  if (t + 1 < n || bug != Planted::kUninitialisedDynamic) dynamic[t] = 1;
  __syncthreads();
  output[blockIdx.x * n + t] = dynamic[n - 1 - t];  // bug: UninitialisedDynamic
}

// neighbouring bytes are anybody's; the same byte is not
__global__ void bytes_kernel(Planted bug, float* output) {
  __shared__ unsigned char bytes[1025];
  const unsigned t = threadIdx.x;
  bytes[t] = 1;
  if (bug == Planted::kSharedByte) bytes[t + 1] = 1;  // bug: SharedByte
  __syncthreads();
  output[blockIdx.x * blockDim.x + t] = bytes[t];
}

__global__ void unnamed_kernel(Planted bug, float* output) {
  const unsigned lane = threadIdx.x % 32;
  const unsigned mask = bug == Planted::kUnnamedLane ? 0x7fffffffu : kWarp;
  const float value = __shfl_sync(mask, 1.0f, 0);  // bug: UnnamedLane
  output[blockIdx.x * blockDim.x + threadIdx.x] = value + static_cast<float>(lane);
}

}  // namespace

cudaError_t planted_cuda(Planted bug, float* output, int threads) {
  auto run = [&](void (*kernel)(Planted, float*)) {
    return launch(kernel, 2, threads, static_cast<size_t>(threads) * sizeof(float), nullptr, bug,
                  output);
  };
  switch (bug) {
    case Planted::kMissingBarrier:
      return run(mirror_kernel);
    case Planted::kOffByOne:
      return run(fill_kernel);
    case Planted::kWrongMask:
      return run(halves_kernel);
    case Planted::kOverlappingPacks:
    case Planted::kMisalignedLoad:
      return run(pairs_kernel);
    case Planted::kUninitialisedShared:
      return run(sum_shared_kernel);
    case Planted::kMissingTrailingBarrier:
      return run(two_sums_kernel);
    case Planted::kShuffleAsFence:
      return run(neighbour_kernel);
    case Planted::kDivergentBarrier:
    case Planted::kEarlyExit:
    case Planted::kTwoBarriers:
    case Planted::kMissingLanes:
      return run(barriers_kernel);
    case Planted::kDynamicSharedOverrun:
    case Planted::kStaticSharedOverrun:
      return run(overrun_kernel);
    case Planted::kPlainBesideAtomic:
      return run(count_kernel);
    case Planted::kReadsAnotherBlock:
      return run(neighbour_block_kernel);
    case Planted::kReadBeyondEnd:
      return run(shift_kernel);
    case Planted::kUninitialisedDynamic:
      return run(dynamic_kernel);
    case Planted::kSharedByte:
      return run(bytes_kernel);
    case Planted::kUnnamedLane:
      return run(unnamed_kernel);
    case Planted::kNone:
      for (auto kernel :
           {mirror_kernel, fill_kernel, halves_kernel, pairs_kernel, sum_shared_kernel,
            two_sums_kernel, neighbour_kernel, barriers_kernel, overrun_kernel, count_kernel,
            neighbour_block_kernel, shift_kernel, dynamic_kernel, bytes_kernel, unnamed_kernel}) {
        if (cudaError_t error = run(kernel)) return error;
      }
      return cudaGetLastError();
  }
  return cudaErrorInvalidValue;
}

}  // namespace lehr::kernels
