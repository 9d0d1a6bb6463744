#include "core/io/result_rows.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Bytes of an array, or nothing when they do not fit int64_t.
std::optional<int64_t> ArrayBytes(int64_t rows, int64_t columns, int64_t item) {
  // Room for the rest of the file too.
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max() / 4;
  if (rows < 0 || columns < 0) return std::nullopt;
  if (columns > 0 && rows > kMost / item / columns) return std::nullopt;
  return rows * columns * item;
}

}  // namespace

absl::StatusOr<ResultSizes> SizesOf(const std::string& path, const ResultMetadata& metadata) {
  if (metadata.score_dtype != DType::kFloat32 && metadata.score_dtype != DType::kFloat64) {
    return absl::InvalidArgumentError(fmt::format("{}: scores are {}, expected float32 or float64",
                                                  path, DTypeName(metadata.score_dtype)));
  }
  const auto indices = ArrayBytes(metadata.num_queries, metadata.k, 8);
  const auto scores = ArrayBytes(metadata.num_queries, metadata.k, ItemSize(metadata.score_dtype));
  if (!indices || !scores) {
    return absl::InvalidArgumentError(
        fmt::format("{}: a result of {} queries x k={} is larger than any file; use a smaller k",
                    path, metadata.num_queries, metadata.k));
  }
  return ResultSizes{*indices, *scores};
}

ResultRows::ResultRows(std::unique_ptr<AtomicFile> file, const ResultMetadata& metadata,
                       int64_t indices_offset, int64_t scores_offset)
    : file_(std::move(file)),
      num_queries_(metadata.num_queries),
      k_(metadata.k),
      score_size_(ItemSize(metadata.score_dtype)),
      indices_offset_(indices_offset),
      scores_offset_(scores_offset) {}

void ResultRows::MarkWritten(int64_t first, int64_t end) {
  auto next = written_.upper_bound(first);
  if (next != written_.begin() && std::prev(next)->second >= first) {
    --next;
    first = next->first;
  }
  while (next != written_.end() && next->first <= end) {
    end = std::max(end, next->second);
    next = written_.erase(next);
  }
  written_[first] = end;
}

absl::Status ResultRows::Write(int64_t first_query, int64_t num_queries, const int64_t* indices,
                               const void* scores) {
  if (first_query < 0 || num_queries < 0 || first_query > num_queries_ - num_queries) {
    return absl::InternalError(fmt::format("{}: rows [{}, {}+{}) written of {}",
                                           file_->target_path(), first_query, first_query,
                                           num_queries, num_queries_));
  }
  const int64_t first = first_query * k_;
  const auto count = static_cast<size_t>(num_queries * k_);
  const auto score_bytes = count * static_cast<size_t>(score_size_);
  absl::Status status =
      file_->WriteAt(indices_offset_ + first * 8, std::as_bytes(std::span(indices, count)));
  if (status.ok()) {
    status = file_->WriteAt(scores_offset_ + first * score_size_,
                            {static_cast<const std::byte*>(scores), score_bytes});
  }
  if (status.ok() && num_queries > 0) MarkWritten(first_query, first_query + num_queries);
  return status;
}

absl::Status ResultRows::CheckComplete() const {
  const bool complete =
      num_queries_ == 0 || (written_.size() == 1 && written_.begin()->first == 0 &&
                            written_.begin()->second == num_queries_);
  if (complete) return absl::OkStatus();
  return absl::FailedPreconditionError(
      fmt::format("{}: committed before every row was written", file_->target_path()));
}

absl::Status ResultRows::Commit() {
  absl::Status status = CheckComplete();
  return status.ok() ? file_->Commit() : status;
}

}  // namespace tiny_knn
