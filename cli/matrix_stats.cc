#include "cli/matrix_stats.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include "core/matrix/convert.h"
#include "core/matrix/dtype.h"
#include "core/matrix/matrix_view.h"

namespace tiny_knn {
namespace {

constexpr int64_t kChunkValues = (4 << 20) / static_cast<int64_t>(sizeof(double));

// Adds one row to `stats`. `for_each_piece(use)` hands the row's values to `use`, a piece after the
// other, as often as it is called: a row may be longer than memory.
template <typename Pieces>
absl::Status AddRow(const Pieces& for_each_piece, MatrixStats& stats) {
  bool nan = false, inf = false;
  double largest = 0, squares = 0;
  absl::Status status = for_each_piece([&](std::span<const double> piece) {
    for (double value : piece) {
      nan |= std::isnan(value);
      inf |= std::isinf(value);
      largest = std::max(largest, std::fabs(value));
      squares += value * value;
    }
  });
  if (!status.ok()) return status;
  stats.rows_with_nan += nan;
  stats.rows_with_inf += inf;
  if (nan || inf) return absl::OkStatus();
  stats.zero_rows += largest == 0;

  double norm = std::sqrt(squares);
  // Outside of this range squares overflow, or lose bits below the least normal number.
  if (largest > 0 && (largest > 1e140 || largest < 1e-140)) {
    squares = 0;
    status = for_each_piece([&](std::span<const double> piece) {
      for (double value : piece) squares += (value / largest) * (value / largest);
    });
    if (!status.ok()) return status;
    norm = largest * std::sqrt(squares);
  }
  stats.min_norm = std::min(stats.min_norm, norm);
  stats.max_norm = std::max(stats.max_norm, norm);
  ++stats.finite_rows;
  stats.mean_norm += (norm - stats.mean_norm) / static_cast<double>(stats.finite_rows);
  return absl::OkStatus();
}

absl::Status Convert(const MatrixView& rows, std::vector<double>& values) {
  ConvertCounts ignored;
  return ConvertRows<double>(rows, DType::kFloat64, 0, values.data(), rows.dim, ignored);
}

// Adds the rows of `rows`, which are converted together: rows.rows * rows.dim fit `values`.
absl::Status AddRows(const MatrixView& rows, std::vector<double>& values, MatrixStats& stats) {
  absl::Status status = Convert(rows, values);
  const auto dim = static_cast<size_t>(rows.dim);
  for (size_t i = 0; status.ok() && i < static_cast<size_t>(rows.rows); ++i) {
    const auto whole = [&](const auto& use) {
      use(std::span(values).subspan(i * dim, dim));
      return absl::OkStatus();
    };
    status = AddRow(whole, stats);
  }
  return status;
}

// Adds the only row of `row`, as much of it at a time as fits `values`.
absl::Status AddLongRow(const MatrixView& row, std::vector<double>& values, MatrixStats& stats) {
  const auto pieces = [&](const auto& use) {
    const auto most = static_cast<int64_t>(values.size());
    MatrixView piece = row;
    for (int64_t begin = 0; begin < row.dim; begin += most) {
      piece.data = static_cast<const std::byte*>(row.data) + begin * ItemSize(row.dtype);
      piece.dim = std::min(most, row.dim - begin);
      absl::Status status = Convert(piece, values);
      if (!status.ok()) return status;
      use(std::span(values).first(static_cast<size_t>(piece.dim)));
    }
    return absl::OkStatus();
  };
  return AddRow(pieces, stats);
}

}  // namespace

absl::StatusOr<MatrixStats> ComputeMatrixStats(RowSource& source) {
  MatrixStats stats;
  const int64_t dim = source.dim();
  if (dim == 0 || source.rows() == 0) {
    // A header may claim any number of rows that have no elements.
    stats.zero_rows = stats.finite_rows = source.rows();
  } else {
    stats.min_norm = std::numeric_limits<double>::infinity();
    const int64_t chunk_rows =
        std::clamp<int64_t>(kChunkValues / dim, 1, std::min(source.rows(), kChunkValues));
    std::vector<double> values(static_cast<size_t>(chunk_rows * std::min(dim, kChunkValues)));
    for (int64_t begin = 0; begin < source.rows(); begin += chunk_rows) {
      const int64_t end = std::min(begin + chunk_rows, source.rows());
      absl::StatusOr<MatrixView> rows = source.Rows(begin, end);
      if (!rows.ok()) return rows.status();
      absl::Status status =
          dim > kChunkValues ? AddLongRow(*rows, values, stats) : AddRows(*rows, values, stats);
      if (!status.ok()) return status;
      source.Release();
    }
  }
  absl::Status status = source.CheckUnchanged();
  if (!status.ok()) return status;
  return stats;
}

}  // namespace tiny_knn
