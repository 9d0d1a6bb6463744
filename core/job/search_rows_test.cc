#include "core/job/search_rows.h"

#include <atomic>
#include <string>
#include <vector>

#include "core/cpu/cpu_engine.h"
#include "core/job/random_matrix_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;

class CountingProgress : public Progress {
 public:
  void Report(int64_t done, int64_t total) override {
    EXPECT_LE(pairs_done, done);
    pairs_done = done;
    pairs_total = total;
    if (cancel_after >= 0 && reports++ >= cancel_after) cancel = true;
  }
  bool cancelled() const override { return cancel; }
  int64_t pairs_done = 0, pairs_total = 0;
  int reports = 0, cancel_after = -1;
  std::atomic<bool> cancel = false;
};

const RandomMatrix& Docs() {
  static const RandomMatrix docs(3000, 24, 1);
  return docs;
}
const RandomMatrix& Queries() {
  static const RandomMatrix queries(37, 24, 2);
  return queries;
}

TEST(SearchRowsTest, EqualsTheOracleForEveryMetricAndLimit) {
  const auto engine = MakeCpuEngine();
  const auto queries = Queries().Source("queries");
  const auto docs = Docs().Source("docs");
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    for (const bool exclude_self : {false, true}) {
      const SearchParams params{.k = 9, .metric = metric, .exclude_self = exclude_self};
      const Found expected = Oracle(*queries, *docs, params);
      for (const SearchLimits& limits :
           {SearchLimits{}, SearchLimits{.threads = 3, .batch_size = 5},
            SearchLimits{.threads = 1, .memory_limit_bytes = 16 << 20}}) {
        Found found(37, 9);
        const auto report =
            SearchRows(*queries, *docs, params, limits, *engine, nullptr, found.View());
        ASSERT_TRUE(report.ok()) << report.status();
        EXPECT_TRUE(found == expected) << MetricName(metric);
      }
    }
  }
}

// The columns of a matrix are the rows of its transpose.
TEST(SearchRowsTest, LayoutMakesNoDifference) {
  const RandomMatrix& docs = Docs();
  std::vector<float> columns(docs.values.size());
  for (int64_t i = 0; i < docs.rows; ++i) {
    for (int64_t j = 0; j < docs.dim; ++j) {
      columns[static_cast<size_t>(j * docs.rows + i)] =
          docs.values[static_cast<size_t>(i * docs.dim + j)];
    }
  }
  const auto engine = MakeCpuEngine();
  const auto queries = Queries().Source("queries");
  const SearchParams params{.k = 20, .metric = Metric::kCosine};
  const Found expected = Oracle(*queries, *docs.Source("docs"), params);
  const auto transposed = MakeStridedRowSource(
      "docs", {columns.data(), DType::kFloat32, docs.rows, docs.dim, 4, docs.rows * 4});
  Found found(37, 20);
  const auto report = SearchRows(*queries, *transposed, params, {}, *engine, nullptr, found.View());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(found == expected);
}

TEST(SearchRowsTest, ProgressEndsAtAllPairs) {
  const auto engine = MakeCpuEngine();
  const auto queries = Queries().Source("queries");
  const auto docs = Docs().Source("docs");
  CountingProgress progress;
  Found found(37, 3);
  ASSERT_TRUE(
      SearchRows(*queries, *docs, {.k = 3}, {.batch_size = 10}, *engine, &progress, found.View())
          .ok());
  EXPECT_EQ(progress.pairs_done, 37 * 3000);
  EXPECT_EQ(progress.pairs_total, 37 * 3000);
}

TEST(SearchRowsTest, ACancelledSearchSaysSo) {
  const auto engine = MakeCpuEngine();
  const auto queries = Queries().Source("queries");
  const auto docs = Docs().Source("docs");
  CountingProgress progress;
  progress.cancel_after = 1;
  Found found(37, 3);
  const auto report =
      SearchRows(*queries, *docs, {.k = 3}, {.batch_size = 10}, *engine, &progress, found.View());
  EXPECT_TRUE(absl::IsCancelled(report.status())) << report.status();
  EXPECT_EQ(progress.reports, 2);
}

TEST(SearchRowsTest, NoQueriesAreAnEmptyResult) {
  const auto engine = MakeCpuEngine();
  const auto queries = MakeMemoryRowSource("queries", {nullptr, DType::kFloat32, 0, 24, 0});
  const auto docs = Docs().Source("docs");
  const auto report = SearchRows(*queries, *docs, {.k = 3}, {}, *engine, nullptr,
                                 {0, 3, DType::kFloat32, nullptr, nullptr});
  EXPECT_TRUE(report.ok()) << report.status();
}

TEST(SearchRowsTest, WrongArgumentsAreSaidBeforeAnythingIsSearched) {
  const auto engine = MakeCpuEngine();
  const auto queries = Queries().Source("queries");
  const auto docs = Docs().Source("docs");
  Found found(37, 3);
  const auto error = [&](const SearchParams& params, const SearchLimits& limits,
                         const TopKView& out) {
    const auto report = SearchRows(*queries, *docs, params, limits, *engine, nullptr, out);
    EXPECT_TRUE(absl::IsInvalidArgument(report.status())) << report.status();
    return std::string(report.status().message());
  };
  EXPECT_THAT(error({.k = 4}, {}, found.View()), HasSubstr("[37, 3]"));
  EXPECT_THAT(error({.k = 3, .compute_dtype = DType::kFloat64}, {}, found.View()),
              HasSubstr("float64"));
  EXPECT_THAT(error({.k = 3001}, {}, Found(37, 3001).View()), HasSubstr("k=3001"));
  EXPECT_THAT(error({.k = 3}, {.memory_limit_bytes = 1000}, found.View()),
              HasSubstr("memory limit"));
  EXPECT_EQ(found.indices[0], -7);
}

}  // namespace
}  // namespace tiny_knn
