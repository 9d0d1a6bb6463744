#include "core/search/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/matrix/dtype.h"

namespace tiny_knn {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// A block of docs is screened by every query while it lies in the shared cache.
constexpr int64_t kDocBlockBytes = 6 * kMiB;
constexpr int64_t kMaxDocBlock = 65536;
// A score tile and the rows behind it stay in a core's own cache.
constexpr int64_t kQueryTile = 128;
constexpr int64_t kDocTile = 512;
// What the GEMM library takes for its packed panels, per thread (measured, oneDNN 2.6.3).
constexpr int64_t kGemmWorkspaceBytes = 2 * kMiB;
// Fewer queries per thread than this, and threads share queries and split docs instead.
constexpr int64_t kMinQueriesPerThread = 8;
// Candidates beyond 2 k: room for what comes before the first threshold stands.
constexpr int64_t kExtraCandidates = 128;
// Float32 lower bound, int32 doc, and the exact score once it is known.
constexpr int64_t kCandidateBytes = 4 + 4 + 8;
// Norm and two screen offsets, float32 each.
constexpr int64_t kDocScalarBytes = 12;
// Thresholds, norms and other scalars of a query.
constexpr int64_t kQueryScalarBytes = 128;
// Docs of a chunk are counted by 32-bit numbers.
constexpr int64_t kMaxDocChunk = std::numeric_limits<int32_t>::max() - kMaxDocBlock;

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Bytes of a batch by purpose, per query.
struct QueryBytes {
  int64_t rows;
  int64_t candidates;
  int64_t results;
  int64_t total() const { return rows + candidates + results; }
};

QueryBytes BytesPerQuery(const ProblemShape& shape, const SearchPlan& plan) {
  const int64_t score_bytes = ItemSize(WorkingDType(shape.compute_dtype));
  // Rows as converted, in double for rescoring, and in float32 for the screen.
  const int64_t row_bytes = shape.dim * (score_bytes + 8 + 4);
  const int64_t exact_bytes = (shape.k + 1) * 16;  // the top k so far
  return {row_bytes + shape.query_buffer_bytes_per_row + kQueryScalarBytes,
          plan.doc_splits * (plan.candidate_capacity + kCandidatePadding) * kCandidateBytes,
          exact_bytes + shape.k * (8 + score_bytes)};
}

// A file's rows count as resident whether they are mapped or buffered.
int64_t BytesPerDoc(const ProblemShape& shape) {
  return shape.dim * ItemSize(shape.doc_dtype) + kDocScalarBytes;
}

std::string Bytes(int64_t bytes) {
  if (bytes >= 1024 * kMiB) return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / 0x1p30);
  if (bytes >= kMiB) return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / 0x1p20);
  return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / 0x1p10);
}

}  // namespace

std::string_view ScreenKindName(ScreenKind kind) {
  switch (kind) {
    case ScreenKind::kFloat32Gemm:
      return "float32 GEMM";
  }
  return "float32 GEMM";
}

