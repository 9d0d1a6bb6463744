// Step 1 of a correctly rounded score (core/search/rounded_score.h): which float a float64 sum and
// the bound on its error prove, if one. All constexpr, so that kernels evaluate the same source as
// the host.
#pragma once

#include <cstdint>
#include <optional>

namespace tiny_knn {

// Relative rounding error of one float64 operation.
inline constexpr double kHalfUlp = 0x1p-53;

// The float that every real in [sum - error, sum + error] rounds to, if there is one. Zeros come
// out as +0.
constexpr std::optional<float> RoundIfCertain(double sum, double error) {
  const float low = static_cast<float>(sum - error);
  const float high = static_cast<float>(sum + error);
  if (low == high) return low + 0.0F;
  return std::nullopt;
}

// Bounds on the errors of float64 sums of `dim` terms in any order; `magnitude` is at least |q|
// |d|.
constexpr double InnerProductError(int64_t dim, double magnitude) {
  return static_cast<double>(dim + 8) * kHalfUlp * magnitude;
}
constexpr double SquaredDistanceError(int64_t dim, double sum) {
  return static_cast<double>(dim + 8) * kHalfUlp * sum;
}
// Of dot / sqrt(qq * dd), absolute.
constexpr double CosineError(int64_t dim) { return static_cast<double>(2 * dim + 16) * kHalfUlp; }

// The square of an upper bound on a row's norm, given its float64 sum of squares; the bound is its
// root times kRootSlack.
inline constexpr double kRootSlack = 1 + 0x1p-51;
constexpr double SquaredNormUpperBound(double squared_norm, int64_t dim) {
  // float64 sums of squares lose at most (dim + 8) half-ulps and, for doubles, underflow.
  const double relative = 1 + static_cast<double>(dim + 8) * 0x1p-52;
  const double lost = squared_norm > 0x1p-900 ? 0 : static_cast<double>(dim) * 0x1p-1060;
  return squared_norm == 0 && lost == 0 ? 0 : squared_norm * relative + lost;
}

}  // namespace tiny_knn
