// The result file: the original tool's .pkl, written without a second copy of the arrays, and read
// back without unpickling anything general.
//
// A dict with, in this order: `indices` (Q, k) int64, `scores` (Q, k) float32 (float64 for
// --dtype float64), `queries_path`, `docs_path`, `k`, `batch_size`, `dtype`, `device`, and after
// them `metric` and `tiny_knn_version`. Pickle protocol 4 without frames; only the globals
// numpy.core.multiarray._reconstruct, numpy.ndarray and numpy.dtype appear.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/atomic_file.h"
#include "core/matrix/dtype.h"

namespace tiny_knn {

struct ResultMetadata {
  int64_t num_queries = 0;
  int64_t k = 0;
  DType score_dtype = DType::kFloat32;  // kFloat32 or kFloat64
  std::string queries_path;             // as typed
  std::string docs_path;
  int64_t batch_size = 0;
  std::string dtype;   // compute dtype's name
  std::string device;  // "cpu" or "cuda"
  std::string metric;  // "ip", "cosine" or "l2"
  std::string tiny_knn_version;
};

// Writes one result through an AtomicFile. The layout is fixed at Create (both arrays' sizes are
// known), so query rows may be written in any order as they become final. Thread-compatible.
class ResultPickleWriter {
 public:
  static absl::StatusOr<std::unique_ptr<ResultPickleWriter>> Create(
      const std::string& path, const ResultMetadata& metadata,
      const AtomicFileOptions& options = {});
  ~ResultPickleWriter();

  // Rows [first_query, first_query + num_queries): indices int64 [num_queries, k], scores of
  // score_dtype [num_queries, k], both row-major.
  absl::Status WriteRows(int64_t first_query, int64_t num_queries, const int64_t* indices,
                         const void* scores);

  // Durable and visible under its name, once every row was written (FailedPrecondition otherwise).
  absl::Status Commit();

 private:
  struct State;
  explicit ResultPickleWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// A result read back. Arrays are row-major [num_queries, k]; float32 scores are widened exactly.
struct ResultFile {
  ResultMetadata metadata;
  std::vector<int64_t> indices;
  std::vector<double> scores;
};

// Reads a result written by ResultPickleWriter or by Python's pickle of the same dict (protocols 2
// to 5, numpy arrays of int64 / float32 / float64, C order): a small machine that knows the opcodes
// of such a file and numpy's globals (pickle_machine.h), and refuses everything else
// (InvalidArgument). Never runs code. Metadata keys that are missing are left at their defaults;
// num_queries, k and score_dtype are those of the arrays.
absl::StatusOr<ResultFile> ReadResultPickle(const std::string& path);

// The same from memory. Errors do not name a file.
absl::StatusOr<ResultFile> ParseResultPickle(std::span<const uint8_t> bytes);

}  // namespace tiny_knn
