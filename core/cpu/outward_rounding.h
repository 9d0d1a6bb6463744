// Doubles to floats on the side where a bound stays a bound.
#pragma once

#include <cmath>
#include <limits>

namespace tiny_knn {

// The greatest float not above x, the least not below it.
inline float RoundDown(double x) {
  const float nearest = static_cast<float>(x);
  return static_cast<double>(nearest) > x
             ? std::nextafter(nearest, -std::numeric_limits<float>::infinity())
             : nearest;
}
inline float RoundUp(double x) { return -RoundDown(-x); }

}  // namespace tiny_knn
