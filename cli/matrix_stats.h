// What `tiny-knn info` counts in a matrix.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/row_source.h"

namespace tiny_knn {

struct MatrixStats {
  int64_t rows_with_nan = 0;
  int64_t rows_with_inf = 0;
  int64_t zero_rows = 0;  // every element is zero
  // Euclidean norms of the rows that are finite; meaningless when finite_rows is 0.
  int64_t finite_rows = 0;
  double min_norm = 0;
  double mean_norm = 0;
  double max_norm = 0;
};

// Reads every row once, a few megabytes at a time. Errors are those of `source`. Not
// thread-safe.
absl::StatusOr<MatrixStats> ComputeMatrixStats(RowSource& source);

}  // namespace tiny_knn
