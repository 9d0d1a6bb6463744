// Searches that fill warm docs and searches that use them: what is read, what is kept when, and
// that nothing else changes. The conformance list compares both with the oracle.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/cpu/cpu_engine.h"
#include "core/cpu/cpu_warm_docs.h"
#include "core/cpu/warm_search_for_test.h"
#include "core/search/engine.h"
#include "core/search/planner.h"
#include "core/search/search.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;

constexpr int64_t kQueries = 11;
constexpr int64_t kDocs = 900;

struct CancelledAfter : Progress {
  explicit CancelledAfter(int questions) : left(questions) {}
  void Report(int64_t, int64_t) override {}
  bool cancelled() const override { return left.fetch_sub(1) <= 0; }
  mutable std::atomic<int> left;
};

class WarmSearchTest : public testing::Test {
 protected:
  static MatrixView View(const std::vector<float>& values, int64_t rows) {
    return {values.data(), DType::kFloat32, rows, kDim, kDim * int64_t{sizeof(float)}};
  }

  static ProblemShape Shape(const SearchParams& params) {
    return {.num_queries = kQueries,
            .num_docs = kDocs,
            .dim = kDim,
            .k = params.k,
            .metric = params.metric,
            .compute_dtype = params.compute_dtype};
  }

  static SearchPlan Plan(const SearchParams& params, int threads = 2) {
    return PlanSearch(Shape(params), {.threads = threads, .memory_limit_bytes = int64_t{1} << 30})
        .value();
  }

  // Several batches, blocks and tiles; the docs in one chunk.
  static SearchPlan SmallPlan(const SearchParams& params, int threads, int64_t query_batch) {
    SearchPlan plan = Plan(params, threads);
    plan.query_batch = query_batch;
    plan.doc_block = 70;
    plan.doc_tile = 33;
    plan.query_tile = 2;
    plan.doc_splits = threads;
    return plan;
  }

  std::unique_ptr<WarmDocs> MakeWarm(const SearchParams& params) const {
    return engine_->MakeWarmDocs(Shape(params), Plan(params));
  }

  absl::StatusOr<SearchReport> Search(const SearchParams& params, const SearchPlan& plan,
                                      Results& results, WarmDocs* warm,
                                      Progress* progress = nullptr) {
    return engine_->Search(queries_, docs_, params, plan, progress, results, warm);
  }

  // Searches with `warm` and without, and compares all that is to be the same.
  void ExpectAsCold(const SearchParams& params, const SearchPlan& plan, WarmDocs& warm) {
    WatchedSource cold_docs("docs", View(doc_values_, kDocs));
    Results expected;
    const auto expected_report =
        MakeCpuEngine()->Search(queries_, cold_docs, params, plan, nullptr, expected);
    ASSERT_TRUE(expected_report.ok()) << expected_report.status();
    Results found;
    const auto report = Search(params, plan, found, &warm);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(found.indices, expected.indices);
    EXPECT_EQ(found.scores, expected.scores);
    EXPECT_EQ(report->nonfinite_query_rows, expected_report->nonfinite_query_rows);
    EXPECT_EQ(report->nonfinite_doc_rows, expected_report->nonfinite_doc_rows);
    EXPECT_EQ(report->infs_made_in_queries, expected_report->infs_made_in_queries);
    EXPECT_EQ(report->infs_made_in_docs, expected_report->infs_made_in_docs);
    EXPECT_EQ(report->queries_with_tie_at_k, expected_report->queries_with_tie_at_k);
  }

  static int64_t Allocated(const WarmDocs& warm) {
    return dynamic_cast<const CpuWarmDocs&>(warm).allocated_bytes();
  }

  std::vector<float> query_values_ = GaussianRows(kQueries, 1);
  std::vector<float> doc_values_ = GaussianRows(kDocs, 2);
  WatchedSource queries_{"queries", View(query_values_, kQueries)};
  WatchedSource docs_{"docs", View(doc_values_, kDocs)};
  std::unique_ptr<Engine> engine_ = MakeCpuEngine();
};

