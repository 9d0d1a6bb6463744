// What the conformance list does not ask of the CUDA engine: errors and their messages, memory that
// runs out, cancellation, warm docs. On an emulated GPU, which aborts if it sees a race
// or a read of what nobody wrote.
#include "gpu/cuda_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/io/row_source.h"
#include "core/matrix/matrix_view.h"
#include "core/search/engine.h"
#include "core/search/planner.h"
#include "core/search/search.h"
#include "gpu/emulation/emulation.h"
#include "gpu/tuned_cuda_engine.h"
#include "tests/conformance/conformance_cases.h"
#include "tests/conformance/run_case.h"

namespace tiny_knn {
namespace {

using emulation::EmulatedGpu;
using testing::HasSubstr;

// Rows of small whole numbers in every dtype, many of them equal.
struct Rows {
  std::vector<float> values;
  int64_t rows;
  int64_t dim;

  Rows(int64_t num_rows, int64_t num_dims, uint64_t seed) : rows(num_rows), dim(num_dims) {
    uint64_t state = seed;
    for (int64_t i = 0; i < rows * dim; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      values.push_back(static_cast<float>(static_cast<int32_t>(state >> 33) % 1000) / 64);
    }
  }
  MatrixView View() const {
    return {values.data(), DType::kFloat32, rows, dim, dim * int64_t{sizeof(float)}};
  }
};

class Collect : public TopKSink {
 public:
  absl::Status Take(int64_t /*first_query*/, const TopKView& part) override {
    const int64_t count = part.num_queries * part.k;
    indices.insert(indices.end(), part.indices, part.indices + count);
    const auto* const found = static_cast<const float*>(part.scores);
    scores.insert(scores.end(), found, found + count);
    return absl::OkStatus();
  }
  std::vector<int64_t> indices;
  std::vector<float> scores;
};

// Cancels when it was asked `patience` times; remembers reports.
class Watcher : public Progress {
 public:
  explicit Watcher(int64_t patience) : patience_(patience) {}
  void Report(int64_t pairs_done, int64_t pairs_total) override {
    EXPECT_GE(pairs_done, done);
    EXPECT_LE(pairs_done, pairs_total);
    done = pairs_done;
  }
  bool cancelled() const override { return ++asked > patience_; }
  int64_t done = 0;
  mutable int64_t asked = 0;

 private:
  const int64_t patience_;
};

struct Problem {
  Rows queries{5, 12, 1};
  Rows docs{300, 12, 2};
  SearchParams params{.k = 7};

