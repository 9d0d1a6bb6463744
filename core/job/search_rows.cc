#include "core/job/search_rows.h"

#include <algorithm>
#include <limits>

#include "core/job/copy_sink.h"
#include "core/job/machine_limits.h"
#include "core/search/isa.h"

namespace tiny_knn {
namespace {

// A batch of so many queries keeps the cores busy, however many batches there are.
constexpr int64_t kEnoughQueries = 1024;

}  // namespace

ProblemShape ShapeOf(const RowSource& queries, const RowSource& docs, const SearchParams& params) {
  return {.num_queries = queries.rows(),
          .num_docs = docs.rows(),
          .dim = docs.dim(),
          .k = params.k,
          .metric = params.metric,
          .query_dtype = queries.dtype(),
          .doc_dtype = docs.dtype(),
          .compute_dtype = params.compute_dtype,
          .query_buffer_bytes_per_row = queries.buffer_bytes_per_row(),
          .doc_buffer_bytes_per_row = docs.buffer_bytes_per_row(),
          .docs_in_callers_memory = docs.is_callers_memory(),
          .docs_are_fetched = docs.needs_fetch(),
          .most_docs_in_place = docs.most_rows_in_place()};
}

absl::StatusOr<SearchPlan> PlanRows(const ProblemShape& shape, const SearchLimits& limits,
                                    DocsUse use) {
  return PlanSearch(shape, {.threads = limits.threads > 0 ? limits.threads : UsableCpus(),
                            .memory_limit_bytes = limits.memory_limit_bytes > 0
                                                      ? limits.memory_limit_bytes
                                                      : DefaultMemoryLimit(AvailableMemoryBytes()),
                            .requested_batch_size = limits.batch_size,
                            .has_int8_dot_products = HasInt8DotProducts(),
                            .has_int8_tiles = HasInt8Tiles(),
                            .keeps_docs = use == DocsUse::kKept,
                            .saves_state = limits.saves_state,
                            .program_bytes = limits.program_bytes});
}

bool MakeRoomForKeptDocs(const ProblemShape& shape, const SearchLimits& limits, int64_t warm_bytes,
                         int64_t budget_bytes, SearchPlan& plan) {
  if (warm_bytes <= budget_bytes - plan.memory.total()) return true;
  if (warm_bytes >= budget_bytes) return false;
  // The planner takes what it may. Smaller batches cost little once the docs are warm, as long as
  // they keep the cores busy.
  SearchLimits narrower = limits;
  narrower.memory_limit_bytes = budget_bytes - warm_bytes;
  if (limits.memory_limit_bytes > 0) {
    narrower.memory_limit_bytes = std::min(narrower.memory_limit_bytes, limits.memory_limit_bytes);
  }
  const absl::StatusOr<SearchPlan> found = PlanRows(shape, narrower, DocsUse::kKept);
  if (!found.ok() || found->num_chunks > 1) return false;
  if (found->num_passes > plan.num_passes && found->query_batch < kEnoughQueries) return false;
  plan = *found;
  return true;
}

absl::StatusOr<SearchReport> SearchRows(RowSource& queries, RowSource& docs,
                                        const SearchParams& params, const SearchLimits& limits,
                                        Engine& engine, Progress* progress, const TopKView& out) {
  absl::Status status = ValidateSearch(queries, docs, params);
  if (status.ok()) status = CheckOutput(queries, params, out);
  if (!status.ok()) return status;
  const absl::StatusOr<SearchPlan> plan =
      PlanRows(ShapeOf(queries, docs, params), WithDefaults(limits, out));
  if (!plan.ok()) return plan.status();
  CopySink sink(out);
  return engine.Search(queries, docs, params, *plan, progress, sink);
}

}  // namespace tiny_knn
