// Sums over rows (the gradient of a weight or a bias) are made in two stages: within chunks of
// rows, then over the chunks in order. How many chunks there are depends on the shape alone, never
// on threads or multiprocessors, so that neither changes the bits.
#pragma once

#include <algorithm>
#include <cstdint>

#ifdef __CUDACC__
#define LEHR_CHUNKS_HOST_DEVICE __host__ __device__
#else
#define LEHR_CHUNKS_HOST_DEVICE
#endif

namespace lehr::kernels {

// At least 16 rows each, so that the second stage costs little; 64 are work for as many cores.
constexpr int64_t cpu_row_chunks(int64_t rows) { return std::min<int64_t>((rows + 15) / 16, 64); }

// On a GPU a chunk belongs to a block: 512 fill it where rows are long; short rows make small
// blocks, and more of them. The partial sums then take 2 MiB, or 2 KiB a column of long rows.
constexpr int64_t cuda_row_chunks(int64_t rows, int64_t columns) {
  return std::min(rows, std::clamp<int64_t>((int64_t{1} << 19) / columns, 512, 4096));
}

// First row of a chunk; `chunk` = chunks gives the end.
LEHR_CHUNKS_HOST_DEVICE constexpr int64_t chunk_begin(int64_t chunk, int64_t chunks, int64_t rows) {
  const int64_t longer = rows % chunks;
  return rows / chunks * chunk + (chunk < longer ? chunk : longer);
}
#undef LEHR_CHUNKS_HOST_DEVICE

// The second stage on the CPU: sums[c] over partials [chunks, columns].
void sum_chunks(const float* partials, int64_t chunks, int64_t columns, float* sums);

}  // namespace lehr::kernels