TEST_F(WarmSearchTest, ReadsDocsOnceWhereTheRowsThatAreKeptServeScoringToo) {
  for (const Metric metric : {Metric::kInnerProduct, Metric::kL2}) {
    for (const DType compute : {DType::kFloat32, DType::kFloat16}) {
      const SearchParams params{.k = 10, .metric = metric, .compute_dtype = compute};
      const auto warm = MakeWarm(params);
      ASSERT_NE(warm, nullptr);
      docs_.reads = 0;
      ExpectAsCold(params, SmallPlan(params, 2, 4), *warm);
      EXPECT_TRUE(warm->filled());
      EXPECT_EQ(docs_.reads, 1) << "later batches read docs again";
      ExpectAsCold(params, Plan(params), *warm);
      EXPECT_EQ(docs_.reads, 1);
    }
  }
}

TEST_F(WarmSearchTest, ServesSearchesOfAnotherPlanAndK) {
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    for (const DType compute : {DType::kFloat32, DType::kFloat64}) {
      SearchParams params{.k = 10, .metric = metric, .compute_dtype = compute};
      const auto warm = MakeWarm(params);
      ASSERT_NE(warm, nullptr);
      ExpectAsCold(params, Plan(params), *warm);
      ASSERT_TRUE(warm->filled());
      params.exclude_self = true;
      for (const int64_t k : {1, 300}) {
        params.k = k;
        ExpectAsCold(params, SmallPlan(params, 3, 5), *warm);
        ExpectAsCold(params, SmallPlan(params, 1, 1), *warm);
        SearchPlan chunks = SmallPlan(params, 2, kQueries);
        chunks.doc_chunk = 140;
        ExpectAsCold(params, chunks, *warm);
      }
    }
  }
}

TEST_F(WarmSearchTest, PreparesDocsOnceWhereTheyAreReadAgainForScoring) {
  for (const auto& [metric, compute] : {std::pair{Metric::kCosine, DType::kFloat32},
                                        {Metric::kInnerProduct, DType::kFloat64},
                                        {Metric::kCosine, DType::kFloat64}}) {
    const SearchParams params{.k = 3, .metric = metric, .compute_dtype = compute};
    const auto warm = MakeWarm(params);
    ASSERT_NE(warm, nullptr);
    Results before;
    ASSERT_TRUE(Search(params, Plan(params), before, warm.get()).ok());
    // A doc that no query wants; prepared again it would be counted, and found at every rank.
    int64_t unwanted = 0;
    while (std::count(before.indices.begin(), before.indices.end(), unwanted) > 0) ++unwanted;
    const float value = std::exchange(doc_values_[static_cast<size_t>(unwanted * kDim)],
                                      std::numeric_limits<float>::infinity());
    Results after;
    const auto report = Search(params, Plan(params), after, warm.get());
    doc_values_[static_cast<size_t>(unwanted * kDim)] = value;
    ASSERT_TRUE(report.ok());
    EXPECT_EQ(report->nonfinite_doc_rows, 0);
    EXPECT_EQ(after.indices, before.indices);
    EXPECT_EQ(after.scores, before.scores);
  }
}

TEST_F(WarmSearchTest, RepeatsWhatWasCountedInTheDocs) {
  const SearchParams params{.k = 4, .compute_dtype = DType::kFloat16};
  doc_values_[5 * kDim + 1] = std::nanf("");
  doc_values_[7 * kDim] = 1e6F;  // infinite in float16
  const auto warm = MakeWarm(params);
  ExpectAsCold(params, SmallPlan(params, 2, 3), *warm);
  ExpectAsCold(params, SmallPlan(params, 1, 7), *warm);
  Results results;
  const auto report = Search(params, Plan(params), results, warm.get());
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->nonfinite_doc_rows, 2);
  EXPECT_EQ(report->infs_made_in_docs, 1);
}

