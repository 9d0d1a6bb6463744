// Results of ranges of the docs (--docs-range), merged into the result of all of them.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "core/search/search.h"

namespace tiny_knn {

struct MergeOptions {
  // Parts that are all neighbours but not all docs are merged into a larger part; else refused.
  bool partial = false;
  // Hears of pairs: rows of results times parts. May be null.
  Progress* progress = nullptr;
};

struct MergeReport {
  int64_t num_parts = 0;
  int64_t num_queries = 0;
  int64_t k = 0;
  int64_t docs_begin = 0;
  int64_t docs_end = 0;
  int64_t num_docs = 0;
};

// Writes the result that one search of all the parts' docs would have written, bit for bit: to
// `output_path`, in the format of its name, through an AtomicFile. Parts may be given in any order
// and formats; what the file says of paths, batch size and device is what the part with the first
// docs says. Rows are read as they are needed: memory does not grow with the results' size.
//
// Errors name the part: InvalidArgument for a file that is no part; for parts of other queries,
// docs, k, metric, dtype or exclude_self than the first's, ranges that overlap or leave docs out;
// and for rows that no search writes. Cancelled, and those of reading and writing. Nothing is
// written then.
absl::StatusOr<MergeReport> MergeResults(std::span<const std::string> part_paths,
                                         const std::string& output_path,
                                         const MergeOptions& options);

}  // namespace tiny_knn
