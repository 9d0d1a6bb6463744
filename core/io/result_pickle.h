// A result as the original tool's .pkl, written without a second copy of the arrays, and read
// back without unpickling anything general.
//
// A dict with, in this order: `indices` (Q, k) int64, `scores` (Q, k) float32 (float64 for
// --dtype float64), `queries_path`, `docs_path`, `k`, `batch_size`, `dtype`, `device`, and after
// them the other fields of VisitResultFields (core/io/result.h). Pickle protocol 4 without frames;
// only the globals numpy.core.multiarray._reconstruct, numpy.ndarray and numpy.dtype appear.
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

// Query rows may be written in any order. Thread-compatible.
class ResultPickleWriter final : public ResultWriter {
 public:
  static absl::StatusOr<std::unique_ptr<ResultPickleWriter>> Create(
      const std::string& path, const ResultMetadata& metadata,
      const AtomicFileOptions& options = {});
  ~ResultPickleWriter() override;

  absl::Status WriteRows(int64_t first_query, int64_t num_queries, const int64_t* indices,
                         const void* scores) override;
  absl::Status Commit() override;

 private:
  struct State;
  explicit ResultPickleWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Reads a result written by ResultPickleWriter or by Python's pickle of the same dict (protocols 2
// to 5, numpy arrays of int64 / float32 / float64, C order): a small machine that knows the opcodes
// of such a file and numpy's globals (pickle_machine.h), and refuses everything else
// (InvalidArgument). Never runs code. Metadata keys that are missing are left at their defaults;
// num_queries, k and score_dtype are those of the arrays.
// From memory; errors do not name a file. ReadResult (core/io/result_file.h) reads files.
// The view is valid as long as the bytes and its own storage.
absl::StatusOr<ResultView> ParseResultPickle(std::span<const uint8_t> bytes);

}  // namespace tiny_knn
