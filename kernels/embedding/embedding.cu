// Bound by memory. One thread per 16 bytes of a row; in the backward, the thread at the first of a
// run of equal ids adds up its columns of the whole run, eight rows in flight, and the threads at
// the others have nothing to do.
#include "kernels/common/cast.h"
#include "kernels/common/launch.h"
#include "kernels/common/pack.h"
#include "kernels/embedding/embedding.h"

namespace lehr::kernels {
namespace {

// eight warps: small batches fill a device too
constexpr int kThreads = 256;
constexpr int kAhead = 8;  // rows whose loads are in flight together

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) embedding_kernel(Embedding args) {
  const int64_t packs = args.width / kWidth, items = args.tokens * packs;
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < items; item += stride) {
    const int64_t token = item / packs, column = item % packs, id = args.ids[token];
    Pack<T, kWidth> out;
    if (id < 0 || id >= args.vocabulary) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) out[i] = from_float<T>(__uint_as_float(0x7fc00000u));
    } else {
      out = load_pack<kWidth>(static_cast<const T*>(args.weight), id * packs + column);
      if (args.positions) {
        const auto position = load_pack<kWidth>(static_cast<const T*>(args.positions),
                                                token % args.length * packs + column);
#pragma unroll
        for (int i = 0; i < kWidth; ++i)
          out[i] = from_float<T>(__fadd_rn(to_float(out[i]), to_float(position[i])));
      }
    }
    store_pack(static_cast<T*>(args.output), item, out);
  }
}

// kSorted: by id, else by position
template <class T, int kWidth, bool kSorted>
__global__ void __launch_bounds__(kThreads) embedding_gradient_kernel(EmbeddingGradient args) {
  const T* gradient = static_cast<const T*>(args.gradient);
  const int64_t packs = args.width / kWidth;
  const int64_t sequences = kSorted ? 1 : args.tokens / args.length;
  const int64_t items = (kSorted ? args.tokens : args.length) * packs;
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < items; item += stride) {
    const int64_t start = item / packs, column = item % packs;
    const int64_t row = kSorted ? args.sorted_ids[start] : start;
    if (row < 0 || row >= args.rows) continue;
    if (kSorted && start > 0 && args.sorted_ids[start - 1] == row) continue;
    const int64_t end = kSorted ? args.tokens : sequences;
    float sum[kWidth] = {};
    auto add = [&](const Pack<T, kWidth>& pack) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum[i] += to_float(pack[i]);
    };
    auto load = [&](int64_t k) {
      const int64_t token = kSorted ? args.order[k] : k * args.length + start;
      return load_pack<kWidth>(gradient, token * packs + column);
    };
    int64_t k = kSorted ? start : 0;
    // sorted: if the last of a few is of this row, so are those before it
    for (; k + kAhead <= end && (!kSorted || args.sorted_ids[k + kAhead - 1] == row); k += kAhead) {
      Pack<T, kWidth> rows[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) rows[i] = load(k + i);
#pragma unroll
      for (int i = 0; i < kAhead; ++i) add(rows[i]);
    }
    for (; k < end && (!kSorted || args.sorted_ids[k] == row); ++k) add(load(k));
    Pack<T, kWidth> out;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) out[i] = from_float<T>(sum[i]);
    store_pack(static_cast<T*>(args.result), row * packs + column, out);
  }
}

template <class Args>
cudaError_t run(void (*kernel)(Args), int64_t items, const Args& args, cudaStream_t stream) {
  unsigned blocks = 0;
  if (cudaError_t error = grid_stride_blocks(items, kThreads, &blocks)) return error;
  if (cudaError_t error = launch(kernel, blocks, kThreads, 0, stream, args)) return error;
  return cudaGetLastError();
}

template <class T, int kWidth>
cudaError_t run_width(const Embedding& args, cudaStream_t stream) {
  return run(embedding_kernel<T, kWidth>, args.tokens * (args.width / kWidth), args, stream);
}

template <class T, int kWidth>
cudaError_t run_width(const EmbeddingGradient& args, cudaStream_t stream) {
  const int64_t packs = args.width / kWidth;
  if (args.sorted_ids)
    return run(embedding_gradient_kernel<T, kWidth, true>, args.tokens * packs, args, stream);
  return run(embedding_gradient_kernel<T, kWidth, false>, args.length * packs, args, stream);
}

bool aligned_rows(const Embedding& args) {
  return aligned(args.weight, kPackBytes) && aligned(args.positions, kPackBytes) &&
         aligned(args.output, kPackBytes);
}
bool aligned_rows(const EmbeddingGradient& args) {
  return aligned(args.gradient, kPackBytes) && aligned(args.result, kPackBytes);
}

// wide where every row allows it, else element by element
template <class T, class Args>
cudaError_t run_aligned(const Args& args, cudaStream_t stream) {
  constexpr int kWidth = kPackBytes / sizeof(T);
  if (aligned_rows(args) && args.width % kWidth == 0) return run_width<T, kWidth>(args, stream);
  return run_width<T, 1>(args, stream);
}

template <class Args>
cudaError_t run_type(const Args& args, cudaStream_t stream) {
  if (args.tokens == 0 || args.width == 0) return cudaSuccess;
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

cudaError_t embedding_cuda(const Embedding& args, cudaStream_t stream) {
  return run_type(args, stream);
}

cudaError_t embedding_gradient_cuda(const EmbeddingGradient& args, cudaStream_t stream) {
  return run_type(args, stream);
}

}  // namespace lehr::kernels
