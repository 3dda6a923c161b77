// Sums of rows by a block each: a kernel of the workbench's own test that uses what real ones use
// (shuffles, votes, barriers, static and dynamic shared memory, an integer atomic).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace lehr::kernels {

struct BlockSum {
  const float* input;  // [rows, columns]
  float* sums;         // [rows]
  int* positive_rows;  // incremented once per row that has only positive values; may be nullptr
  int64_t rows, columns;
};

[[nodiscard]] cudaError_t block_sum_cuda(const BlockSum& args, int threads, cudaStream_t stream);

}  // namespace lehr::kernels
