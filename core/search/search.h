// The contract of a search: what "exact" means here. Every engine, device and path keeps it, and
// `ReferenceSearch` (core/search/reference_search.h) is the oracle that says so.
//
// 1. Inputs. Queries [Q, dim] and docs [D, dim] are converted once, element by element, to the
//    compute dtype and from there to the working type (core/matrix/convert.h).
// 2. Score. Greater is closer.
//      ip      the dot product q.d
//      cosine  q.d / sqrt(q.q * d.d); 0 when either row is all zeros
//      l2      -sum_j (q_j - d_j)^2
//    A score is the real number above *correctly rounded*: the nearest float32 (float64 when the
//    compute dtype is float64), ties to even, overflow to an infinity, every zero +0.0. It depends
//    on no order of summation. Non-finite inputs: ip and l2 are NaN if a term is NaN or if
//    infinities of both signs are summed, else that infinity; cosine is NaN if any component of
//    either row is not finite. Every NaN is the one quiet NaN 0x7FC00000 (0x7FF8000000000000).
// 3. Order. Results are sorted by score, descending; equal scores by doc index, ascending. NaN is
//    below every number, NaNs among themselves by index.
// 4. Determinism. Indices and scores are a pure function of the two matrices, k, metric, compute
//    dtype and exclude_self: bit-identical for every device, instruction set, thread count, chunk
//    size, batch size and memory limit. The result for k is a prefix of the result for k + 1.
// 5. k. 1 <= k <= D, or D - 1 with exclude_self, which removes the doc whose index equals the
//    query's index before ranking. There is no other ceiling.
// 6. Parts. Docs may be a range of others, the first of them with index `first_doc`: indices, and
//    what exclude_self removes, count from it. The k best of what the ranges of any split give are
//    the k best of all.
//
// This is the language that all who search speak. To search, call SearchRows
// (core/job/search_rows.h: rows of any source, results in memory), Corpus::Search
// (core/job/corpus.h: the same docs again and again) or RunJob (core/job/run_job.h: files in, a
// result file out). They stand with the job, not here, since they know what the machine allows and
// this room does not.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "core/matrix/dtype.h"

namespace tiny_knn {

enum class Metric { kInnerProduct, kCosine, kL2 };

// "ip", "cosine", "l2".
std::string_view MetricName(Metric metric);
std::optional<Metric> ParseMetric(std::string_view name);

struct SearchParams {
  int64_t k = 0;
  Metric metric = Metric::kInnerProduct;
  DType compute_dtype = DType::kFloat32;
  bool exclude_self = false;
  int64_t first_doc = 0;  // index of the docs' first row
};

// Results of `num_queries` queries, row-major [num_queries, k], owned by the caller. Scores are
// float or double, as WorkingDType(compute_dtype) says.
struct TopKView {
  int64_t num_queries = 0;
  int64_t k = 0;
  DType score_dtype = DType::kFloat32;
  void* scores = nullptr;
  int64_t* indices = nullptr;
};

// Receives finished query rows, in order of queries, from the thread that called Engine::Search.
class TopKSink {
 public:
  virtual ~TopKSink() = default;
  // Rows [first_query, first_query + results.num_queries); the view is valid during the call only.
  // An error ends the search with that error.
  virtual absl::Status Take(int64_t first_query, const TopKView& results) = 0;
};

// Hears how far a search is and may stop it. Report is called from the thread that searches, after
// every block of docs (some milliseconds of work or more); `cancelled` from any thread, often, so
// it must be cheap.
class Progress {
 public:
  virtual ~Progress() = default;
  // Query-doc pairs screened so far, of `pairs_total` (= Q * D).
  virtual void Report(int64_t pairs_done, int64_t pairs_total) = 0;
  // True ends the search soon with a Cancelled status.
  virtual bool cancelled() const = 0;
};

// What a search noticed. Counts are of the whole search and depend on its question alone, but for
// the last three, which depend on the plan and on chance.
struct SearchReport {
  int64_t nonfinite_query_rows = 0;  // rows with a NaN or an infinity after conversion
  int64_t nonfinite_doc_rows = 0;
  int64_t infs_made_in_queries = 0;  // finite elements that the compute dtype cannot hold
  int64_t infs_made_in_docs = 0;
  int64_t queries_with_tie_at_k = 0;  // rank k and the next doc have equal scores (or both NaN)
  int64_t rescored_pairs = 0;         // pairs whose correctly rounded score was computed
  int64_t refined_pairs = 0;          // pairs screened again in float32 after codes kept them
  int64_t repeated_queries = 0;       // searched again: a threshold was guessed too high
};

}  // namespace tiny_knn
