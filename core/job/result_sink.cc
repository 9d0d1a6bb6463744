#include "core/job/result_sink.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/search/canonical_nan.h"

namespace tiny_knn {
namespace {

using Clock = std::chrono::steady_clock;

class SelfDroppingWriter : public ResultWriter {
 public:
  SelfDroppingWriter(std::unique_ptr<ResultWriter> writer, int64_t k, DType score_dtype)
      : writer_(std::move(writer)), k_(k), score_dtype_(score_dtype) {}

  absl::Status WriteRows(int64_t first_query, int64_t num_queries, const int64_t* indices,
                         const void* scores) override {
    if (score_dtype_ == DType::kFloat64) {
      return WriteAs(first_query, num_queries, indices, static_cast<const double*>(scores));
    }
    return WriteAs(first_query, num_queries, indices, static_cast<const float*>(scores));
  }
  absl::Status Commit() override { return writer_->Commit(); }

 private:
  // A row at a time: rows are short here.
  template <typename T>
  absl::Status WriteAs(int64_t first_query, int64_t num_queries, const int64_t* indices,
                       const T* scores) {
    std::vector<int64_t> kept_indices;
    std::vector<T> kept_scores;
    for (int64_t row = 0; row < num_queries; ++row) {
      const int64_t query = first_query + row;
      kept_indices.clear();
      kept_scores.clear();
      for (int64_t i = row * k_; i < (row + 1) * k_; ++i) {
        if (indices[i] == query) continue;
        kept_indices.push_back(indices[i]);
        kept_scores.push_back(scores[i]);
      }
      kept_indices.resize(static_cast<size_t>(k_), -1);
      kept_scores.resize(static_cast<size_t>(k_), CanonicalNan<T>());
      const absl::Status written =
          writer_->WriteRows(query, 1, kept_indices.data(), kept_scores.data());
      if (!written.ok()) return written;
    }
    return absl::OkStatus();
  }

  const std::unique_ptr<ResultWriter> writer_;
  const int64_t k_;
  const DType score_dtype_;
};

}  // namespace

ResultSink::ResultSink(ResultWriter& writer, std::vector<int64_t> keep)
    : writer_(writer), keep_(std::move(keep)) {}

absl::Status ResultSink::Take(int64_t first_query, const TopKView& results) {
  const Clock::time_point start = Clock::now();
  const size_t row_bytes =
      static_cast<size_t>(results.k) * static_cast<size_t>(ItemSize(results.score_dtype));
  const auto* scores = static_cast<const std::byte*>(results.scores);
  const auto begin = std::lower_bound(keep_.begin(), keep_.end(), first_query);
  const auto end = std::lower_bound(begin, keep_.end(), first_query + results.num_queries);
  for (auto query = begin; query != end; ++query) {
    const int64_t row = *query - first_query;
    Row& kept = rows_[*query];
    const int64_t* indices = results.indices + row * results.k;
    kept.indices.assign(indices, indices + results.k);
    const std::byte* row_scores = scores + static_cast<size_t>(row) * row_bytes;
    kept.scores.assign(row_scores, row_scores + row_bytes);
  }
  absl::Status status =
      writer_.WriteRows(first_query, results.num_queries, results.indices, results.scores);
  if (status.ok() && checkpoint_ != nullptr) status = checkpoint_->Append(results);
  seconds_ += std::chrono::duration<double>(Clock::now() - start).count();
  return status;
}

std::unique_ptr<ResultWriter> MakeSelfDroppingWriter(std::unique_ptr<ResultWriter> writer,
                                                     int64_t k, DType score_dtype) {
  return std::make_unique<SelfDroppingWriter>(std::move(writer), k, score_dtype);
}

}  // namespace tiny_knn
