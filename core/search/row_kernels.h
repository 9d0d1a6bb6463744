// Vector loops over one or two rows, in float64, for every instruction set (Highway's dynamic
// dispatch). Sums are in no particular order: callers own the error bounds. Thread-safe.
//
// Each sum of n terms has a chain of at most n additions, so in float64 its error is at most
// (n + 8) * 2^-53 times the sum of the terms' magnitudes; products of floats are exact.
#pragma once

#include <cstdint>

#include "core/matrix/dtype.h"

namespace tiny_knn {

struct DotAndSquare {
  double dot;      // sum q_j d_j
  double squared;  // sum d_j d_j
};

// A sum as an unevaluated pair, |low| far below |high|.
struct PairSum {
  double high;
  double low;
};

// Rows [dim]; `q` holds a query's values widened to double.
double Dot(const double* q, const float* d, int64_t dim);
// dots[i] = Dot(q, rows[i]) for i < count, several at a time, of rows that hold elements of
// `stored`, which IsWidenedExactly to float32. While some are multiplied, the next ones are fetched
// into cache. The query is widened on the way: rows are many, and half of its bytes wait for cache.
void Dots(const float* q, const void* const* rows, DType stored, int64_t count, int64_t dim,
          double* dots);
DotAndSquare DotWithSquare(const double* q, const float* d, int64_t dim);
double SquaredDistance(const double* q, const float* d, int64_t dim);
double SquaredNorm(const float* row, int64_t dim);
double SquaredNorm(const double* row, int64_t dim);

// The same for doubles with compensation: T. Ogita, S. M. Rump, S. Oishi, "Accurate Sum and Dot
// Product", SIAM J. Sci. Comput. 26 (2005), algorithm Dot2, in lanes. Error at most
// 4 (n+8)^2 2^-106 sum |q_j d_j| + n 2^-1060 as long as nothing exceeds 2^990 in magnitude.
PairSum CompensatedDot(const double* q, const double* d, int64_t dim);
// Error at most 16 (n+8)^2 2^-106 times the sum, + n 2^-1060, under the same condition.
PairSum CompensatedSquaredDistance(const double* q, const double* d, int64_t dim);

}  // namespace tiny_knn
