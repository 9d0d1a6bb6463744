// What every engine refuses, and how it hands out batches; a fake engine stands for the real ones.
#include "core/search/engine.h"

#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/io/row_source.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;

class FakeEngine : public Engine {
 public:
  std::string_view device() const override { return "fake"; }
  std::vector<std::pair<int64_t, int64_t>> batches;

 protected:
  absl::Status SearchBatch(RowSource&, int64_t first_query, int64_t num_queries, RowSource&,
                           const SearchParams&, const SearchPlan&, Progress&, const TopKView& out,
                           SearchReport&) override {
    batches.emplace_back(first_query, num_queries);
    for (int64_t i = 0; i < num_queries * out.k; ++i) out.indices[i] = first_query * out.k + i;
    return absl::OkStatus();
  }
};

struct CollectingSink : TopKSink {
  absl::Status Take(int64_t first_query, const TopKView& rows) override {
    EXPECT_EQ(first_query * rows.k, static_cast<int64_t>(indices.size()));
    indices.insert(indices.end(), rows.indices, rows.indices + rows.num_queries * rows.k);
    return result;
  }
  std::vector<int64_t> indices;
  absl::Status result;
};

const std::vector<double> kValues(100, 1.0);

std::unique_ptr<RowSource> Source(std::string name, int64_t rows, int64_t dim,
                                  DType dtype = DType::kFloat32) {
  return MakeMemoryRowSource(std::move(name),
                             {kValues.data(), dtype, rows, dim, dim * ItemSize(dtype)});
}

// Goes on from a state, and keeps what it is told.
struct FakeSaver : SearchSaver {
  const SearchState& start() const override { return from; }
  bool Due() override { return due; }
  absl::Status Save(const SearchState& state) override {
    saved.push_back(state.finished_queries);
    return result;
  }
  SearchState from;
  bool due = true;
  absl::Status result;
  std::vector<int64_t> saved;
};

