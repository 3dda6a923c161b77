// Shapes, ids and values of embedding's tests; no LibTorch, so that the host builds read it too. No
// tolerance: every implementation gives the same bits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/embedding/embedding.h"

namespace lehr::kernels {

struct EmbeddingShape {
  int64_t sequences, length, vocabulary, width;
  int64_t tokens() const { return sequences * length; }
  std::string name() const {
    return std::to_string(sequences) + "x" + std::to_string(length) + " of " +
           std::to_string(vocabulary) + "x" + std::to_string(width);
  }
};

inline std::vector<EmbeddingShape> embedding_shapes() {
  return {
      {0, 4, 5, 3},      // no sequences
      {2, 0, 5, 3},      // no tokens
      {3, 2, 5, 0},      // no width
      {1, 1, 1, 1},      //
      {2, 3, 7, 5},      // less than a vector
      {3, 8, 2, 37},     // odd width, long runs of equal ids
      {2, 9, 40, 64},    // one turn of the wide sums
      {2, 17, 65, 88},   // wide sums, one narrow, a rest of 8
      {2, 5, 5000, 24},  // ids few and far between: sorted by comparison
      {5, 70, 3, 16},    // runs longer than the loads in flight
  };
}

// `same`: every token has the last id
inline std::vector<int64_t> embedding_ids(const EmbeddingShape& shape, bool same = false) {
  std::vector<int64_t> ids;
  uint32_t state = 99;
  for (int64_t i = 0; i < shape.tokens(); ++i) {
    state = state * 1664525u + 1013904223u;
    ids.push_back(same ? shape.vocabulary - 1 : (state >> 8) % shape.vocabulary);
  }
  return ids;
}

inline std::vector<float> embedding_values(int64_t count, uint32_t seed) {
  std::vector<float> values(static_cast<size_t>(count));
  uint32_t state = seed;
  for (auto& value : values) {
    state = state * 1664525u + 1013904223u;
    value = (static_cast<float>(state >> 8) / (1 << 24) - 0.5f) * 3;
  }
  return values;
}

}  // namespace lehr::kernels
