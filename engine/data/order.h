// The order of samples as a function: no stored shuffle, so the only data state of a run is the
// number of samples consumed.
#pragma once

#include <cstdint>

namespace lehr::data {

// A keyed permutation of [0, n): balanced Feistel network on the smallest even-bit domain >= n with
// cycle walking. Permutation(n, seed, epoch)(i) is the sample at position i of that epoch.
class Permutation {
 public:
  Permutation(uint64_t n, uint64_t seed, uint64_t epoch);
  uint64_t operator()(uint64_t i) const;
  uint64_t size() const { return n_; }

 private:
  uint64_t n_, keys_[6];
  int half_bits_;
};

// True for about `fraction` of all ids: a hash of the sample, so appended rows move nobody.
bool held_out(uint64_t sample, double fraction, uint64_t seed);

}  // namespace lehr::data
