#include "engine/base/random.h"

#include <cmath>

namespace lehr {

float Random::normal() {
  float u = 1.0f - uniform(), v = uniform();  // u in (0, 1]
  return std::sqrt(-2.0f * std::log(u)) * std::cos(6.283185307179586f * v);
}

}  // namespace lehr
