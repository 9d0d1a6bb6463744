// What a result file holds, whatever its format, and what writes one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "core/matrix/dtype.h"

namespace tiny_knn {

// Which docs a result is of where it is one of several that are to be merged, and what tells which
// others it belongs with.
struct ResultPart {
  int64_t docs_begin = 0;  // docs [docs_begin, docs_end) were searched
  int64_t docs_end = 0;
  int64_t num_docs = 0;  // of num_docs; 0: this is no part, all docs were searched
  int64_t k_wanted = 0;  // of the whole: a part of fewer docs than that has a smaller k
  std::string queries_fingerprint = {};  // core/io/row_fingerprint.h; of all queries
  std::string docs_fingerprint = {};     // of a sample of all docs
};

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
  bool exclude_self = false;
  // Where docs came from several files, a line for each: "BEGIN\tEND\tNAME\n", the rows it has
  // among all docs and its name; else empty.
  std::string docs_manifest = {};
  ResultPart part = {};

  bool is_part() const { return part.num_docs > 0; }
};

// Calls visit(key, field) for every field that stands in a file behind the arrays, in that order.
// Fields are std::string, int64_t or bool, const where the metadata are. `all`: also those that
// this result has no use for.
template <typename Metadata, typename Visit>
void VisitResultFields(Metadata& metadata, bool all, const Visit& visit) {
  visit("queries_path", metadata.queries_path);
  visit("docs_path", metadata.docs_path);
  visit("k", metadata.k);
  visit("batch_size", metadata.batch_size);
  visit("dtype", metadata.dtype);
  visit("device", metadata.device);
  visit("metric", metadata.metric);
  visit("tiny_knn_version", metadata.tiny_knn_version);
  visit("exclude_self", metadata.exclude_self);
  if (all || !metadata.docs_manifest.empty()) visit("docs_manifest", metadata.docs_manifest);
  if (!all && !metadata.is_part()) return;
  auto& part = metadata.part;
  visit("docs_begin", part.docs_begin);
  visit("docs_end", part.docs_end);
  visit("num_docs", part.num_docs);
  visit("k_wanted", part.k_wanted);
  visit("queries_fingerprint", part.queries_fingerprint);
  visit("docs_fingerprint", part.docs_fingerprint);
}

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

// A result as it was found: both arrays as bytes, row-major [num_queries, k] in native byte order,
// indices of 8 bytes and scores of metadata.score_dtype, not aligned.
struct ResultView {
  ResultMetadata metadata;
  std::string_view indices;
  std::string_view scores;
  std::shared_ptr<const void> storage;  // holds what does not lie in the parsed bytes; may be null
};

// A result read back. Arrays are row-major [num_queries, k]; float32 scores are widened exactly.
struct ResultFile {
  ResultMetadata metadata;
  std::vector<int64_t> indices;
  std::vector<double> scores;
};

}  // namespace tiny_knn
