#include "cli/matrix_stats.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "core/matrix/convert.h"

namespace tiny_knn {
namespace {

constexpr int64_t kChunkBytes = 4 << 20;

void AddRow(std::span<const double> row, MatrixStats& stats) {
  bool nan = false, inf = false;
  double largest = 0, squares = 0;
  for (double value : row) {
    nan |= std::isnan(value);
    inf |= std::isinf(value);
    largest = std::max(largest, std::fabs(value));
    squares += value * value;
  }
  stats.rows_with_nan += nan;
  stats.rows_with_inf += inf;
  if (nan || inf) return;
  stats.zero_rows += largest == 0;

  double norm = std::sqrt(squares);
  // Outside of this range squares overflow, or lose bits below the least normal number.
  if (largest > 0 && (largest > 1e140 || largest < 1e-140)) {
    squares = 0;
    for (double value : row) squares += (value / largest) * (value / largest);
    norm = largest * std::sqrt(squares);
  }
  stats.min_norm = std::min(stats.min_norm, norm);
  stats.max_norm = std::max(stats.max_norm, norm);
  ++stats.finite_rows;
  stats.mean_norm += (norm - stats.mean_norm) / static_cast<double>(stats.finite_rows);
}

}  // namespace

absl::StatusOr<MatrixStats> ComputeMatrixStats(RowSource& source) {
  MatrixStats stats;
  stats.min_norm = std::numeric_limits<double>::infinity();
  const int64_t dim = source.dim();
  const int64_t row_bytes = std::max<int64_t>(1, dim) * static_cast<int64_t>(sizeof(double));
  const int64_t chunk_rows = std::max<int64_t>(1, kChunkBytes / row_bytes);
  std::vector<double> values(static_cast<size_t>(std::min(chunk_rows, source.rows()) * dim));
  ConvertCounts ignored;
  for (int64_t begin = 0; begin < source.rows(); begin += chunk_rows) {
    const int64_t end = std::min(begin + chunk_rows, source.rows());
    absl::StatusOr<MatrixView> rows = source.Rows(begin, end);
    if (!rows.ok()) return rows.status();
    absl::Status status =
        ConvertRows<double>(*rows, DType::kFloat64, begin, values.data(), dim, ignored);
    if (!status.ok()) return status;
    source.Release();
    for (int64_t i = 0; i < end - begin; ++i) {
      AddRow(std::span(values).subspan(static_cast<size_t>(i * dim), static_cast<size_t>(dim)),
             stats);
    }
  }
  absl::Status status = source.CheckUnchanged();
  if (!status.ok()) return status;
  return stats;
}

}  // namespace tiny_knn
