// Results into an array of the caller's: what SearchRows and Corpus share.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "core/io/row_source.h"
#include "core/job/search_rows.h"
#include "core/search/search.h"

namespace tiny_knn {

// InvalidArgument where `out` is not [queries.rows(), params.k] of the working type's scores.
absl::Status CheckOutput(const RowSource& queries, const SearchParams& params, const TopKView& out);

// The limits with the memory filled in: 75% of what is available besides `out`, whose pages may not
// have been touched yet, and besides `kept_bytes` that could be given up.
SearchLimits WithDefaults(const SearchLimits& limits, const TopKView& out, int64_t kept_bytes = 0);

// Copies finished rows to `out`, which outlives it.
class CopySink : public TopKSink {
 public:
  explicit CopySink(const TopKView& out) : out_(out) {}
  absl::Status Take(int64_t first_query, const TopKView& results) override;

 private:
  const TopKView out_;
};

}  // namespace tiny_knn
