// What tests of searches with warm docs have in common.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/row_source.h"
#include "core/matrix/matrix_view.h"
#include "core/search/search.h"

namespace tiny_knn {

inline constexpr int64_t kDim = 37;

// Rows of memory; counts who asks for them, and for which.
class WatchedSource : public RowSource {
 public:
  WatchedSource(std::string name, const MatrixView& matrix, int64_t buffer_bytes = 0)
      : RowSource(std::move(name), matrix.dtype, matrix.rows, matrix.dim),
        matrix_(matrix),
        buffer_bytes_(buffer_bytes) {}

  absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) override {
    ++reads;
    largest_read = std::max(largest_read, end - begin);
    return matrix_.Slice(begin, end);
  }
  bool can_fetch_each() const override { return fetches_each; }
  absl::Status FetchEach(std::span<const int64_t> rows, std::byte* out) override {
    fetched += static_cast<int64_t>(rows.size());
    if (fetched > fetches_left) return absl::DataLossError("cut off");
    const int64_t row_bytes = dim() * ItemSize(dtype());
    for (const int64_t row : rows) {
      std::memcpy(out, matrix_.Row(row), static_cast<size_t>(row_bytes));
      out += row_bytes;
    }
    return absl::OkStatus();
  }
  void Release() override {}
  absl::Status CheckUnchanged() override {
    return checks_left-- > 0 ? absl::OkStatus() : absl::DataLossError("the file changed");
  }
  int64_t buffer_bytes_per_row() const override { return buffer_bytes_; }

  int reads = 0;
  int64_t largest_read = 0;
  int checks_left = std::numeric_limits<int>::max();
  bool fetches_each = false;
  std::atomic<int64_t> fetched = 0;
  int64_t fetches_left = std::numeric_limits<int64_t>::max();

 private:
  MatrixView matrix_;
  int64_t buffer_bytes_;
};

struct Results : TopKSink {
  absl::Status Take(int64_t, const TopKView& rows) override {
    if (--batches_left < 0) return absl::ResourceExhaustedError("disk full");
    indices.insert(indices.end(), rows.indices, rows.indices + rows.num_queries * rows.k);
    const auto* bytes = static_cast<const char*>(rows.scores);
    scores.insert(scores.end(), bytes,
                  bytes + rows.num_queries * rows.k * ItemSize(rows.score_dtype));
    return absl::OkStatus();
  }
  std::vector<int64_t> indices;
  std::vector<char> scores;
  int batches_left = std::numeric_limits<int>::max();
};

inline std::vector<float> GaussianRows(int64_t rows, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(rows * kDim));
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace tiny_knn
