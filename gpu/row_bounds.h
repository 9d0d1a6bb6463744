// From a row's sums to what the screen needs to know of it, for docs (in a kernel) and queries (on
// the host) alike. docs/exactness.md has the derivation. All constexpr; whoever calls takes the
// square roots.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "core/search/certain_rounding.h"
#include "core/search/screen_rules.h"
#include "gpu/device_types.h"

namespace tiny_knn {

// The nearest number with 11 significant bits, ties to even, as TF32 hardware takes it whether it
// rounds or truncates. Overflows to an infinity, which happens in rows that bypass the screen only.
constexpr float RoundToTf32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7F800000u) == 0x7F800000u) return value;
  return std::bit_cast<float>((bits + 0xFFFu + (bits >> 13 & 1u)) & ~0x1FFFu);
}

// A row x whose GEMM row is a; x' is x, or x / |x| for cosine.
struct RowBounds {
  bool screened = false;
  float scale = 1;       // scale * a ~ x'
  double norm = 0;       // >= |x'|
  double gemm_norm = 0;  // >= |a| or |a| / |x|
  double residual = 0;   // >= |x - a| or |x - a| / |x|
};

// Norms of rows that cosine screens: beyond these, float32 sums of their products could lose what
// counts.
inline constexpr double kLeastCosineNorm = 0x1p-40;
inline constexpr double kGreatestCosineNorm = 0x1p40;

// `norm` and `residual`: roots of SquaredNormUpperBound times kRootSlack; `root`: of the squared
// norm itself.
constexpr RowBounds BoundsOfRow(bool is_cosine, double norm, double residual, double root) {
  RowBounds bounds;
  const bool finite = norm < std::numeric_limits<double>::infinity();  // false for NaN
  if (!is_cosine) {
    bounds.screened = finite && norm < kNormLimit;
    bounds.norm = norm;
    bounds.residual = residual;
    bounds.gemm_norm = norm + residual;
    return bounds;
  }
  if (norm == 0) {  // scores 0 whatever the other row is
    bounds.screened = true;
    bounds.scale = 0;
    return bounds;
  }
  bounds.screened = finite && norm >= kLeastCosineNorm && norm < kGreatestCosineNorm;
  if (!bounds.screened) return bounds;
  bounds.scale = static_cast<float>(1 / root);
  bounds.norm = 1;
  bounds.residual = residual / root * (1 + 0x1p-40);
  bounds.gemm_norm = 1 + bounds.residual;
  return bounds;
}

// What the kernels ask of a doc. `squared_norm`: the float64 sum; `norm` as above.
constexpr DocScreen ScreenOfDoc(const RowBounds& row, bool is_l2, double squared_norm,
                                int64_t dim) {
  if (!row.screened) {
    return {1, std::numeric_limits<float>::infinity(), 0, OffsetsOfBypass().upper};
  }
  return {row.scale, RoundUp(row.gemm_norm), RoundUp(row.residual),
          is_l2 ? OffsetsForL2(squared_norm, dim).upper : 0};
}
constexpr DocTail TailOfDoc(const RowBounds& row, bool is_l2, double squared_norm, double norm,
                            int64_t dim) {
  const float norm_bound = norm < std::numeric_limits<double>::infinity()
                               ? RoundUp(norm)
                               : std::numeric_limits<float>::infinity();
  if (!row.screened) return {OffsetsOfBypass().lower, norm_bound};
  return {is_l2 ? OffsetsForL2(squared_norm, dim).lower : 0, norm_bound};
}

}  // namespace tiny_knn