std::string Refusal(const RowSource& queries, const RowSource& docs, const SearchParams& params) {
  const absl::Status status = ValidateSearch(queries, docs, params);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(ValidateSearchTest, NamesWhatIsWrongAndWhere) {
  const auto queries = Source("q.npy", 3, 4);
  const auto docs = Source("d.npy", 10, 4);
  EXPECT_TRUE(ValidateSearch(*queries, *docs, {.k = 10}).ok());
  EXPECT_EQ(Refusal(*queries, *docs, {.k = 11}), "k=11 exceeds the number of docs D=10 in d.npy");
  EXPECT_THAT(Refusal(*queries, *docs, {.k = 0}), HasSubstr("k=0 must be at least 1"));
  EXPECT_THAT(Refusal(*queries, *docs, {.k = 10, .exclude_self = true}),
              HasSubstr("k may be at most 9"));
  EXPECT_TRUE(ValidateSearch(*queries, *docs, {.k = 9, .exclude_self = true}).ok());
  EXPECT_THAT(Refusal(*Source("q.npy", 3, 5), *docs, {.k = 1}),
              HasSubstr("q.npy has dim=5, d.npy has dim=4"));
  EXPECT_THAT(Refusal(*queries, *Source("d.npy", 0, 4), {.k = 1}), HasSubstr("there are no docs"));
  EXPECT_THAT(Refusal(*Source("q.npy", 3, 0), *Source("d.npy", 3, 0), {.k = 1}),
              HasSubstr("dim=0"));
  EXPECT_THAT(Refusal(*queries, *docs, {.k = 1, .compute_dtype = DType::kInt8}),
              HasSubstr("q.npy"));
  EXPECT_TRUE(ValidateSearch(*Source("q.npy", 0, 4), *docs, {.k = 1}).ok());
  const int64_t many = int64_t{1} << 32;
  EXPECT_THAT(Refusal(*Source("q.npy", many, 4), *Source("d.npy", many, 4), {.k = 1}),
              HasSubstr("more pairs than can be counted"));
}

TEST(EngineTest, HandsOutEveryQueryOnceInBatches) {
  const auto queries = Source("q.npy", 10, 4);
  const auto docs = Source("d.npy", 10, 4);
  SearchPlan plan;
  plan.query_batch = 4;
  FakeEngine engine;
  CollectingSink sink;
  ASSERT_TRUE(engine.Search(*queries, *docs, {.k = 2}, plan, nullptr, sink).ok());
  EXPECT_THAT(engine.batches,
              testing::ElementsAre(std::pair{0, 4}, std::pair{4, 4}, std::pair{8, 2}));
  ASSERT_EQ(sink.indices.size(), 20U);
  for (int64_t i = 0; i < 20; ++i) EXPECT_EQ(sink.indices[static_cast<size_t>(i)], i);
}

TEST(EngineTest, StaysCancelledOnceItWas) {
  struct Once : Progress {
    void Report(int64_t, int64_t) override {}
    bool cancelled() const override { return calls++ == 1; }
    mutable int calls = 0;
  } once;
  struct AskingEngine : FakeEngine {
    absl::Status SearchBatch(RowSource&, int64_t, int64_t, RowSource&, const SearchParams&,
                             const SearchPlan&, Progress& progress, const TopKView&,
                             SearchReport&) override {
      EXPECT_TRUE(progress.cancelled());
      EXPECT_TRUE(progress.cancelled());
      return absl::CancelledError("seen");
    }
  } engine;
  const auto queries = Source("q.npy", 10, 4);
  const auto docs = Source("d.npy", 10, 4);
  SearchPlan plan;
  plan.query_batch = 10;
  CollectingSink sink;
  EXPECT_EQ(engine.Search(*queries, *docs, {.k = 2}, plan, &once, sink).status(),
            absl::CancelledError("seen"));
}

TEST(EngineTest, TurnsLackOfMemoryIntoAStatus) {
  struct HungryEngine : FakeEngine {
    absl::Status SearchBatch(RowSource&, int64_t, int64_t, RowSource&, const SearchParams&,
                             const SearchPlan&, Progress&, const TopKView&,
                             SearchReport&) override {
      throw std::bad_alloc();
    }
  } engine;
  const auto queries = Source("q.npy", 10, 4);
  const auto docs = Source("d.npy", 10, 4);
  SearchPlan plan;
  plan.query_batch = 10;
  CollectingSink sink;
  const auto report = engine.Search(*queries, *docs, {.k = 2}, plan, nullptr, sink);
  EXPECT_EQ(report.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(report.status().message(), HasSubstr("--memory-limit"));
}

TEST(EngineTest, EndsWithTheSinksError) {
  const auto queries = Source("q.npy", 10, 4);
  const auto docs = Source("d.npy", 10, 4);
  SearchPlan plan;
  plan.query_batch = 4;
  FakeEngine engine;
  CollectingSink sink;
  sink.result = absl::ResourceExhaustedError("disk full");
  const auto report = engine.Search(*queries, *docs, {.k = 2}, plan, nullptr, sink);
  EXPECT_EQ(report.status(), sink.result);
  EXPECT_EQ(engine.batches.size(), 1U);
}

// Keeps the docs of searches that went well.
class WarmFakeEngine : public FakeEngine {
 public:
  std::vector<std::string> calls;
  absl::Status start;
  bool out_of_memory = false;

 protected:
  absl::Status StartWarmSearch(WarmDocs&, const RowSource& docs, const SearchParams&,
                               const SearchPlan&) override {
    calls.push_back("start " + docs.name());
    return start;
  }
  void EndWarmSearch(bool complete) override { calls.emplace_back(complete ? "keep" : "drop"); }
  absl::Status SearchBatch(RowSource& queries, int64_t first_query, int64_t num_queries,
                           RowSource& docs, const SearchParams& params, const SearchPlan& plan,
                           Progress& progress, const TopKView& out, SearchReport& report) override {
    calls.emplace_back("batch");
    if (out_of_memory) throw std::bad_alloc();
    return FakeEngine::SearchBatch(queries, first_query, num_queries, docs, params, plan, progress,
                                   out, report);
  }
};

struct FakeWarmDocs : WarmDocs {
  bool filled() const override { return false; }
  int64_t bytes() const override { return 0; }
};

TEST(EngineTest, KeepsWarmDocsOfWholeSearchesOnly) {
  const auto queries = Source("q.npy", 10, 4);
  const auto docs = Source("d.npy", 10, 4);
  SearchPlan plan;
  plan.query_batch = 5;
  FakeWarmDocs warm;
  WarmFakeEngine engine;
  CollectingSink sink;
  const auto calls = [&] {
    const absl::Status status =
        engine.Search(*queries, *docs, {.k = 2}, plan, nullptr, sink, &warm).status();
    engine.calls.emplace_back(status.ok() ? "ok" : "failed");
    sink.indices.clear();
    return std::exchange(engine.calls, {});
  };
  using testing::ElementsAre;
  EXPECT_THAT(calls(), ElementsAre("start d.npy", "batch", "batch", "keep", "ok"));
  sink.result = absl::ResourceExhaustedError("disk full");
  EXPECT_THAT(calls(), ElementsAre("start d.npy", "batch", "drop", "failed"));
  sink.result = absl::OkStatus();
  engine.out_of_memory = true;
  EXPECT_THAT(calls(), ElementsAre("start d.npy", "batch", "drop", "failed"));
  engine.start = absl::InternalError("others");
  EXPECT_THAT(calls(), ElementsAre("start d.npy", "failed"));
  // Not without warm docs, and not for a question that is refused.
  EXPECT_FALSE(engine.Search(*queries, *docs, {.k = 11}, plan, nullptr, sink, &warm).ok());
  engine.out_of_memory = false;
  EXPECT_TRUE(engine.Search(*queries, *docs, {.k = 2}, plan, nullptr, sink).ok());
  EXPECT_THAT(engine.calls, ElementsAre("batch", "batch"));
}

TEST(EngineTest, RefusesWarmDocsUnlessItKeepsSome) {
  const auto queries = Source("q.npy", 10, 4);
  const auto docs = Source("d.npy", 10, 4);
  SearchPlan plan;
  plan.query_batch = 5;
  FakeWarmDocs warm;
  FakeEngine engine;
  CollectingSink sink;
  EXPECT_EQ(engine.MakeWarmDocs({}, plan), nullptr);
  const auto report = engine.Search(*queries, *docs, {.k = 2}, plan, nullptr, sink, &warm);
  EXPECT_EQ(report.status().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(engine.batches.empty());
}

TEST(EngineTest, GoesOnBehindWhatIsFinishedAndSavesAfterEachBatch) {
  const auto queries = Source("q", 10, 2), docs = Source("d", 7, 2);
  FakeEngine engine;
  CollectingSink sink;
  sink.indices.resize(8);  // of the four queries that were handed out before
  FakeSaver saver;
  saver.from.finished_queries = 4;
  saver.from.report.nonfinite_doc_rows = 3;
  SearchPlan plan;
  plan.query_batch = 4;
  const auto report =
      engine.Search(*queries, *docs, {.k = 2}, plan, nullptr, sink, nullptr, &saver);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(engine.batches, (std::vector<std::pair<int64_t, int64_t>>{{4, 4}, {8, 2}}));
  EXPECT_EQ(saver.saved, std::vector<int64_t>{8}) << "the end needs no saving";
  EXPECT_EQ(report->nonfinite_doc_rows, 3);
}

TEST(EngineTest, QueriesThatStandElsewhereAreNotInOneBatch) {
  const auto queries = Source("q", 10, 2), docs = Source("d", 7, 2);
  FakeEngine engine;
  CollectingSink sink;
  FakeSaver saver;
  // Two queries are done with all docs, three with four of them, the others with none.
  for (const auto& [first, count, done] : {std::tuple(0, 2, 7), {2, 3, 4}}) {
    SearchSpan span;
    span.first_query = first;
    span.num_queries = count;
    span.docs_done = done;
    for (int64_t query = 0; query < count; ++query) {
      span.counts.push_back(1);
      span.docs.push_back({0x80000000, 3});
    }
    saver.from.spans.push_back(span);
  }
  SearchPlan plan;
  plan.query_batch = 100;
  const auto report =
      engine.Search(*queries, *docs, {.k = 1}, plan, nullptr, sink, nullptr, &saver);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(engine.batches, (std::vector<std::pair<int64_t, int64_t>>{{2, 3}, {5, 5}}));
  EXPECT_EQ(sink.indices[0], 3) << "as it was saved";
  EXPECT_EQ(saver.saved, (std::vector<int64_t>{2, 5}));
}

TEST(EngineTest, ASaverThatFailsEndsTheSearchAndAStateOfAnotherOneIsRefused) {
  const auto queries = Source("q", 10, 2), docs = Source("d", 7, 2);
  FakeEngine engine;
  CollectingSink sink;
  FakeSaver saver;
  saver.result = absl::ResourceExhaustedError("no space");
  SearchPlan plan;
  plan.query_batch = 4;
  const auto search = [&] {
    return engine.Search(*queries, *docs, {.k = 2}, plan, nullptr, sink, nullptr, &saver).status();
  };
  EXPECT_TRUE(absl::IsResourceExhausted(search()));
  EXPECT_EQ(engine.batches.size(), 1U);
  saver.due = false;
  sink.indices.clear();
  EXPECT_TRUE(search().ok());
  saver.from.finished_queries = 11;
  EXPECT_TRUE(absl::IsInvalidArgument(search()));
}

}  // namespace
}  // namespace tiny_knn
