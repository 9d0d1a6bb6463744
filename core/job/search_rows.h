// Searches rows that are at hand, in memory or from any RowSource, into arrays of the caller's: the
// one way in which the libraries search. (run_job.h is the one way from files to a result file.)
//
//   absl::StatusOr<OpenedEngine> opened = OpenEngine({});                  // gpu/open_engine.h
//   const auto queries = MakeMemoryRowSource("queries", query_view);       // core/io/row_source.h
//   const auto docs = MakeMemoryRowSource("docs", doc_view);
//   std::vector<int64_t> indices(num_queries * 10);
//   std::vector<float> scores(num_queries * 10);
//   absl::StatusOr<SearchReport> report =
//       SearchRows(*queries, *docs, {.k = 10}, {}, *opened->engine, nullptr,
//                  {num_queries, 10, DType::kFloat32, scores.data(), indices.data()});
//
// examples/cpp/search.cc is a whole program.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/row_source.h"
#include "core/search/engine.h"
#include "core/search/planner.h"
#include "core/search/search.h"

namespace tiny_knn {

// What a search may use of the machine. Never changes what it finds.
struct SearchLimits {
  int threads = 0;                 // 0: one per CPU this process may use
  int64_t memory_limit_bytes = 0;  // 0: 75% of what is available, cgroup limits respected
  int64_t batch_size = 0;          // most queries per pass over the docs; 0: as many as fit
  bool saves_state = false;        // Engine::Search will be given a saver
  int64_t program_bytes = 0;       // MachineLimits::program_bytes
};

// Whether what a search makes of the docs may serve others: MachineLimits::keeps_docs.
enum class DocsUse { kOnce, kKept };

// The problem that these rows make.
ProblemShape ShapeOf(const RowSource& queries, const RowSource& docs, const SearchParams& params);

// Plans within the limits, and what the machine allows now where they do not say. As PlanSearch.
absl::StatusOr<SearchPlan> PlanRows(const ProblemShape& shape, const SearchLimits& limits,
                                    DocsUse use = DocsUse::kOnce);

// Whether a search by `plan` and `warm_bytes` of kept docs have room in `budget_bytes` together;
// makes `plan` narrower for it where that costs little. `plan` was made with `limits`, for docs
// that are kept.
bool MakeRoomForKeptDocs(const ProblemShape& shape, const SearchLimits& limits, int64_t warm_bytes,
                         int64_t budget_bytes, SearchPlan& plan);

// The exact top k of every query, written to `out` [queries.rows(), k]: the contract is that of
// core/search/search.h. Takes the calling thread until it is done, and threads of the engine's;
// memory beside `out` and the sources within the limits. `progress` may be null. Errors:
// InvalidArgument (k, dims, dtypes, a memory limit that cannot work, or an `out` of another shape
// or score type), Cancelled, DataLoss (a file changed), ResourceExhausted; `out` is then partly
// written. Use an engine, and a source, in one search at a time.
absl::StatusOr<SearchReport> SearchRows(RowSource& queries, RowSource& docs,
                                        const SearchParams& params, const SearchLimits& limits,
                                        Engine& engine, Progress* progress, const TopKView& out);

}  // namespace tiny_knn
