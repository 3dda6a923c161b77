// Which rows of a tensor a rank holds, where several share it. Rows are along the first dimension.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lehr {

struct Rows {
  int64_t first = 0, count = 0;
  int64_t of = 0;  // rows of the whole tensor
};

// Of `parts` parts of equal length, the last of which may be short or empty; as torch.chunk, so
// that checkpoints of PyTorch's FSDP and Lehr cut alike.
inline Rows rows_of_part(int64_t of, int64_t parts, int64_t part) {
  const int64_t each = (of + parts - 1) / parts;
  const int64_t first = std::min(of, part * each);
  return {first, std::min(of - first, each), of};
}

}  // namespace lehr
