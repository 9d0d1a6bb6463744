#include "core/search/rounded_score.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>
#include <vector>

#include "core/matrix/stored_elements.h"
#include "core/search/certain_rounding.h"
#include "core/search/exact_score.h"
#include "core/search/row_kernels.h"

namespace tiny_knn {
namespace {

// RoundIfCertain for an unevaluated pair. The addition that rounds is the one being tested.
std::optional<double> RoundPairIfCertain(const PairSum& sum, double error) {
  const double slack = error + std::abs(sum.low) * 0x1p-50;
  const double low = sum.high + (sum.low - slack);
  const double high = sum.high + (sum.low + slack);
  if (low == high) return low + 0.0;
  return std::nullopt;
}

// Step 2: the sum of `dim` terms term(j), each exact in float64 (or nothing when it is not), if
// adding them to a fixed-point accumulator loses no bit; `bound` is at least the sum of their
// magnitudes. The accumulator stays in one binade, [2^(e+1), 2^(e+2)], so its unit never changes
// and the part of a term that it cannot hold is seen at once.
template <typename Term>
std::optional<double> SumIfExact(int64_t dim, double bound, Term term) {
  if (!(bound < 0x1p1000) || bound == 0) return std::nullopt;
  const double start = std::ldexp(1.5, std::ilogb(bound) + 2);  // 3 * 2^e with 2^e > bound
  double sum = start;
  for (int64_t j = 0; j < dim; ++j) {
    const std::optional<double> value = term(j);
    if (!value.has_value()) return std::nullopt;
    const double next = sum + *value;
    if (next - sum != *value) return std::nullopt;
    sum = next;
  }
  return sum - start;
}

std::optional<float> RoundIfSumIsExact(std::optional<double> sum) {
  if (!sum.has_value()) return std::nullopt;
  return static_cast<float>(*sum) + 0.0F;
}

float Canonical(double non_finite) {
  return std::isnan(non_finite) ? CanonicalNan<float>() : static_cast<float>(non_finite);
}

// Step 1. `sum`: of the products in float64, as Dot gives it.
std::optional<float> RoundInnerProductIfCertain(const PreparedQuery<float>& q, double sum,
                                                double doc_norm, int64_t dim) {
  if (!std::isfinite(sum)) return Canonical(sum);  // finite floats never overflow float64
  const double magnitude = q.norm * doc_norm;
  const double error = InnerProductError(dim, magnitude);
  return RoundIfCertain(sum, error);
}

// Steps 2 and 3.
float DoubtfulInnerProduct(const PreparedQuery<float>& q, const float* d, double doc_norm,
                           int64_t dim) {
  const double magnitude = q.norm * doc_norm;
  const auto product = [&](int64_t j) -> std::optional<double> {
    return q.wide[j] * static_cast<double>(d[j]);
  };
  if (const auto score = RoundIfSumIsExact(SumIfExact(dim, magnitude, product))) return *score;
  return ExactScore(Metric::kInnerProduct, q.values, d, dim);
}

float RoundedInnerProduct(const PreparedQuery<float>& q, const float* d, double doc_norm,
                          int64_t dim) {
  const auto score = RoundInnerProductIfCertain(q, Dot(q.wide, d, dim), doc_norm, dim);
  return score.has_value() ? *score : DoubtfulInnerProduct(q, d, doc_norm, dim);
}

float RoundedL2(const PreparedQuery<float>& q, const float* d, int64_t dim) {
  const double sum = SquaredDistance(q.wide, d, dim);
  if (!std::isfinite(sum)) return Canonical(-sum);
  const double error = SquaredDistanceError(dim, sum);
  if (const auto score = RoundIfCertain(-sum, error)) return *score;
  const auto minus_square = [&](int64_t j) -> std::optional<double> {
    const double value = static_cast<double>(d[j]);
    const double difference = q.wide[j] - value;
    if (q.wide[j] - difference != value || difference + value != q.wide[j]) return std::nullopt;
    const double square = difference * difference;
    if (std::fma(difference, difference, -square) != 0) return std::nullopt;
    return -square;
  };
  if (const auto score = RoundIfSumIsExact(SumIfExact(dim, sum + error, minus_square))) {
    return *score;
  }
  return ExactScore(Metric::kL2, q.values, d, dim);
}

float RoundedCosine(const PreparedQuery<float>& q, const float* d, int64_t dim) {
  const DotAndSquare sums = DotWithSquare(q.wide, d, dim);
  if (!std::isfinite(q.squared_norm) || !std::isfinite(sums.squared)) return CanonicalNan<float>();
  if (q.squared_norm == 0 || sums.squared == 0) return 0;  // squares of floats never underflow
  const double cosine = sums.dot / std::sqrt(q.squared_norm * sums.squared);
  const double error = CosineError(dim);
  if (const auto score = RoundIfCertain(cosine, error)) return *score;
  // Rows that share no component, as sparse ones often do, are exactly orthogonal.
  const auto product = [&](int64_t j) -> std::optional<double> {
    return q.wide[j] * static_cast<double>(d[j]);
  };
  const double magnitude = q.norm * NormUpperBound(sums.squared, dim);
  if (SumIfExact(dim, magnitude, product) == 0.0) return 0;
  return ExactScore(Metric::kCosine, q.values, d, dim);
}

// Beyond these the splitting of CompensatedDot may overflow or its errors underflow.
bool IsCompensationSafe(const PairSum& sum, double bound) {
  return std::isfinite(sum.high) && std::isfinite(sum.low) && bound < 0x1p990;
}

double RoundedDoubleScore(Metric metric, const PreparedQuery<double>& q, const double* d,
                          double doc_norm, int64_t dim) {
  const double terms = static_cast<double>(dim + 8);
  const double underflow = static_cast<double>(dim) * 0x1p-1060;
  if (metric == Metric::kInnerProduct && q.norm < 0x1p480 && doc_norm < 0x1p480) {
    const PairSum sum = CompensatedDot(q.wide, d, dim);
    const double bound = q.norm * doc_norm;
    const double error = 4 * terms * terms * 0x1p-106 * bound + underflow;
    if (IsCompensationSafe(sum, bound)) {
      if (const auto score = RoundPairIfCertain(sum, error)) return *score;
    }
  }
  if (metric == Metric::kL2 && q.norm < 0x1p480 && doc_norm < 0x1p480) {
    const PairSum sum = CompensatedSquaredDistance(q.wide, d, dim);
    const double error = 16 * terms * terms * 0x1p-106 * sum.high + underflow;
    if (IsCompensationSafe(sum, sum.high)) {
      if (const auto score = RoundPairIfCertain({-sum.high, -sum.low}, error)) return *score;
    }
  }
  return ExactScore(metric, q.values, d, dim);
}

}  // namespace

double NormUpperBound(double squared_norm, int64_t dim) {
  return std::sqrt(SquaredNormUpperBound(squared_norm, dim)) * kRootSlack;
}

template <typename T>
PreparedQuery<T> PrepareQuery(const T* values, const double* wide, int64_t dim) {
  const double squared_norm = SquaredNorm(values, dim);
  return {values, wide, NormUpperBound(squared_norm, dim), squared_norm};
}

template <>
float RoundedScore<float>(Metric metric, const PreparedQuery<float>& q, const float* d,
                          double doc_norm, int64_t dim) {
  switch (metric) {
    case Metric::kInnerProduct:
      return RoundedInnerProduct(q, d, doc_norm, dim);
    case Metric::kCosine:
      return RoundedCosine(q, d, dim);
    case Metric::kL2:
      break;
  }
  return RoundedL2(q, d, dim);
}

template <>
double RoundedScore<double>(Metric metric, const PreparedQuery<double>& q, const double* d,
                            double doc_norm, int64_t dim) {
  return RoundedDoubleScore(metric, q, d, doc_norm, dim);
}

void RoundedScores(Metric metric, const PreparedQuery<float>& q, const void* const* rows,
                   DType stored, const double* doc_norms, int64_t count, int64_t dim,
                   std::vector<float>& scratch, float* scores) {
  const auto values = [&](const void* row) -> const float* {
    const bool aligned = reinterpret_cast<uintptr_t>(row) % alignof(float) == 0;
    if (stored == DType::kFloat32 && aligned) return static_cast<const float*>(row);
    scratch.resize(static_cast<size_t>(dim));
    WidenRow(row, stored, dim, scratch.data());
    return scratch.data();
  };
  if (metric != Metric::kInnerProduct) {
    for (int64_t i = 0; i < count; ++i) {
      scores[i] = RoundedScore<float>(metric, q, values(rows[i]), doc_norms[i], dim);
    }
    return;
  }
  double sums[kMostRoundedScores];
  Dots(q.values, rows, stored, count, dim, sums);
  for (int64_t i = 0; i < count; ++i) {
    const auto score = RoundInnerProductIfCertain(q, sums[i], doc_norms[i], dim);
    scores[i] =
        score.has_value() ? *score : DoubtfulInnerProduct(q, values(rows[i]), doc_norms[i], dim);
  }
}

template PreparedQuery<float> PrepareQuery<float>(const float*, const double*, int64_t);
template PreparedQuery<double> PrepareQuery<double>(const double*, const double*, int64_t);

}  // namespace tiny_knn
