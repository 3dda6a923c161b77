// Sums that do not depend on the order of their terms to any digit that matters: double-double
// (about 32 digits), so that merged ranks and a single pass round to the same double.
#pragma once

#include <cmath>

namespace lehr::metrics {

class Sum {
 public:
  Sum() = default;
  Sum(double high, double low) : high_(high), low_(low) {}
  void add(double x) {
    // Knuth's two-sum: total + error == high_ + x exactly
    const double total = high_ + x, part = total - high_;
    low_ += (high_ - (total - part)) + (x - part);
    high_ = total;
  }
  void add_product(double a, double b) {
    const double product = a * b;
    add(product);
    low_ += std::fma(a, b, -product);
  }
  void add(const Sum& other) {
    add(other.high_);
    low_ += other.low_;
  }
  double value() const { return high_ + low_; }
  double high() const { return high_; }
  double low() const { return low_; }

 private:
  double high_ = 0, low_ = 0;
};

}  // namespace lehr::metrics
