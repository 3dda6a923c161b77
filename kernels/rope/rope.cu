// Bound by memory: a thread turns one pack of a head's first half with its partner of the second,
// in a grid-stride loop over rows, heads and packs; in place it leaves v alone.
#include "kernels/common/cast.h"
#include "kernels/common/grid_walk.h"
#include "kernels/common/launch.h"
#include "kernels/common/pack.h"
#include "kernels/common/parameters.h"
#include "kernels/rope/rope.h"

namespace lehr::kernels {
namespace {

// eight warps: enough of them fit a multiprocessor to hide the loads
constexpr int kThreads = 256;

// `packs`: of half a head; `walked`: heads to visit
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) rope_kernel(Rope args, int packs, int64_t walked) {
  const int64_t half = args.head_dim / 2, columns = (args.heads + args.kept_heads) * args.head_dim;
  GridWalk at(int64_t{blockIdx.x} * kThreads + threadIdx.x, int64_t{gridDim.x} * kThreads,
              walked * packs);
  for (; at.row < args.rows; at.next()) {
    // packs of all the heads of a row fit an int
    const int head = static_cast<int>(at.column) / packs;
    const int pack = static_cast<int>(at.column) % packs;
    const int64_t first = at.row * columns + head * args.head_dim;
    const T* in = static_cast<const T*>(args.qkv) + first;
    T* out = static_cast<T*>(args.output) + first;
    auto x1 = load_pack<kWidth>(in, pack), x2 = load_pack<kWidth>(in + half, pack);
    if (head < args.heads) {
      const float* const angles = args.cos_sin + at.row % args.positions * args.head_dim;
      float cos[kWidth], sin[kWidth];
      load_floats(angles, pack, cos);
      load_floats(angles + half, pack, sin);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float s = args.inverse ? -sin[i] : sin[i];
        const float a = to_float(x1[i]), b = to_float(x2[i]);
        x1[i] = from_float<T>(fmaf(a, cos[i], -(b * s)));
        x2[i] = from_float<T>(fmaf(b, cos[i], a * s));
      }
    }
    store_pack(out, pack, x1);
    store_pack(out + half, pack, x2);
  }
}

template <class T, int kWidth>
cudaError_t run(const Rope& args, cudaStream_t stream) {
  const int packs = static_cast<int>(args.head_dim / 2 / kWidth);
  const int64_t walked = args.heads + (args.output == args.qkv ? 0 : args.kept_heads);
  unsigned blocks = 0;
  if (cudaError_t error = grid_stride_blocks(args.rows * walked * packs, kThreads, &blocks))
    return error;
  return launch(rope_kernel<T, kWidth>, blocks, kThreads, 0, stream, args, packs, walked);
}

template <class T>
cudaError_t run_aligned(const Rope& args, cudaStream_t stream) {
  return rows_of_packs<T>(args.head_dim / 2, {args.qkv, args.output, args.cos_sin})
             ? run<T, kPackBytes / sizeof(T)>(args, stream)
             : run<T, 1>(args, stream);
}

}  // namespace

cudaError_t rope_cuda(const Rope& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  if ((args.heads + args.kept_heads) * args.head_dim > INT32_MAX) return cudaErrorInvalidValue;
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

}  // namespace lehr::kernels
