// What result files of every format share when they are written: two arrays of fixed sizes, and
// rows that go to their places.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/atomic_file.h"
#include "core/io/result.h"

namespace tiny_knn {

// Bytes of both arrays.
struct ResultSizes {
  int64_t indices_bytes = 0;
  int64_t scores_bytes = 0;
};

// InvalidArgument, naming `path`, for scores of another type than float32 and float64, and for
// arrays that are larger than any file.
absl::StatusOr<ResultSizes> SizesOf(const std::string& path, const ResultMetadata& metadata);

// Writes rows at their places in a file that holds both arrays, row-major, from the given offsets
// on. Thread-compatible.
class ResultRows {
 public:
  ResultRows(std::unique_ptr<AtomicFile> file, const ResultMetadata& metadata,
             int64_t indices_offset, int64_t scores_offset);

  // As ResultWriter::WriteRows, in any order.
  absl::Status Write(int64_t first_query, int64_t num_queries, const int64_t* indices,
                     const void* scores);
  // FailedPrecondition where a row is missing.
  absl::Status CheckComplete() const;
  // CheckComplete, and the file's.
  absl::Status Commit();

  AtomicFile& file() { return *file_; }
  int64_t score_size() const { return score_size_; }
  int64_t k() const { return k_; }

 private:
  void MarkWritten(int64_t first, int64_t end);

  std::unique_ptr<AtomicFile> file_;
  int64_t num_queries_;
  int64_t k_;
  int64_t score_size_;  // bytes
  int64_t indices_offset_;
  int64_t scores_offset_;
  std::map<int64_t, int64_t> written_;  // disjoint ranges of rows, first -> end
};

}  // namespace tiny_knn
