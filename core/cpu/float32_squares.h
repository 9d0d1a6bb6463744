// Squared norms that are summed in float32 while a row is at hand for something else: not as close
// as those of core/search/row_kernels.h, in a fraction of the time.
#pragma once

namespace tiny_knn {

// Their relative error: at most eight roundings to float32, and what underflows is nothing beside a
// sum as great as IsSquaredNorm wants it. docs/exactness.md has the derivation.
inline constexpr double kSquaredNormError = 0x1p-20;
// Whether nothing overflowed, nor so much underflowed that it counts. False for NaN.
inline bool IsSquaredNorm(double squared_norm) {
  return squared_norm > 0x1p-60 && squared_norm < 0x1p125;
}

}  // namespace tiny_knn
