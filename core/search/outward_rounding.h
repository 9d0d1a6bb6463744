// Doubles to floats on the side where a bound stays a bound, and the next number down. All
// constexpr, so that kernels evaluate the same source as the host.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace tiny_knn {

// The greatest number below x; -inf for -inf, NaN for NaN. T is float or double.
template <typename T>
constexpr T NextBelow(T x) {
  using Bits = std::conditional_t<std::is_same_v<T, double>, uint64_t, uint32_t>;
  if (!(x > -std::numeric_limits<T>::infinity())) return x;
  if (x == 0) return -std::numeric_limits<T>::denorm_min();
  const Bits bits = std::bit_cast<Bits>(x);
  return std::bit_cast<T>(x > 0 ? bits - 1 : bits + 1);
}

// The greatest float not above x, the least not below it.
constexpr float RoundDown(double x) {
  const float nearest = static_cast<float>(x);
  return static_cast<double>(nearest) > x ? NextBelow(nearest) : nearest;
}
constexpr float RoundUp(double x) { return -RoundDown(-x); }
// Not below x, and at most three units above it, for x that is 0 or at least 2^-126: without the
// comparison, which nothing can predict.
constexpr float RoundUpLoosely(double x) { return static_cast<float>(x * (1 + 0x1p-23)); }

}  // namespace tiny_knn
