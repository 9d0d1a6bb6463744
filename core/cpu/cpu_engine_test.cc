// The engine's own smoke test against the oracle; the whole conformance list is in //tests.
#include "core/cpu/cpu_engine.h"

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/io/row_source.h"
#include "core/search/engine.h"
#include "core/search/planner.h"
#include "core/search/reference_search.h"
#include "core/search/search.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

// Keeps what an engine hands out.
struct Results : TopKSink {
  explicit Results(const SearchParams& params, int64_t num_queries)
      : k(params.k),
        score_dtype(WorkingDType(params.compute_dtype)),
        scores(static_cast<size_t>(num_queries * k * ItemSize(score_dtype))),
        indices(static_cast<size_t>(num_queries * k), -1) {}

  absl::Status Take(int64_t first_query, const TopKView& rows) override {
    const int64_t item = ItemSize(score_dtype);
    std::memcpy(scores.data() + first_query * k * item, rows.scores,
                static_cast<size_t>(rows.num_queries * k * item));
    std::copy(rows.indices, rows.indices + rows.num_queries * k, indices.begin() + first_query * k);
    return absl::OkStatus();
  }

  int64_t k;
  DType score_dtype;
  std::vector<char> scores;
  std::vector<int64_t> indices;
};

// Rows in memory that need to be fetched: of every other chunk, or of none, which then cannot be.
class InPlaceRows : public RowSource {
 public:
  InPlaceRows(const MatrixView& rows, bool every_other)
      : RowSource("docs", rows.dtype, rows.rows, rows.dim),
        view_(rows),
        every_other_(every_other) {}
  absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) override {
    return view_.Slice(begin, end);
  }
  bool needs_fetch() const override { return true; }
  bool IsBetterReadInPlace() override {
    if (every_other_) in_place_ = !in_place_;
    return in_place_;
  }
  absl::Status Fetch(const RowSelection& rows, std::byte* out) override {
    if (in_place_) return absl::InternalError("fetched");
    const size_t bytes = static_cast<size_t>(view_.row_stride_bytes);
    for (int64_t i = 0; i < rows.count; ++i, out += bytes) {
      std::memcpy(out, view_.Row(rows.begin + i * rows.step), bytes);
    }
    return absl::OkStatus();
  }
  void Release() override {}
  absl::Status CheckUnchanged() override { return absl::OkStatus(); }
  int64_t buffer_bytes_per_row() const override { return 0; }

 private:
  const MatrixView view_;
  const bool every_other_;
  bool in_place_ = true;
};

struct Problem {
  int64_t num_queries = 17;
  int64_t num_docs = 3000;
  int64_t dim = 65;
  SearchParams params{.k = 10};
};

class CpuEngineTest : public testing::Test {
 protected:
  // Gaussian rows; with `ties`, of few small integers.
  void Make(const Problem& problem, bool ties) {
    problem_ = problem;
    std::mt19937_64 random(3);
    std::normal_distribution<float> normal;
    for (const auto& [rows, values] :
         {std::pair{problem.num_queries, &query_values_}, {problem.num_docs, &doc_values_}}) {
      values->resize(static_cast<size_t>(rows * problem.dim));
      for (float& value : *values) {
        value = ties ? static_cast<float>(random() % 3) : normal(random);
      }
    }
    queries_ = Source("queries", query_values_, problem.num_queries);
    docs_ = Source("docs", doc_values_, problem.num_docs);
  }

  std::unique_ptr<RowSource> Source(std::string name, const std::vector<float>& values,
                                    int64_t rows) const {
    return MakeMemoryRowSource(std::move(name), {values.data(), DType::kFloat32, rows, problem_.dim,
                                                 problem_.dim * int64_t{sizeof(float)}});
  }

  SearchPlan Plan(int threads) const {
    const SearchParams& params = problem_.params;
    return PlanSearch({.num_queries = problem_.num_queries,
                       .num_docs = problem_.num_docs,
                       .dim = problem_.dim,
                       .k = params.k,
                       .metric = params.metric,
                       .compute_dtype = params.compute_dtype},
                      {.threads = threads, .memory_limit_bytes = int64_t{1} << 30})
        .value();
  }

  void ExpectOracle(const SearchPlan& plan) {
    const SearchParams& params = problem_.params;
    Results results(params, problem_.num_queries);
    const auto engine = MakeCpuEngine();
    const auto report = engine->Search(*queries_, *docs_, params, plan, nullptr, results);
    ASSERT_TRUE(report.ok()) << report.status();
    Results expected(params, problem_.num_queries);
    std::vector<int64_t> all(static_cast<size_t>(problem_.num_queries));
    std::iota(all.begin(), all.end(), 0);
    SearchReport expected_report;
    ASSERT_TRUE(ReferenceSearch(*queries_, all, *docs_, params,
                                {problem_.num_queries, params.k, expected.score_dtype,
                                 expected.scores.data(), expected.indices.data()},
                                expected_report)
                    .ok());
    EXPECT_EQ(results.indices, expected.indices);
    EXPECT_EQ(results.scores, expected.scores);
    EXPECT_EQ(report->queries_with_tie_at_k, expected_report.queries_with_tie_at_k);
    rescored_pairs_ = report->rescored_pairs;
    repeated_queries_ = report->repeated_queries;
    refined_pairs_ = report->refined_pairs;
  }

