// What a result file holds, whatever its format, and what writes one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
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

// Writes one result through an AtomicFile. The layout is fixed when it is made (both arrays' sizes
// are known), so that query rows go where they belong as they become final, without a second copy.
class ResultWriter {
 public:
  virtual ~ResultWriter() = default;

  // Rows [first_query, first_query + num_queries): indices int64 [num_queries, k], scores of
  // score_dtype [num_queries, k], both row-major.
  virtual absl::Status WriteRows(int64_t first_query, int64_t num_queries, const int64_t* indices,
                                 const void* scores) = 0;

  // Durable and visible under its name, once every row was written (FailedPrecondition otherwise).
  virtual absl::Status Commit() = 0;
};

// A result read back. Arrays are row-major [num_queries, k]; float32 scores are widened exactly.
struct ResultFile {
  ResultMetadata metadata;
  std::vector<int64_t> indices;
  std::vector<double> scores;
};

}  // namespace tiny_knn
