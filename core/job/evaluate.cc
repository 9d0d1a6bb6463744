#include "core/job/evaluate.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// NaN is tied with NaN: both rank below every number.
bool AreTied(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

struct QueryEvaluation {
  int64_t found = 0;
  int64_t found_by_tie = 0;
  bool identical = false;
};

// Rows of one query, of any length of at least k.
QueryEvaluation EvaluateQuery(std::span<const int64_t> indices, std::span<const double> scores,
                              std::span<const int64_t> true_indices,
                              std::span<const double> true_scores, size_t k) {
  std::vector<int64_t> best(true_indices.begin(), true_indices.begin() + static_cast<int64_t>(k));
  std::sort(best.begin(), best.end());
  std::vector<int64_t> tied;  // behind rank k
  const double last_score = true_scores[k - 1];
  for (size_t rank = k; rank < true_indices.size() && AreTied(true_scores[rank], last_score);
       ++rank) {
    tied.push_back(true_indices[rank]);
  }
  std::sort(tied.begin(), tied.end());

  QueryEvaluation query;
  query.identical =
      std::equal(indices.begin(), indices.begin() + static_cast<int64_t>(k), true_indices.begin());
  std::vector<int64_t> seen;
  for (size_t rank = 0; rank < k; ++rank) {
    query.identical = query.identical && std::bit_cast<uint64_t>(scores[rank]) ==
                                             std::bit_cast<uint64_t>(true_scores[rank]);
    const int64_t doc = indices[rank];
    if (doc < 0) continue;
    if (std::binary_search(best.begin(), best.end(), doc)) {
      seen.push_back(doc);
    } else if (std::binary_search(tied.begin(), tied.end(), doc) ||
               AreTied(scores[rank], last_score)) {
      seen.push_back(doc);
      ++query.found_by_tie;
    }
  }
  std::sort(seen.begin(), seen.end());
  const auto repeated = std::unique(seen.begin(), seen.end());
  query.found = repeated - seen.begin();
  query.found_by_tie = std::min(query.found_by_tie, query.found);
  return query;
}

}  // namespace

double Evaluation::recall() const {
  const int64_t all = num_queries * k;
  return all == 0 ? 1 : static_cast<double>(found) / static_cast<double>(all);
}

absl::StatusOr<Evaluation> Evaluate(const Ranking& result, const Ranking& truth, int64_t k) {
  if (result.num_queries != truth.num_queries) {
    return absl::InvalidArgumentError(
        fmt::format("the result has {} queries and the truth {}; expected the same queries",
                    result.num_queries, truth.num_queries));
  }
  const int64_t most = std::min(result.k, truth.k);
  if (k < 1 || k > most) {
    return absl::InvalidArgumentError(
        fmt::format("k={}: the result has k={} and the truth k={}; expected 1 to {}", k, result.k,
                    truth.k, most));
  }
  Evaluation evaluation{.k = k, .num_queries = result.num_queries};
  const auto row = [](const auto& array, int64_t query, int64_t width) {
    return array.subspan(static_cast<size_t>(query * width), static_cast<size_t>(width));
  };
  for (int64_t i = 0; i < result.num_queries; ++i) {
    const QueryEvaluation query = EvaluateQuery(
        row(result.indices, i, result.k), row(result.scores, i, result.k),
        row(truth.indices, i, truth.k), row(truth.scores, i, truth.k), static_cast<size_t>(k));
    evaluation.found += query.found;
    evaluation.found_by_tie += query.found_by_tie;
    evaluation.complete_queries += query.found == k ? 1 : 0;
    evaluation.identical_queries += query.identical ? 1 : 0;
    const double recall = static_cast<double>(query.found) / static_cast<double>(k);
    if (recall < evaluation.lowest_recall) {
      evaluation.lowest_recall = recall;
      evaluation.lowest_query = i;
    }
  }
  return evaluation;
}

}  // namespace tiny_knn