  Problem problem_;
  std::vector<float> query_values_;
  std::vector<float> doc_values_;
  std::unique_ptr<RowSource> queries_;
  std::unique_ptr<RowSource> docs_;
  int64_t rescored_pairs_ = 0;
  int64_t repeated_queries_ = 0;
  int64_t refined_pairs_ = 0;
};

TEST_F(CpuEngineTest, EqualsTheOracleForEveryMetricAndWorkingType) {
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    for (const DType compute : {DType::kFloat32, DType::kFloat16, DType::kFloat64}) {
      for (const bool ties : {false, true}) {
        SCOPED_TRACE(std::string(MetricName(metric)) + " " + std::string(DTypeName(compute)) +
                     (ties ? " ties" : " Gaussian"));
        Problem problem;
        problem.params.metric = metric;
        problem.params.compute_dtype = compute;
        Make(problem, ties);
        ExpectOracle(Plan(2));
      }
    }
  }
}

TEST_F(CpuEngineTest, RescoresLittleMoreThanKDocsOfOrdinaryData) {
  Make({.params = {.k = 10}}, /*ties=*/false);
  ExpectOracle(Plan(1));
  EXPECT_LT(rescored_pairs_, problem_.num_queries * 2 * problem_.params.k);
}

TEST_F(CpuEngineTest, EqualsTheOracleWithTinyChunksTilesAndBuffers) {
  for (const bool exclude_self : {false, true}) {
    Make({.params = {.k = 50, .exclude_self = exclude_self}}, /*ties=*/true);
    SearchPlan plan = Plan(3);
    plan.query_batch = 7;
    plan.num_passes = 3;
    plan.doc_chunk = 301;
    plan.doc_block = 43;
    plan.doc_tile = 33;
    plan.query_tile = 2;
    plan.candidate_capacity = 9;
    for (const int64_t splits : {1, 3}) {
      plan.doc_splits = splits;
      ExpectOracle(plan);
    }
  }
}

TEST_F(CpuEngineTest, ReadsInPlaceWhatIsBetterReadThere) {
  for (const int64_t num_queries : {3, 70}) {
    for (const ScreenKind screen :
         {ScreenKind::kFloat32Gemm, ScreenKind::kInt8Codes, ScreenKind::kInt16Codes}) {
      SCOPED_TRACE(std::string(ScreenKindName(screen)) + " " + std::to_string(num_queries));
      Make({.num_queries = num_queries, .params = {.k = 20}}, /*ties=*/false);
      const MatrixView rows{doc_values_.data(), DType::kFloat32, problem_.num_docs, problem_.dim,
                            problem_.dim * int64_t{sizeof(float)}};
      SearchPlan plan = Plan(2);
      plan.screen = screen;
      plan.doc_block = 640;
      plan.doc_tile = 128;
      plan.doc_chunk = 1280;
      plan.num_chunks = 3;
      plan.sample_docs = num_queries > 64 ? 300 : 0;
      plan.sample_rank = 12;
      plan.waiting_capacity = 40;
      for (const bool every_other : {false, true}) {
        docs_ = std::make_unique<InPlaceRows>(rows, every_other);
        ExpectOracle(plan);
      }
    }
  }
}

TEST_F(CpuEngineTest, GuessesThresholdsAndMakesUpForThoseThatAreTooHigh) {
  for (const ScreenKind screen :
       {ScreenKind::kFloat32Gemm, ScreenKind::kInt8Codes, ScreenKind::kInt16Codes}) {
    for (const int64_t splits : {1, 2}) {
      SCOPED_TRACE(std::string(ScreenKindName(screen)) + " splits " + std::to_string(splits));
      Make({.params = {.k = 50}}, /*ties=*/false);
      SearchPlan plan = Plan(2);
      plan.screen = screen;
      plan.doc_splits = splits;
      plan.doc_block = 512;
      plan.doc_tile = 128;
      plan.sample_docs = 600;
      plan.sample_rank = 40;  // 10 would be the k-th best's
      ExpectOracle(plan);
      EXPECT_EQ(repeated_queries_, 0);
      plan.sample_rank = 2;
      ExpectOracle(plan);
      EXPECT_EQ(repeated_queries_, problem_.num_queries);
      // A guess from the first chunk serves the second one.
      plan.doc_chunk = 1536;
      plan.num_chunks = 2;
      ExpectOracle(plan);
      EXPECT_EQ(repeated_queries_, problem_.num_queries);
      // Every fifth doc is a zero, and so is the sample: no doc of it is among the best.
      for (size_t i = 0; i < doc_values_.size(); ++i) {
        if (i / 65 % 5 == 0) doc_values_[i] = 0;
      }
      plan.sample_rank = 40;
      ExpectOracle(plan);
    }
  }
}

