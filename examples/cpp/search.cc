// Searches docs in memory for the nearest of some queries, and hears of progress meanwhile.
//
//   bazel run //examples/cpp:search
#include "core/search/search.h"

#include <cstdint>
#include <cstdio>
#include <vector>

#include "core/io/row_source.h"
#include "core/job/search_rows.h"
#include "gpu/open_engine.h"

namespace {

class PrintedProgress : public tiny_knn::Progress {
 public:
  void Report(int64_t pairs_done, int64_t pairs_total) override {
    if (pairs_done == pairs_total) std::printf("%ld pairs compared\n", pairs_total);
  }
  bool cancelled() const override { return false; }  // true would end the search
};

}  // namespace

int main() {
  using namespace tiny_knn;  // for an example only
  constexpr int64_t kDocs = 1000, kDim = 3, kQueries = 2, kNearest = 4;
  // Points on a line; a row of `docs` is one of them.
  std::vector<float> docs(kDocs * kDim);
  for (int64_t i = 0; i < kDocs; ++i) {
    for (int64_t j = 0; j < kDim; ++j) {
      docs[static_cast<size_t>(i * kDim + j)] = static_cast<float>(i);
    }
  }
  const std::vector<double> queries = {7.25, 7.25, 7.25, 500, 500, 500};

  // Both are views: rows are read where they lie. Their types may differ.
  const auto query_rows = MakeMemoryRowSource(
      "queries", {queries.data(), DType::kFloat64, kQueries, kDim, kDim * int64_t{sizeof(double)}});
  const auto doc_rows = MakeMemoryRowSource(
      "docs", {docs.data(), DType::kFloat32, kDocs, kDim, kDim * int64_t{sizeof(float)}});

  absl::StatusOr<OpenedEngine> opened = OpenEngine({.device = "cpu"});
  if (!opened.ok()) return 1;
  std::vector<int64_t> indices(kQueries * kNearest);
  std::vector<float> scores(kQueries * kNearest);
  PrintedProgress progress;
  const absl::StatusOr<SearchReport> report =
      SearchRows(*query_rows, *doc_rows, {.k = kNearest, .metric = Metric::kL2}, {.threads = 1},
                 *opened->engine, &progress,
                 {kQueries, kNearest, DType::kFloat32, scores.data(), indices.data()});
  if (!report.ok()) {
    std::fprintf(stderr, "%s\n", std::string(report.status().message()).c_str());
    return 1;
  }
  for (int64_t query = 0; query < kQueries; ++query) {
    std::printf("query %ld:", query);
    for (int64_t rank = 0; rank < kNearest; ++rank) {
      const auto at = static_cast<size_t>(query * kNearest + rank);
      std::printf("  doc %ld (%g)", indices[at], static_cast<double>(scores[at]));
    }
    std::printf("\n");
  }
  return 0;
}