TEST_F(WarmSearchTest, KeepsNothingOfASearchThatIsCancelled) {
  const SearchParams params{.k = 100};
  const auto warm = MakeWarm(params);
  int stopped = 0;
  for (int questions = 0; questions < 200; ++questions) {
    CancelledAfter progress(questions);
    Results results;
    const auto report = Search(params, SmallPlan(params, 2, 4), results, warm.get(), &progress);
    if (report.ok()) break;
    EXPECT_EQ(report.status().code(), absl::StatusCode::kCancelled);
    EXPECT_FALSE(warm->filled());
    EXPECT_EQ(Allocated(*warm), 0);
    ++stopped;
  }
  EXPECT_GT(stopped, 20);
  ExpectAsCold(params, Plan(params), *warm);
  EXPECT_TRUE(warm->filled());
}

TEST_F(WarmSearchTest, KeepsNothingOfASearchThatFails) {
  const SearchParams params{.k = 10};
  const auto warm = MakeWarm(params);
  Results full_disk;
  full_disk.batches_left = 1;  // the docs are all in by then
  EXPECT_EQ(Search(params, SmallPlan(params, 2, 4), full_disk, warm.get()).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(warm->filled());
  EXPECT_EQ(Allocated(*warm), 0);

  // Wherever the change of the file is seen: in a block, or when the last batch is done.
  int failed = 0;
  for (int checks = 0; checks < 100; ++checks) {
    docs_.checks_left = checks;
    Results results;
    const auto report = Search(params, SmallPlan(params, 2, 6), results, warm.get());
    if (report.ok()) break;
    EXPECT_EQ(report.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_FALSE(warm->filled());
    EXPECT_EQ(Allocated(*warm), 0);
    ++failed;
  }
  EXPECT_GT(failed, 13) << "one for each block at least";
  EXPECT_TRUE(warm->filled());
}

TEST_F(WarmSearchTest, KeepsNothingOfDocsThatDoNotFitTheDType) {
  const SearchParams params{.k = 1, .compute_dtype = DType::kInt8};
  std::vector<int32_t> values(kDocs * kDim, 7);
  values[800 * kDim + 3] = 1000;
  const MatrixView view{values.data(), DType::kInt32, kDocs, kDim, kDim * 4};
  WatchedSource docs("docs", view);
  WatchedSource queries("queries", view.Slice(0, 3));
  ProblemShape shape = Shape(params);
  shape.doc_dtype = DType::kInt32;
  const auto warm = engine_->MakeWarmDocs(shape, Plan(params));
  Results results;
  const auto report =
      engine_->Search(queries, docs, params, SmallPlan(params, 2, 3), nullptr, results, warm.get());
  EXPECT_THAT(report.status().message(), HasSubstr("row 800"));
  EXPECT_FALSE(warm->filled());
  EXPECT_EQ(Allocated(*warm), 0);
}

TEST_F(WarmSearchTest, StaysFilledWhenALaterSearchEndsEarly) {
  const SearchParams params{.k = 10};
  const auto warm = MakeWarm(params);
  ExpectAsCold(params, Plan(params), *warm);
  CancelledAfter progress(3);
  Results results;
  EXPECT_EQ(Search(params, Plan(params), results, warm.get(), &progress).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_TRUE(warm->filled());
  docs_.reads = 0;
  ExpectAsCold(params, Plan(params), *warm);
  EXPECT_EQ(docs_.reads, 0);
}

TEST_F(WarmSearchTest, TakesTheMemoryItSaysWhenItIsFilled) {
  const SearchParams params{.k = 10, .metric = Metric::kCosine};
  const auto warm = MakeWarm(params);
  const int64_t bytes = warm->bytes();
  EXPECT_GE(bytes, kDocs * (kDim + 3) * 4);
  EXPECT_EQ(Allocated(*warm), 0);
  ExpectAsCold(params, Plan(params), *warm);
  EXPECT_EQ(warm->bytes(), bytes);
  EXPECT_EQ(Allocated(*warm), bytes);
}

TEST_F(WarmSearchTest, StaysEmptyWithoutQueriesOrWithDocsInChunks) {
  const SearchParams params{.k = 10};
  const auto warm = MakeWarm(params);
  SearchPlan chunks = Plan(params);
  chunks.doc_chunk = kDocs / 2;
  chunks.num_chunks = 2;
  EXPECT_EQ(engine_->MakeWarmDocs(Shape(params), chunks), nullptr);
  ExpectAsCold(params, chunks, *warm);
  EXPECT_FALSE(warm->filled());
  WatchedSource no_queries("none", View(query_values_, 0));
  Results results;
  EXPECT_TRUE(
      engine_->Search(no_queries, docs_, params, Plan(params), nullptr, results, warm.get()).ok());
  EXPECT_FALSE(warm->filled());
  EXPECT_EQ(Allocated(*warm), 0);
}

TEST_F(WarmSearchTest, ReadsDocsOfABufferOnlyAsThePlanSays) {
  SearchParams params{.k = 10, .metric = Metric::kCosine};
  ProblemShape shape = Shape(params);
  shape.doc_buffer_bytes_per_row = kDim * 4;
  EXPECT_EQ(engine_->MakeWarmDocs(shape, Plan(params)), nullptr);
  shape.metric = Metric::kL2;
  EXPECT_NE(engine_->MakeWarmDocs(shape, Plan(params)), nullptr);
  shape.compute_dtype = DType::kFloat64;
  EXPECT_EQ(engine_->MakeWarmDocs(shape, Plan(params)), nullptr);

  // Filled from a mapped file, then searched with the same docs behind a buffer.
  const auto warm = MakeWarm(params);
  ExpectAsCold(params, Plan(params), *warm);
  WatchedSource buffered("docs", View(doc_values_, kDocs), kDim * 4);
  SearchPlan chunks = Plan(params);
  chunks.doc_chunk = 100;
  Results results;
  ASSERT_TRUE(
      engine_->Search(queries_, buffered, params, chunks, nullptr, results, warm.get()).ok());
  EXPECT_EQ(buffered.largest_read, 100);
}

TEST_F(WarmSearchTest, RefusesWarmDocsOfSomethingElse) {
  const SearchParams params{.k = 10};
  const auto warm = MakeWarm(params);
  for (const bool filled : {false, true}) {
    if (filled) ExpectAsCold(params, Plan(params), *warm);
    Results results;
    const auto refusal = [&](const SearchParams& other, RowSource& docs) {
      WatchedSource queries("queries", View(query_values_, 3));
      const auto report =
          engine_->Search(queries, docs, other, Plan(params), nullptr, results, warm.get());
      EXPECT_EQ(report.status().code(), absl::StatusCode::kInternal);
      EXPECT_EQ(warm->filled(), filled);
      return std::string(report.status().message());
    };
    EXPECT_EQ(refusal({.k = 10, .metric = Metric::kL2}, docs_),
              "docs: the warm docs given to this search are 900 x 37 float32 docs for metric ip in "
              "float32, it searches 900 x 37 float32 docs for metric l2 in float32");
    EXPECT_THAT(refusal({.k = 10, .compute_dtype = DType::kFloat16}, docs_), HasSubstr("float16"));
    WatchedSource fewer("fewer", View(doc_values_, kDocs - 1));
    EXPECT_THAT(refusal(params, fewer), HasSubstr("fewer: "));
    const std::vector<uint8_t> bytes(kDocs * kDim);
    WatchedSource integers("integers", {bytes.data(), DType::kUInt8, kDocs, kDim, kDim});
    EXPECT_THAT(refusal(params, integers), HasSubstr("uint8"));
    EXPECT_TRUE(results.indices.empty());
  }
  struct Foreign : WarmDocs {
    bool filled() const override { return true; }
    int64_t bytes() const override { return 0; }
  } foreign;
  Results results;
  EXPECT_EQ(Search(params, Plan(params), results, &foreign).status().code(),
            absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace tiny_knn
