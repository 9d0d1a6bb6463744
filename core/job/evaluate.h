// How much of a true ranking another one has: recall@k that does not punish ties.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace tiny_knn {

// The best docs of some queries, row-major [num_queries, k], best first. Indices below 0 stand for
// nothing (FAISS fills up with -1).
struct Ranking {
  int64_t num_queries = 0;
  int64_t k = 0;
  std::span<const int64_t> indices;
  std::span<const double> scores;
};

struct Evaluation {
  int64_t k = 0;
  int64_t num_queries = 0;
  int64_t found = 0;              // of num_queries * k
  int64_t found_by_tie = 0;       // of them, docs that are not among the truth's first k
  int64_t complete_queries = 0;   // with all k
  int64_t identical_queries = 0;  // the same k indices and scores, in the same order, bit for bit
  double lowest_recall = 1;       // of a single query; 1 where there are none
  int64_t lowest_query = 0;       // the first with it

  // 1 where there is nothing to find.
  double recall() const;
};

// Recall@k of `result` against `truth`. A doc of the result's first k is found if the truth has it
// among its first k; or, since docs with equal scores are equally right, if the truth has it
// further down with the score of its rank k, or if the result gives it just that score: which a
// truth that ends at rank k cannot show. A doc that stands twice counts once. InvalidArgument when
// the numbers of queries differ, or k is not between 1 and the lesser of both k.
absl::StatusOr<Evaluation> Evaluate(const Ranking& result, const Ranking& truth, int64_t k);

}  // namespace tiny_knn
