// Where a grid-stride loop over [rows, columns] stands: both coordinates are carried along, so that
// no turn of the loop divides 64-bit numbers.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace lehr::kernels {

struct GridWalk {
  int64_t row, column;

  // begins at the `first`-th place; each `next` goes `stride` places on
  __device__ GridWalk(int64_t first, int64_t stride, int64_t columns)
      : row(first / columns),
        column(first % columns),
        rows_a_step_(stride / columns),
        columns_a_step_(stride % columns),
        columns_(columns) {}
  __device__ void next() {
    row += rows_a_step_;
    column += columns_a_step_;
    if (column >= columns_) {
      column -= columns_;
      ++row;
    }
  }

 private:
  int64_t rows_a_step_, columns_a_step_, columns_;
};

}  // namespace lehr::kernels
