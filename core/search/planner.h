// The plan of a search: how many queries at a time, how many docs, how much memory for what. Plain
// data, computed before anything is allocated; `--dry-run` prints it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/matrix/dtype.h"
#include "core/search/search.h"

namespace tiny_knn {

// What is to be searched.
struct ProblemShape {
  int64_t num_queries = 0;
  int64_t num_docs = 0;
  int64_t dim = 0;
  int64_t k = 0;
  Metric metric = Metric::kInnerProduct;
  DType query_dtype = DType::kFloat32;
  DType doc_dtype = DType::kFloat32;
  DType compute_dtype = DType::kFloat32;
  int64_t query_buffer_bytes_per_row = 0;  // RowSource::buffer_bytes_per_row
  int64_t doc_buffer_bytes_per_row = 0;
  bool docs_in_callers_memory =
      false;                      // RowSource::is_callers_memory: their rows cost nothing more
  bool docs_are_fetched = false;  // RowSource::needs_fetch: a block of them is copied
  // RowSource::most_rows_in_place, the most docs of a chunk; 0: any number.
  int64_t most_docs_in_place = 0;
};

// How docs are screened before the survivors are rescored. One value here and one implementation of
// core/cpu/screen.h.
enum class ScreenKind {
  kFloat32Gemm,  // oneDNN sgemm with a proved error bound
  kInt8Codes,    // rows as 8-bit codes, multiplied in integers; what they leave out is bounded
  kInt16Codes,   // the same with two digits of 8 bits, three products: nearly as exact as float32
};
// Digits of 8 bits that a screen's codes have; 0: it has no codes.
constexpr int CodeDigits(ScreenKind kind) {
  switch (kind) {
    case ScreenKind::kFloat32Gemm:
      return 0;
    case ScreenKind::kInt8Codes:
      return 1;
    case ScreenKind::kInt16Codes:
      return 2;
  }
  return 0;
}
constexpr bool HasCodes(ScreenKind kind) { return CodeDigits(kind) > 0; }
std::string_view ScreenKindName(ScreenKind kind);

// What it may use.
struct MachineLimits {
  int threads = 1;
  int64_t memory_limit_bytes = 0;      // everything allocated by the search; result rows included
  int64_t requested_batch_size = 0;    // most queries per pass; 0: as many as fit
  bool has_int8_dot_products = false;  // 8-bit integers are multiplied faster than float32
  bool has_int8_tiles = false;         // and many times faster: IsaLevel::kAmx
  // What the screen makes of the docs may be kept for other searches: the work on them then counts
  // for little.
  bool keeps_docs = false;
  // The state of the search is saved between chunks: they must not take long.
  bool saves_state = false;
  // Which screen, where the problem has it; nothing: the one that should take less time. For tests
  // and benchmarks.
  std::optional<ScreenKind> screen = std::nullopt;
  int64_t program_bytes = 0;  // of the limit, what the program takes before it searches
};

// Bytes by purpose; their sum is at most the limit.
struct MemoryUse {
  int64_t queries = 0;     // converted query rows of a batch
  int64_t doc_chunk = 0;   // norms and, unless they are in the caller's memory, rows of a chunk
  int64_t doc_blocks = 0;  // docs of a block, as fetched and as converted for the screen
  int64_t score_tiles = 0;
  int64_t candidates = 0;  // per query: survivors of the screen not yet rescored
  int64_t results = 0;     // per query: exact top k so far, and the rows handed out
  int64_t scratch = 0;     // per thread: what one query's selection and ranking need
  int64_t program = 0;     // MachineLimits::program_bytes
  int64_t total() const {
    return queries + doc_chunk + doc_blocks + score_tiles + candidates + results + scratch +
           program;
  }
};

// Batches of up to so many queries are bound by how fast docs come from memory: threads share the
// queries and split the docs. With more, each thread has so many queries of its own at least.
inline constexpr int64_t kFewQueriesPerThread = 32;

// Entries beyond its capacity that every candidate list has, for vector stores to overwrite.
inline constexpr int64_t kCandidatePadding = 64;

struct SearchPlan {
  ScreenKind screen = ScreenKind::kFloat32Gemm;
  int threads = 1;
  int64_t query_batch = 0;  // queries per pass over the docs
  int64_t num_passes = 0;   // ceil(num_queries / query_batch)
  int64_t doc_chunk = 0;    // docs resident at one time; survivors are rescored at its end
  int64_t num_chunks = 0;   // per pass
  int64_t doc_block = 0;    // docs converted and screened at a time, sized for the shared cache
  int64_t doc_splits = 1;   // parts of a block that threads screen for the same queries at once
  int64_t query_tile = 0;   // a score tile is [query_tile, doc_tile], sized for a core's cache
  int64_t doc_tile = 0;     // with codes this and doc_block are multiples of 64, or all docs
  int64_t candidate_capacity = 0;  // candidates a query holds, per split, before they are thinned
  // With codes: survivors that a query holds, per split, before they are refined, where their rows
  // are at hand until the chunk is done. 0: none wait.
  int64_t waiting_capacity = 0;
  // Docs of the first chunk from which thresholds are guessed, 0: none; and which rank among them
  // stands for the k-th best of the chunk: at least 1, at most half of candidate_capacity.
  int64_t sample_docs = 0;
  int64_t sample_rank = 0;
  int64_t bytes_read = 0;         // from both files, all passes
  bool reads_past_cache = false;  // RowSource::ReadPastCache
  MemoryUse memory;
};

// The plan, or InvalidArgument when the limit cannot work, saying which limit would. Pure.
// REQUIRES: a valid shape (ValidateSearch) and threads >= 1.
absl::StatusOr<SearchPlan> PlanSearch(const ProblemShape& shape, const MachineLimits& limits);

// A person's table of the plan, several lines, for `--dry-run`: of the CPU engine. Other engines
// use the pieces below (Engine::Describe).
std::string DescribePlan(const ProblemShape& shape, const SearchPlan& plan);
// One line of such a table, with its end.
std::string PlanLine(std::string_view label, std::string_view value);
// What is searched: the value of the first line.
std::string DescribeShape(const ProblemShape& shape);
// "4.0 MiB".
std::string BytesText(int64_t bytes);

}  // namespace tiny_knn
