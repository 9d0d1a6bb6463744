// Searches of few queries with docs whose codes are kept: which rows they still want, and how.
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/cpu/batch_search.h"
#include "core/cpu/cpu_engine.h"
#include "core/cpu/warm_search_for_test.h"
#include "core/search/engine.h"
#include "core/search/planner.h"
#include "core/search/search.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

// Docs whose codes are kept, and a plan for a search of a few queries.
class WarmCodesTest : public testing::Test {
 protected:
  static constexpr int64_t kManyDocs = 20000;

  static MatrixView View(const std::vector<float>& values) {
    return {values.data(), DType::kFloat32, static_cast<int64_t>(values.size()) / kDim, kDim,
            kDim * int64_t{sizeof(float)}};
  }

  SearchPlan Plan(const SearchParams& params, int threads) const {
    SearchPlan plan = PlanSearch(Shape(params), {.threads = threads,
                                                 .memory_limit_bytes = int64_t{1} << 30,
                                                 .has_int8_dot_products = true,
                                                 .keeps_docs = true,
                                                 .screen = ScreenKind::kInt8Codes})
                          .value();
    EXPECT_EQ(plan.screen, ScreenKind::kInt8Codes);
    EXPECT_GT(plan.waiting_capacity, 0);
    return plan;
  }

  ProblemShape Shape(const SearchParams& params) const {
    return {.num_queries = queries_.rows(),
            .num_docs = kManyDocs,
            .dim = kDim,
            .k = params.k,
            .metric = params.metric};
  }

  absl::StatusOr<SearchReport> Search(const SearchParams& params, const SearchPlan& plan,
                                      Results& results, WarmDocs* warm) {
    return engine_->Search(queries_, docs_, params, plan, nullptr, results, warm);
  }

  std::unique_ptr<WarmDocs> Filled(const SearchParams& params, Results& results) {
    std::unique_ptr<WarmDocs> warm = engine_->MakeWarmDocs(Shape(params), Plan(params, 2));
    EXPECT_TRUE(Search(params, Plan(params, 2), results, warm.get()).ok());
    EXPECT_TRUE(warm->filled());
    return warm;
  }

  std::vector<float> query_values_ = GaussianRows(4, 3);
  std::vector<float> doc_values_ = GaussianRows(kManyDocs, 4);
  WatchedSource queries_{"queries", View(query_values_)};
  WatchedSource docs_{"docs", View(doc_values_)};
  std::unique_ptr<Engine> engine_ = MakeCpuEngine();
};

TEST_F(WarmCodesTest, RefinesFarFewerWhenSurvivorsWait) {
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    const SearchParams params{.k = 20, .metric = metric};
    Results expected;
    const auto warm = Filled(params, expected);
    for (const int threads : {1, 2}) {
      SearchPlan plan = Plan(params, threads);
      Results waited;
      const auto report = Search(params, plan, waited, warm.get());
      plan.waiting_capacity = 0;
      Results at_once;
      const auto report_at_once = Search(params, plan, at_once, warm.get());
      ASSERT_TRUE(report.ok() && report_at_once.ok());
      EXPECT_EQ(waited.indices, expected.indices);
      EXPECT_EQ(waited.scores, expected.scores);
      EXPECT_EQ(at_once.indices, expected.indices);
      EXPECT_GE(report->refined_pairs, queries_.rows() * params.k);
      EXPECT_LT(report->refined_pairs * 4, report_at_once->refined_pairs);
    }
  }
}

TEST_F(WarmCodesTest, FetchesTheRowsItRefinesAndRescoresWhereTheyAreFew) {
  const SearchParams params{.k = 20};
  Results expected;
  const auto warm = Filled(params, expected);
  docs_.fetches_each = true;
  Results results;
  const auto report = Search(params, Plan(params, 2), results, warm.get());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(results.indices, expected.indices);
  EXPECT_EQ(results.scores, expected.scores);
  EXPECT_EQ(docs_.fetched, report->refined_pairs + report->rescored_pairs);

  // Many of all rows are read where they lie.
  const SearchParams large{.k = kManyDocs / kDocsPerRowWanted};
  docs_.fetched = 0;
  Results many;
  ASSERT_TRUE(Search(large, Plan(large, 2), many, warm.get()).ok());
  EXPECT_EQ(docs_.fetched, 0);
}

TEST_F(WarmCodesTest, FailsWhereverARowCannotBeFetched) {
  const SearchParams params{.k = 20};
  Results expected;
  const auto warm = Filled(params, expected);
  docs_.fetches_each = true;
  Results results;
  ASSERT_TRUE(Search(params, Plan(params, 2), results, warm.get()).ok());
  const int64_t needed = docs_.fetched;
  int failed = 0;
  for (int64_t left = 0; left < needed; left += 16) {
    docs_.fetched = 0;
    docs_.fetches_left = left;
    Results cut;
    const auto report = Search(params, Plan(params, 2), cut, warm.get());
    EXPECT_EQ(report.status().code(), absl::StatusCode::kDataLoss) << left << " of " << needed;
    EXPECT_TRUE(cut.indices.empty());
    EXPECT_TRUE(warm->filled());
    ++failed;
  }
  EXPECT_GT(failed, 10);
  docs_.fetches_left = std::numeric_limits<int64_t>::max();
  Results again;
  ASSERT_TRUE(Search(params, Plan(params, 2), again, warm.get()).ok());
  EXPECT_EQ(again.indices, expected.indices);
}

}  // namespace
}  // namespace tiny_knn
