// Result files of every format: which one is written, and how one of any is read.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/atomic_file.h"
#include "core/io/result.h"

namespace tiny_knn {

class MappedFile;

// .npz where the file's name ends so, else the original's pickle (core/io/result_pickle.h). Rows
// have to be written in order. Errors as AtomicFile::Create, and InvalidArgument for arrays larger
// than any file.
absl::StatusOr<std::unique_ptr<ResultWriter>> CreateResultWriter(
    const std::string& path, const ResultMetadata& metadata, const AtomicFileOptions& options = {});

// Whether bytes that begin so may be a result: a pickle of protocol 2 to 5, or a zip.
bool LooksLikeResult(std::span<const uint8_t> start);

// A result in its file, mapped where that can be, so that one larger than memory can be read row by
// row. Thread-compatible.
class OpenedResult {
 public:
  // As ReadResult.
  static absl::StatusOr<std::unique_ptr<OpenedResult>> Open(const std::string& path);
  ~OpenedResult();
  OpenedResult(const OpenedResult&) = delete;
  OpenedResult& operator=(const OpenedResult&) = delete;

  const std::string& path() const { return path_; }
  const ResultMetadata& metadata() const { return view_.metadata; }
  // Copies rows [first_query, first_query + num_queries): indices [num_queries, k], and scores of
  // the same shape, float32 ones widened exactly.
  void CopyRows(int64_t first_query, int64_t num_queries, int64_t* indices, double* scores) const;
  // DataLoss where something that was copied so far may not be what the file held.
  absl::Status CheckUnchanged() const;

 private:
  OpenedResult();
  std::string path_;
  std::unique_ptr<MappedFile> mapping_;
  std::vector<std::byte> storage_;
  ResultView view_;
};

// Reads a result of either format by its content: one that tiny-knn wrote, that Python pickled, or
// that numpy.savez saved with `indices` and `scores` (core/io/result_pickle.h, core/io/result_npz.h
// say what exactly). Never runs code. Errors name the file: NotFound, PermissionDenied,
// InvalidArgument (no such result), DataLoss (truncated while it was read), ResourceExhausted.
absl::StatusOr<ResultFile> ReadResult(const std::string& path);

}  // namespace tiny_knn
