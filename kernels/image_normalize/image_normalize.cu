// Bound by memory: each thread turns 4 or 8 neighbouring bytes into one 16-byte store, so that the
// loads and the stores of a warp are both contiguous; a grid-stride loop carries the channel along.
#include "kernels/common/cast.h"
#include "kernels/common/launch.h"
#include "kernels/common/pack.h"
#include "kernels/image_normalize/image_normalize.h"

namespace lehr::kernels {
namespace {

// eight warps: enough of them fit a multiprocessor to hide the loads, and small images fill it too
constexpr int kThreads = 256;

// pack by pack of kWidth elements; what is left over goes to the first threads
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) image_normalize_kernel(ImageNormalize args) {
  T* output = static_cast<T*>(args.output);
  const int channels = args.channels;
  const int64_t elements = args.pixels * channels, packs = elements / kWidth;
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t stride = int64_t{gridDim.x} * kThreads;

  auto normalize = [&](uint8_t value, int channel) {
    const float scaled = __fmul_rn(static_cast<float>(value), __ldg(args.scale + channel));
    return from_float<T>(__fadd_rn(scaled, __ldg(args.shift + channel)));
  };

  // the channel of a pack's first element moves on by the same amount in every turn of the loop
  int first = static_cast<int>(thread * kWidth % channels);
  const int step = static_cast<int>(stride * kWidth % channels);
  for (int64_t pack = thread; pack < packs; pack += stride) {
    const auto in = load_pack<kWidth>(args.input, pack);
    Pack<T, kWidth> out;
    int channel = first;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      out[i] = normalize(in[i], channel);
      channel = channel + 1 == channels ? 0 : channel + 1;
    }
    store_pack(output, pack, out);
    first += step;
    if (first >= channels) first -= channels;
  }

  const int64_t rest = packs * kWidth + thread;
  if (rest < elements) {
    output[rest] = normalize(args.input[rest], static_cast<int>(rest % channels));
  }
}

template <class T, int kWidth>
cudaError_t run(const ImageNormalize& args, cudaStream_t stream) {
  unsigned blocks = 0;
  const int64_t packs = (args.pixels * args.channels + kWidth - 1) / kWidth;
  if (cudaError_t error = grid_stride_blocks(packs, kThreads, &blocks)) return error;
  if (cudaError_t error =
          launch(image_normalize_kernel<T, kWidth>, blocks, kThreads, 0, stream, args))
    return error;
  return cudaGetLastError();
}

// wide where both pointers allow it, else element by element
template <class T>
cudaError_t run_aligned(const ImageNormalize& args, cudaStream_t stream) {
  constexpr int kWidth = kPackBytes / sizeof(T);
  if (aligned(args.output, kPackBytes) && aligned(args.input, kWidth))
    return run<T, kWidth>(args, stream);
  return run<T, 1>(args, stream);
}

}  // namespace

cudaError_t image_normalize_cuda(const ImageNormalize& args, cudaStream_t stream) {
  if (args.pixels == 0) return cudaSuccess;
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
