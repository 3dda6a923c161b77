// How the samples of an epoch are spread over several sources: each has its exact share, evenly all
// along the epoch, and which sample is where is a function of its number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace lehr::data {

class Mixture {
 public:
  struct Sample {
    size_t source;
    int64_t number;  // within the source, from 0 to its count
  };
  Mixture() = default;
  explicit Mixture(std::vector<int64_t> counts);  // samples an epoch, of each source
  Sample at(int64_t i) const;                     // i in [0, size())
  int64_t size() const { return size_; }
  int64_t count(size_t source) const { return counts_[source]; }

 private:
  int64_t place(size_t source, int64_t k) const;
  std::vector<int64_t> counts_;
  int64_t size_ = 0;
};

// `total` in whole parts by weight, the largest remainders rounded up.
std::vector<int64_t> shares(int64_t total, const std::vector<double>& weights);

}  // namespace lehr::data
