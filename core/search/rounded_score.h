// Correctly rounded scores for almost the price of a float64 dot product: what every engine
// returns.
//
// Three steps, each only where the one before cannot tell (docs/exactness.md derives the bounds):
//   1. a float64 sum S with a proved bound E: done when S - E and S + E round to the same float;
//   2. a fixed-point sum in float64 that notices when it lost nothing: settles integer and sparse
//      data, whose exact sums often lie right between two floats;
//   3. exact integers (core/search/exact_score.h).
// For compute dtype float64, step 1 is a compensated sum, and step 2 does not exist.
#pragma once

#include <cstdint>
#include <vector>

#include "core/matrix/dtype.h"
#include "core/search/search.h"

namespace tiny_knn {

// A query as scoring wants it. Points to memory of others, which must outlive it.
template <typename T>
struct PreparedQuery {
  const T* values = nullptr;     // [dim]
  const double* wide = nullptr;  // [dim], the same values in double
  double norm = 0;               // upper bound on |q|; +inf or NaN when q is not finite
  double squared_norm = 0;       // sum q_j^2 in float64
};

// An upper bound on a row's Euclidean norm from its float64 SquaredNorm.
double NormUpperBound(double squared_norm, int64_t dim);

// `wide` must hold `values` widened (for double: may be the same pointer).
template <typename T>
PreparedQuery<T> PrepareQuery(const T* values, const double* wide, int64_t dim);

// The correctly rounded score of q and the row d [dim]. `doc_norm`: an upper bound on |d|, used by
// ip and by float64 l2; +inf is always right, and slow. Thread-safe. REQUIRES:
// ScopedFloatEnvironment on this thread.
template <typename T>
T RoundedScore(Metric metric, const PreparedQuery<T>& q, const T* d, double doc_norm, int64_t dim);

// The most rows that RoundedScores takes.
inline constexpr int64_t kMostRoundedScores = 16;

// scores[i] = RoundedScore of rows[i] and doc_norms[i], for i < count <= kMostRoundedScores, of
// rows that hold elements of `stored`, which IsWidenedExactly to float32: rows of several are read
// together, and without a copy. `scratch` is overwritten. Thread-safe under the same condition.
void RoundedScores(Metric metric, const PreparedQuery<float>& q, const void* const* rows,
                   DType stored, const double* doc_norms, int64_t count, int64_t dim,
                   std::vector<float>& scratch, float* scores);

}  // namespace tiny_knn
