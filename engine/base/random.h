// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011). A draw is a pure function
// of a key and a counter, so it does not depend on threads, ranks, workers or restarts.
#pragma once

#include <array>
#include <cstdint>

namespace lehr {

inline std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    uint64_t p0 = 0xD2511F53ull * counter[0], p1 = 0xCD9E8D57ull * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ k0, static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return counter;
}

// What a stream of draws is for; part of the key, so that two uses never share draws.
enum class Stream : uint32_t {
  kOrder = 1,
  kAugment = 2,
  kDropout = 3,
  kInit = 4,
  kSplit = 5,
  kGenerate = 6,
  kTest = 99
};

// splitmix64 finaliser: turns any 64 bits into well-mixed ones.
inline uint64_t mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// The draws of one (seed, stream, a, b), in order: Random(seed, Stream::kAugment, sample, epoch).
class Random {
 public:
  Random(uint64_t seed, Stream stream, uint64_t a, uint64_t b = 0)
      : key_(mix64(seed ^ (static_cast<uint64_t>(stream) << 56)) ^
             mix64(b * 0xD6E8FEB86659FD93ull + 1)),
        counter_{0, 0, static_cast<uint32_t>(a), static_cast<uint32_t>(a >> 32)} {}
  uint32_t bits() {
    if (used_ == 4) {
      block_ = philox4x32(counter_, key_);
      if (++counter_[0] == 0) ++counter_[1];
      used_ = 0;
    }
    return block_[used_++];
  }
  uint64_t bits64() {
    uint64_t high = bits();
    return high << 32 | bits();
  }
  // uniform in [0, 1), 24 bits
  float uniform() { return static_cast<float>(bits() >> 8) * 0x1p-24f; }
  // uniform in [0, n), n >= 1, n <= 2^32: multiply-shift, bias below n / 2^32
  uint32_t below(uint32_t n) {
    return static_cast<uint32_t>((static_cast<uint64_t>(bits()) * n) >> 32);
  }
  // standard normal (Box-Muller)
  float normal();

 private:
  uint64_t key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> block_{};
  int used_ = 4;
};

}  // namespace lehr