absl::StatusOr<SearchPlan> PlanSearch(const ProblemShape& shape, const MachineLimits& limits) {
  SearchPlan plan;
  plan.threads = limits.threads;
  const int64_t num_docs = std::max<int64_t>(shape.num_docs, 1);
  int64_t queries = std::max<int64_t>(shape.num_queries, 1);
  if (limits.requested_batch_size > 0) queries = std::min(queries, limits.requested_batch_size);

  plan.doc_tile = kDocTile;
  plan.query_tile = std::min(queries, kQueryTile);
  plan.doc_block =
      std::clamp(kDocBlockBytes / (shape.dim * 4) / kDocTile * kDocTile, kDocTile, kMaxDocBlock);
  plan.doc_block = std::min(plan.doc_block, num_docs);
  plan.doc_splits = std::max<int64_t>(1, plan.threads / CeilDivide(queries, kMinQueriesPerThread));
  plan.candidate_capacity = std::min(2 * shape.k, num_docs) + kExtraCandidates;

  const QueryBytes per_query = BytesPerQuery(shape, plan);
  const int64_t per_doc = BytesPerDoc(shape);
  plan.memory.doc_blocks = plan.doc_block * shape.dim * 4;
  plan.memory.score_tiles =
      plan.threads * (plan.query_tile * plan.doc_tile * 4 + kGemmWorkspaceBytes);
  const int64_t fixed = plan.memory.doc_blocks + plan.memory.score_tiles;
  const int64_t least = fixed + per_query.total() + plan.doc_block * per_doc;
  if (limits.memory_limit_bytes < least) {
    return absl::InvalidArgumentError(fmt::format(
        "--memory-limit: {} is too little for k={}, dim={} and {} threads; pass at least {}M",
        Bytes(limits.memory_limit_bytes), shape.k, shape.dim, plan.threads,
        CeilDivide(least, kMiB)));
  }

  // All queries in one pass if they leave half of the memory to the docs; the docs take the rest.
  const int64_t available = limits.memory_limit_bytes - fixed;
  const int64_t docs_share = std::max(available / 2, plan.doc_block * per_doc);
  plan.query_batch = std::clamp((available - docs_share) / per_query.total(), int64_t{1}, queries);
  const int64_t docs_bytes = available - plan.query_batch * per_query.total();
  plan.doc_chunk = std::min({num_docs, kMaxDocChunk, docs_bytes / per_doc});
  if (plan.doc_chunk < num_docs) {
    // Whole blocks, so that only the last one of the file is short. At least one fits: see `least`.
    plan.doc_chunk = plan.doc_chunk / plan.doc_block * plan.doc_block;
    // Room that is left over goes to further queries.
    plan.query_batch =
        std::clamp((available - plan.doc_chunk * per_doc) / per_query.total(), int64_t{1}, queries);
  }

  plan.num_passes = CeilDivide(shape.num_queries, plan.query_batch);
  plan.num_chunks = CeilDivide(shape.num_docs, plan.doc_chunk);
  plan.bytes_read = plan.num_passes * shape.num_docs * shape.dim * ItemSize(shape.doc_dtype) +
                    shape.num_queries * shape.dim * ItemSize(shape.query_dtype);
  plan.memory.queries = plan.query_batch * per_query.rows;
  plan.memory.candidates = plan.query_batch * per_query.candidates;
  plan.memory.results = plan.query_batch * per_query.results;
  plan.memory.doc_chunk = plan.doc_chunk * per_doc;
  return plan;
}

std::string DescribePlan(const ProblemShape& shape, const SearchPlan& plan) {
  std::string text;
  const auto line = [&text](std::string_view label, const std::string& value) {
    text += fmt::format("{:<14}{}\n", label, value);
  };
  line("search", fmt::format("{} queries x {} docs x {} dims, k={}, metric {}, computed in {}",
                             shape.num_queries, shape.num_docs, shape.dim, shape.k,
                             MetricName(shape.metric), DTypeName(shape.compute_dtype)));
  line(
      "screen",
      fmt::format("{}, tiles of {} queries x {} docs, {} threads{}", ScreenKindName(plan.screen),
                  plan.query_tile, plan.doc_tile, plan.threads,
                  plan.doc_splits > 1 ? fmt::format(", docs split {} ways", plan.doc_splits) : ""));
  line("batches", fmt::format("{} of up to {} queries, one pass over the docs each",
                              plan.num_passes, plan.query_batch));
  line("chunks", fmt::format("{} per pass, of up to {} docs", plan.num_chunks, plan.doc_chunk));
  line("bytes read", Bytes(plan.bytes_read));
  line("memory",
       fmt::format("{}: docs {}, queries {}, candidates {}, results {}, blocks {}, tiles {}",
                   Bytes(plan.memory.total()), Bytes(plan.memory.doc_chunk),
                   Bytes(plan.memory.queries), Bytes(plan.memory.candidates),
                   Bytes(plan.memory.results), Bytes(plan.memory.doc_blocks),
                   Bytes(plan.memory.score_tiles)));
  return text;
}

}  // namespace tiny_knn
