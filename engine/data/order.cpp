#include "engine/data/order.h"

#include "engine/base/random.h"

namespace lehr::data {

Permutation::Permutation(uint64_t n, uint64_t seed, uint64_t epoch) : n_(n), half_bits_(1) {
  while (half_bits_ < 31 && (uint64_t{1} << (2 * half_bits_)) < n) ++half_bits_;
  Random random(seed, Stream::kOrder, epoch);
  for (uint64_t& key : keys_) key = random.bits64();
}

uint64_t Permutation::operator()(uint64_t i) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  // the network permutes [0, 4^half_bits); walking on until a value falls below n permutes [0, n).
  // The domain is less than 4 n, so fewer than four rounds of the network on average.
  do {
    uint64_t left = i >> half_bits_, right = i & mask;
    for (uint64_t key : keys_) {
      uint64_t next = left ^ (mix64(right ^ key) >> (64 - half_bits_));
      left = right;
      right = next;
    }
    i = left << half_bits_ | right;
  } while (i >= n_);
  return i;
}

bool held_out(uint64_t sample, double fraction, uint64_t seed) {
  uint64_t key = mix64(seed ^ static_cast<uint64_t>(Stream::kSplit) << 56);
  return static_cast<double>(mix64(sample ^ key) >> 11) * 0x1p-53 < fraction;
}

}  // namespace lehr::data