  ProblemShape Shape() const {
    return {.num_queries = queries.rows,
            .num_docs = docs.rows,
            .dim = docs.dim,
            .k = params.k,
            .metric = params.metric,
            .compute_dtype = params.compute_dtype};
  }
  SearchPlan Plan() const {
    const auto plan = PlanSearch(Shape(), {.threads = 2, .memory_limit_bytes = int64_t{1} << 30});
    EXPECT_TRUE(plan.ok()) << plan.status();
    return *plan;
  }
  absl::Status Search(Engine& engine, Collect& found, Progress* progress = nullptr,
                      WarmDocs* warm = nullptr) const {
    const auto query_rows = MakeMemoryRowSource("queries", queries.View());
    const auto doc_rows = MakeMemoryRowSource("docs", docs.View());
    return engine.Search(*query_rows, *doc_rows, params, Plan(), progress, found, warm).status();
  }
};

std::unique_ptr<Engine> Open(const DeviceTuning& tuning = {}, int64_t gpu_memory_bytes = 0) {
  auto engine = MakeTunedCudaEngine(0, gpu_memory_bytes, tuning);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return *std::move(engine);
}

// Two slices of each chunk, two chunks, lists that overflow.
constexpr DeviceTuning kSmall{.query_batch = 3,
                              .doc_chunk = 160,
                              .slice_docs = 80,
                              .query_tile = 2,
                              .doc_tile = 64,
                              .capacity = 40};

TEST(CudaEngine, SaysThatThereIsNoDevice) {
  const EmulatedGpu gpu({.devices = 0});
  const auto engine = MakeCudaEngine(0, 0);
  EXPECT_TRUE(absl::IsUnavailable(engine.status())) << engine.status();
  EXPECT_THAT(std::string(engine.status().message()), HasSubstr("no CUDA device"));
}

TEST(CudaEngine, SaysHowManyDevicesThereAre) {
  const EmulatedGpu gpu({.devices = 2});
  const auto engine = MakeCudaEngine(2, 0);
  EXPECT_TRUE(absl::IsUnavailable(engine.status())) << engine.status();
  EXPECT_THAT(std::string(engine.status().message()), HasSubstr("this machine has 2"));
}

TEST(CudaEngine, EveryAllocationThatFailsIsAnErrorAndLeavesNothingBehind) {
  const Problem problem;
  int failures = 0;
  for (uint64_t failing = 0; failing < 200; failing += failing < 45 ? 1 : 13) {
    const EmulatedGpu gpu({.failing_allocation = failing});
    {
      auto engine = Open(kSmall);
      Collect found;
      const absl::Status status = problem.Search(*engine, found);
      if (!status.ok()) {
        ++failures;
        EXPECT_TRUE(absl::IsResourceExhausted(status)) << failing << ": " << status;
        EXPECT_TRUE(found.indices.empty()) << failing;
      }
    }
    EXPECT_EQ(gpu.live_allocations() + gpu.live_host_allocations(), 0u) << failing;
  }
  EXPECT_GT(failures, 30);
}

TEST(CudaEngine, EveryPinnedAllocationThatFailsIsAnError) {
  const Problem problem;
  int failures = 0;
  for (uint64_t failing = 0; failing < 12; ++failing) {
    const EmulatedGpu gpu({.failing_host_allocation = failing});
    auto engine = Open(kSmall);
    Collect found;
    const absl::Status status = problem.Search(*engine, found);
    failures += status.ok() ? 0 : 1;
    EXPECT_TRUE(status.ok() || absl::IsResourceExhausted(status)) << failing << ": " << status;
  }
  EXPECT_GT(failures, 5);
}

TEST(CudaEngine, EveryLaunchThatFailsIsAnErrorThatSaysWhichStepItWas) {
  const Problem problem;
  for (uint64_t failing = 0; failing < 60; failing += 4) {
    const EmulatedGpu gpu({.failing_launch = failing});
    auto engine = Open(kSmall);
    Collect found;
    const absl::Status status = problem.Search(*engine, found);
    EXPECT_TRUE(absl::IsInternal(status)) << failing << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("CUDA, "));
  }
}

TEST(CudaEngine, AProductThatFailsIsAnError) {
  const Problem problem;
  for (const uint64_t failing : {0, 3}) {
    const EmulatedGpu gpu({.failing_gemm = failing});
    auto engine = Open(kSmall);
    Collect found;
    const absl::Status status = problem.Search(*engine, found);
    EXPECT_TRUE(absl::IsInternal(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("cuBLAS failed"));
  }
}

// 67 MiB, 64 of them cuBLAS's: room for a part of the 4.9 MB of docs.
TEST(CudaEngine, CopiesDocsForEveryPassWhereKeepingThemLeavesTooLittle) {
  Problem problem;
  problem.docs = Rows(3000, 400, 3);
  problem.queries = Rows(3, 400, 4);
  Collect expected;
  const EmulatedGpu gpu({});
  ASSERT_TRUE(problem.Search(*Open(), expected).ok());
  DeviceTuning tuning;
  tuning.query_batch = 1;
  tuning.slice_docs = 100;
  tuning.doc_tile = 256;
  tuning.doubts = 16;
  Collect found;
  const absl::Status status = problem.Search(*Open(tuning, int64_t{67} << 20), found);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(found.indices, expected.indices);
  EXPECT_EQ(found.scores, expected.scores);
}

TEST(CudaEngine, TakesLessWhereWhatSeemedFreeIsNot) {
  Problem problem;
  problem.docs = Rows(3000, 400, 3);
  problem.queries = Rows(3, 400, 4);
  Collect expected;
  {
    const EmulatedGpu gpu({});
    ASSERT_TRUE(problem.Search(*Open(), expected).ok());
  }
  // 4.8 MB of docs, and 3 MB for everything.
  const EmulatedGpu gpu({.memory_bytes = uint64_t{3} << 20});
  DeviceTuning tuning;
  tuning.claimed_free_bytes = int64_t{1} << 30;
  tuning.slice_docs = 100;
  tuning.doc_tile = 256;
  tuning.doubts = 16;
  Collect found;
  const absl::Status status = problem.Search(*Open(tuning), found);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(found.indices, expected.indices);
  EXPECT_EQ(found.scores, expected.scores);
}

TEST(CudaEngine, ALimitOfMemoryThatCannotWorkSaysWhatWould) {
  const EmulatedGpu gpu({});
  const Problem problem;
  Collect found;
  const absl::Status status = problem.Search(*Open({}, int64_t{1} << 20), found);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("are needed"));
}

TEST(CudaEngine, StopsSoonWhenCancelledWhereverItIs) {
  const EmulatedGpu gpu({});
  const Problem problem;
  auto engine = Open(kSmall);
  int64_t asked = 0;
  {
    Watcher whole(INT64_MAX);
    Collect found;
    ASSERT_TRUE(problem.Search(*engine, found, &whole).ok());
    asked = whole.asked;
    EXPECT_EQ(whole.done, problem.queries.rows * problem.docs.rows);
  }
  for (int64_t patience = 0; patience < asked; patience += 1 + patience / 4) {
    Watcher watcher(patience);
    Collect found;
    const absl::Status status = problem.Search(*engine, found, &watcher);
    EXPECT_TRUE(absl::IsCancelled(status)) << patience << ": " << status;
    EXPECT_LE(watcher.asked, patience + 8) << "it went on";
  }
  Collect found;
  EXPECT_TRUE(problem.Search(*engine, found).ok()) << "a search after that";
}

TEST(CudaEngine, AnIntegerOutOfRangeIsNamedAsOnTheCpu) {
  const EmulatedGpu gpu({});
  std::vector<int16_t> values(100 * 4, 5);
  values[77 * 4 + 2] = 300;
  const auto docs = MakeMemoryRowSource("docs", {values.data(), DType::kInt16, 100, 4, 8});
  const auto queries = MakeMemoryRowSource("queries", {values.data(), DType::kInt16, 2, 4, 8});
  Problem problem;
  problem.queries = Rows(2, 4, 1);
  problem.docs = Rows(100, 4, 1);
  problem.params.compute_dtype = DType::kInt8;
  Collect found;
  const absl::Status status =
      Open(kSmall)
          ->Search(*queries, *docs, problem.params, problem.Plan(), nullptr, found)
          .status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("300"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("row 77"));
}

TEST(CudaEngine, Float64IsTheCpuEngines) {
  const EmulatedGpu gpu({});
  conformance::Case c;
  c.name = "float64";
  c.scenario = "bell";
  c.num_queries = 3;
  c.num_docs = 200;
  c.dim = 9;
  c.k = 5;
  c.query_dtype = c.doc_dtype = c.compute_dtype = DType::kFloat64;
  c.exclude_self = true;
  c.plan.query_batch = 2;
  EXPECT_EQ(conformance::RunCase(c, {"cuda", [] { return Open(); }}), "");
  EXPECT_EQ(gpu.counts().launches, 0u);
}

TEST(WarmCudaDocs, AreCopiedOnce) {
  const EmulatedGpu gpu({});
  const Problem problem;
  auto engine = Open();
  const auto warm = engine->MakeWarmDocs(problem.Shape(), problem.Plan());
  ASSERT_NE(warm, nullptr);
  EXPECT_EQ(warm->bytes(), 0) << "of the host's memory";
  Collect first, second;
  ASSERT_TRUE(problem.Search(*engine, first, nullptr, warm.get()).ok());
  ASSERT_TRUE(warm->filled());
  const uint64_t copied = gpu.counts().bytes_to_device;
  ASSERT_TRUE(problem.Search(*engine, second, nullptr, warm.get()).ok());
  EXPECT_LT(gpu.counts().bytes_to_device - copied, problem.docs.values.size() * sizeof(float) / 4);
  EXPECT_EQ(first.indices, second.indices);
  EXPECT_EQ(first.scores, second.scores);
}

TEST(WarmCudaDocs, OfASearchThatFailsAreGivenBack) {
  const EmulatedGpu gpu({});
  const Problem problem;
  auto engine = Open(kSmall);
  const auto warm = engine->MakeWarmDocs(problem.Shape(), problem.Plan());
  ASSERT_NE(warm, nullptr);
  const size_t before = gpu.live_allocations();
  Watcher watcher(4);
  Collect found;
  EXPECT_TRUE(absl::IsCancelled(problem.Search(*engine, found, &watcher, warm.get())));
  EXPECT_FALSE(warm->filled());
  // The ring and what doubts take stay for the next search.
  EXPECT_LE(gpu.live_allocations(), before + 6);
}

TEST(WarmCudaDocs, OfAnotherShapeAreRefused) {
  const EmulatedGpu gpu({});
  const Problem problem;
  auto engine = Open();
  ProblemShape shape = problem.Shape();
  shape.num_docs += 1;
  const auto warm = engine->MakeWarmDocs(shape, problem.Plan());
  ASSERT_NE(warm, nullptr);
  Collect found;
  EXPECT_TRUE(absl::IsInternal(problem.Search(*engine, found, nullptr, warm.get())));
}

TEST(WarmCudaDocs, ThatDoNotFitHalfOfTheDeviceAreNotKept) {
  const EmulatedGpu gpu({.memory_bytes = uint64_t{256} << 20});
  const Problem problem;
  auto engine = Open();
  ProblemShape shape = problem.Shape();
  shape.num_docs = 4000000;
  EXPECT_EQ(engine->MakeWarmDocs(shape, problem.Plan()), nullptr);
  shape.num_docs = 300;
  shape.compute_dtype = DType::kFloat64;
  EXPECT_EQ(engine->MakeWarmDocs(shape, problem.Plan()), nullptr) << "float64 is the CPU engine's";
}

TEST(WarmCudaDocs, OfOthersMakeRoom) {
  // 34.5 MiB each, and half of what the reserve leaves is 65 MiB.
  const EmulatedGpu gpu({.memory_bytes = uint64_t{194} << 20});
  Problem one;
  one.docs = Rows(9000, 1000, 3);
  one.queries = Rows(1, 1000, 4);
  const Problem two = one;
  DeviceTuning tuning;
  tuning.slice_docs = 1000;
  tuning.doubts = 16;
  tuning.no_tf32 = true;
  auto engine = Open(tuning);
  const auto first = engine->MakeWarmDocs(one.Shape(), one.Plan());
  const auto second = engine->MakeWarmDocs(two.Shape(), two.Plan());
  ASSERT_NE(first, nullptr);
  ASSERT_NE(second, nullptr);
  Collect found;
  ASSERT_TRUE(one.Search(*engine, found, nullptr, first.get()).ok());
  EXPECT_TRUE(first->filled());
  const absl::Status status = two.Search(*engine, found, nullptr, second.get());
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(second->filled());
  EXPECT_FALSE(first->filled());
}

}  // namespace
}  // namespace tiny_knn