TEST_F(CpuEngineTest, SurvivorsWaitUntilTheLastThresholdStands) {
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    for (const int64_t splits : {1, 2}) {
      SCOPED_TRACE(std::string(MetricName(metric)) + " splits " + std::to_string(splits));
      Make({.num_queries = 5, .num_docs = 8000, .params = {.k = 10, .metric = metric}},
           /*ties=*/false);
      SearchPlan plan = Plan(2);
      plan.screen = ScreenKind::kInt8Codes;
      plan.doc_splits = splits;
      plan.doc_block = 1024;
      plan.doc_tile = 128;
      plan.sample_docs = 500;
      plan.sample_rank = 12;
      ExpectOracle(plan);
      const int64_t at_once = refined_pairs_;
      plan.waiting_capacity = 2000;
      ExpectOracle(plan);
      EXPECT_LT(2 * refined_pairs_, at_once);
      // So few that they are thinned again and again.
      plan.waiting_capacity = 25;
      ExpectOracle(plan);
      plan.doc_chunk = 3072;
      plan.num_chunks = 3;
      ExpectOracle(plan);
    }
  }
}

// Codes of 200 dims tell little when one dim takes all of their range: where that begins, thousands
// of survivors wait, whose rows are long.
TEST_F(CpuEngineTest, GivesCodesUpWhileSurvivorsWait) {
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine}) {
    for (const int64_t waiting : {100, 1000, 100'000}) {
      SCOPED_TRACE(std::string(MetricName(metric)) + " waiting " + std::to_string(waiting));
      Problem problem{
          .num_queries = 5, .num_docs = 6000, .dim = 200, .params = {.k = 60, .metric = metric}};
      Make(problem, /*ties=*/false);
      for (size_t i = doc_values_.size() / 2; i < doc_values_.size(); i += 200) {
        doc_values_[i] = i / 200 % 2 == 0 ? 1e4F : -1e4F;
      }
      for (size_t i = 0; i < query_values_.size(); i += 200) query_values_[i] = 0;
      SearchPlan plan = Plan(2);
      plan.screen = ScreenKind::kInt8Codes;
      plan.doc_block = 128;
      plan.doc_tile = 128;
      plan.sample_docs = 1000;
      plan.sample_rank = 20;
      plan.waiting_capacity = waiting;
      ExpectOracle(plan);
      EXPECT_LT(refined_pairs_, problem.num_queries * problem.num_docs / 3);
    }
  }
}

TEST_F(CpuEngineTest, GivesCodesUpWhereTheyTellNothingApart) {
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    for (const int64_t sample_docs : {0, 500}) {
      SCOPED_TRACE(std::string(MetricName(metric)) + " sample " + std::to_string(sample_docs));
      Problem problem{.num_docs = 8000, .params = {.k = 10, .metric = metric}};
      Make(problem, /*ties=*/false);
      // One dim takes all of the codes' range, and adds the same to all scores.
      for (size_t i = 0; i < doc_values_.size(); i += 65) {
        doc_values_[i] = i / 65 % 2 == 0 ? 1e4F : -1e4F;
      }
      for (size_t i = 0; i < query_values_.size(); i += 65) query_values_[i] = 0;
      SearchPlan plan = Plan(2);
      plan.screen = ScreenKind::kInt8Codes;
      plan.doc_block = 1024;
      plan.doc_tile = 128;
      plan.sample_docs = sample_docs;
      plan.sample_rank = 12;
      ExpectOracle(plan);
      const int64_t pairs = problem.num_queries * problem.num_docs;
      EXPECT_GT(refined_pairs_, pairs / 200);  // what was tried
      EXPECT_LT(refined_pairs_, pairs / 8);
      plan.doc_chunk = 3500;
      plan.num_chunks = 3;
      plan.doc_splits = 2;
      ExpectOracle(plan);
    }
  }
}

TEST_F(CpuEngineTest, ReturnsEveryDocInOrderForKEqualToD) {
  Make({.num_docs = 300, .params = {.k = 300}}, /*ties=*/true);
  ExpectOracle(Plan(2));
}

TEST_F(CpuEngineTest, StopsWhereverItIsCancelled) {
  // Cancelled from the n-th question on: in loading, screening, rescoring, whatever asks.
  struct Cancelling : Progress {
    explicit Cancelling(int after) : left(after) {}
    void Report(int64_t, int64_t) override {}
    bool cancelled() const override { return left.fetch_sub(1) <= 0; }
    mutable std::atomic<int> left;
  };
  Make({.params = {.k = 500}}, /*ties=*/true);
  int stopped = 0;
  for (int after = 0; after < 40; ++after) {
    Cancelling progress(after);
    Results results(problem_.params, problem_.num_queries);
    const auto report =
        MakeCpuEngine()->Search(*queries_, *docs_, problem_.params, Plan(2), &progress, results);
    if (report.ok()) break;
    EXPECT_EQ(report.status().code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(results.indices[0], -1) << "handed out after being cancelled";
    ++stopped;
  }
  EXPECT_GT(stopped, 5) << "the engine asks too rarely for this test to say much";
}

}  // namespace
}  // namespace tiny_knn
