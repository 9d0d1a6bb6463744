#include "core/job/copy_sink.h"

#include <algorithm>
#include <cstring>

#include "core/job/machine_limits.h"
#include "core/matrix/dtype.h"
#include "fmt/format.h"

namespace tiny_knn {

absl::Status CheckOutput(const RowSource& queries, const SearchParams& params,
                         const TopKView& out) {
  const DType scores = WorkingDType(params.compute_dtype);
  const bool fits = out.num_queries == queries.rows() && out.k == params.k;
  if (fits && out.score_dtype == scores) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("results go to arrays [{}, {}] with {} scores; expected [{}, {}] with {} scores",
                  out.num_queries, out.k, DTypeName(out.score_dtype), queries.rows(), params.k,
                  DTypeName(scores)));
}

SearchLimits WithDefaults(const SearchLimits& limits, const TopKView& out, int64_t kept_bytes) {
  SearchLimits filled = limits;
  if (filled.memory_limit_bytes == 0) {
    const int64_t result = out.num_queries * out.k * (8 + ItemSize(out.score_dtype));
    filled.memory_limit_bytes =
        DefaultMemoryLimit(std::max<int64_t>(0, AvailableMemoryBytes() - result) + kept_bytes);
  }
  return filled;
}

absl::Status CopySink::Take(int64_t first_query, const TopKView& results) {
  const int64_t first = first_query * out_.k;
  const auto count = static_cast<size_t>(results.num_queries * results.k);
  const auto item = static_cast<size_t>(ItemSize(results.score_dtype));
  if (count == 0) return absl::OkStatus();
  std::memcpy(out_.indices + first, results.indices, count * sizeof(int64_t));
  std::memcpy(static_cast<std::byte*>(out_.scores) + static_cast<size_t>(first) * item,
              results.scores, count * item);
  return absl::OkStatus();
}

}  // namespace tiny_knn
