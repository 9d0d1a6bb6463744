// What every screen has in common, whatever it multiplies and wherever it runs: its units, the
// thresholds and certain scores in them, and the slack that evaluating its comparison in float32
// takes.
//
// A screen works in units G, monotone in the score for a given query:
//   ip      G = q.d                    score = G
//   cosine  G = q.d / (|q| |d|)        score = G
//   l2      G = q.d - |d|^2 / 2        score = 2 G - |q|^2
// docs/exactness.md derives the numbers. All constexpr, so that kernels evaluate the same source as
// the host.
#pragma once

#include <cstdint>
#include <limits>

#include "core/search/outward_rounding.h"

namespace tiny_knn {

// Slack for evaluating the comparison itself in float32: at most three roundings of terms whose
// magnitudes sum to a few times |q||d|.
inline constexpr double kEvaluationSlack = 0x1p-21;
// Rows of this norm or more could overflow a float32 sum.
inline constexpr double kNormLimit = 0x1p63;
// A subnormal that is flushed or rounded away costs less than half of this.
inline constexpr double kUnderflow = 0x1p-125;

// The error of a float32 dot product of `dim` terms, in any order, fused or not, as a share of
// |q||d|.
constexpr double Float32DotError(int64_t dim) {
  const double roundings = static_cast<double>(dim + 8) * 0x1p-24;
  // Beyond about four million dims float32 says too little: everything is kept.
  return roundings < 0.25 ? roundings / (1 - roundings) * 1.001
                          : std::numeric_limits<double>::infinity();
}

// What turns a query's scores into the units of its screen, and back.
struct QueryUnits {
  bool screened = false;  // false: nothing is known of the query's approximate scores
  bool is_l2 = false;
  double absolute_error = 0;      // what the comparison's error leaves out
  double squared_norm = 0;        // l2 only
  double squared_norm_error = 0;  // bound on the error of squared_norm
};

// The squared norm of an l2 query, a float64 sum, in its units.
constexpr void SetSquaredNorm(double squared_norm, int64_t dim, QueryUnits& units) {
  const double n = static_cast<double>(dim);
  units.squared_norm = squared_norm;
  units.squared_norm_error = (n + 8) * 0x1p-52 * squared_norm + n * 0x1p-1060;
}

// The threshold in G below which no upper bound can belong to a doc whose score ranks at or above
// `score`, a correctly rounded score; ties are kept. -inf when nothing may be dropped. T is float
// or double.
template <typename T>
constexpr float ThresholdFor(const QueryUnits& units, T score) {
  if (!(score > -std::numeric_limits<T>::infinity()) || !units.screened) {
    return -std::numeric_limits<float>::infinity();
  }
  // A real that is at most the next score down rounds to less than `score`: no tie is lost.
  double least = static_cast<double>(NextBelow(score));
  if (units.is_l2) {
    const double rounding = 0x1p-50 * ((least < 0 ? -least : least) + units.squared_norm);
    least = (least + units.squared_norm - units.squared_norm_error - rounding) / 2;
  }
  const double magnitude = least < 0 ? -least : least;
  return RoundDown(least - kEvaluationSlack * magnitude - units.absolute_error - 0x1p-140);
}

// A score that every doc with at least this lower bound certainly reaches. T is float or double.
template <typename T>
constexpr T CertainScore(const QueryUnits& units, float lower) {
  double certain = static_cast<double>(lower) - units.absolute_error;
  certain -= 0x1p-50 * (certain < 0 ? -certain : certain);
  if (units.is_l2) {
    const double magnitude = certain < 0 ? -certain : certain;
    const double rounding = 0x1p-50 * (2 * magnitude + units.squared_norm);
    certain = 2 * certain - units.squared_norm - units.squared_norm_error - rounding;
  }
  if (!(certain > -std::numeric_limits<double>::infinity())) {
    return -std::numeric_limits<T>::infinity();
  }
  if constexpr (sizeof(T) == sizeof(double)) {
    return certain;
  } else {
    return RoundDown(certain);
  }
}

// What is added to an approximate dot product to get G, rounded outwards.
struct DocOffsets {
  float upper = 0;
  float lower = 0;
};

// -|d|^2 / 2 for l2, where `squared_norm` is a float64 sum, or has a relative error `norm_error`
// beside that of one.
constexpr DocOffsets OffsetsForL2(double squared_norm, int64_t dim, double norm_error = 0) {
  const double half = squared_norm / 2;
  const double error =
      (2 * kEvaluationSlack + norm_error + static_cast<double>(dim + 8) * 0x1p-52) * half +
      0x1p-140;
  return {RoundUp(-half + error), RoundDown(-half - error)};
}

// Of a row that the screen cannot bound: it survives every comparison and certifies nothing.
constexpr DocOffsets OffsetsOfBypass() {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  return {kInfinity, -kInfinity};
}

}  // namespace tiny_knn
