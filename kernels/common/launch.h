// Starting a kernel: the one place that fills a launch configuration. Through cudaLaunchKernelEx
// and not <<<>>>, so that the same file compiles with a host compiler in the tests.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <utility>

namespace lehr::kernels {

template <class... Parameters, class... Arguments>
[[nodiscard]] cudaError_t launch(void (*kernel)(Parameters...), dim3 blocks, dim3 threads,
                                 size_t shared_bytes, cudaStream_t stream,
                                 Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

// Blocks of a grid-stride kernel over `items`: one thread per item, but no more blocks than the
// current device holds `waves` times over (a block being as many threads as it is given).
[[nodiscard]] inline cudaError_t grid_stride_blocks(int64_t items, int threads, unsigned* blocks,
                                                    int waves = 4) {
  int device = 0, processors = 0, threads_each = 0;
  if (cudaError_t error = cudaGetDevice(&device)) return error;
  if (cudaError_t error =
          cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device))
    return error;
  if (cudaError_t error =
          cudaDeviceGetAttribute(&threads_each, cudaDevAttrMaxThreadsPerMultiProcessor, device))
    return error;
  const int64_t full = int64_t{processors} * std::max(threads_each / threads, 1) * waves;
  *blocks = static_cast<unsigned>(std::clamp<int64_t>((items + threads - 1) / threads, 1, full));
  return cudaSuccess;
}

}  // namespace lehr::kernels
