// --dry-run with the CUDA engine: its own plan, on an emulated GPU of a known size.
#include <sstream>
#include <string>
#include <vector>

#include "core/io/row_source.h"
#include "core/job/job_report.h"
#include "core/search/planner.h"
#include "gmock/gmock.h"
#include "gpu/cuda_engine.h"
#include "gpu/emulation/emulation.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;

constexpr int64_t kMiB = int64_t{1} << 20;

// 1,000 x 20,000 x 64 float32, k = 10, in batches of 400 queries.
class DryRunTest : public testing::Test {
 protected:
  DryRunTest() {
    shape_ = {.num_queries = 1000, .num_docs = 20000, .dim = 64, .k = 10};
    const auto plan = PlanSearch(
        shape_,
        {.threads = 2, .memory_limit_bytes = int64_t{1} << 30, .requested_batch_size = 400});
    EXPECT_TRUE(plan.ok()) << plan.status();
    plan_ = *plan;
  }

  absl::StatusOr<std::string> Describe(int64_t gpu_memory_bytes) const {
    const auto engine = MakeCudaEngine(0, gpu_memory_bytes);
    if (!engine.ok()) return engine.status();
    return (*engine)->Describe(shape_, plan_);
  }

  static std::vector<std::string> Lines(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
  }

  ProblemShape shape_;
  SearchPlan plan_;
};

TEST_F(DryRunTest, ItIsTheDevicesPlan) {
  const emulation::EmulatedGpu gpu({.memory_bytes = 1024 * kMiB});
  const auto text = Describe(0);
  ASSERT_TRUE(text.ok()) << text.status();
  const std::vector<std::string> lines = Lines(*text);
  ASSERT_EQ(lines.size(), 8U) << *text;
  EXPECT_THAT(lines[0], HasSubstr("1000 queries x 20000 docs x 64 dims, k=10"));
  EXPECT_EQ(lines[1], "screen        TF32 products by cuBLAS, tiles of 400 queries x 2560 docs");
  EXPECT_EQ(lines[2],
            "batches       3 of up to 400 queries, one pass over the docs each, which stay on the "
            "device");
  EXPECT_EQ(lines[3], "chunks        1 per pass, of up to 20000 docs, copied 20000 at a time");
  EXPECT_EQ(lines[4], "candidates    2068 per query");
  EXPECT_EQ(lines[5], "bytes read    5.1 MiB");
  EXPECT_THAT(lines[6], MatchesRegex("device memory [0-9.]+ MiB of [0-9.]+ MiB: docs 10.2 MiB, "
                                     "queries [0-9.]+ MiB, tile, staging and library 101.5 MiB"));
  EXPECT_EQ(lines[7], "pinned memory 27.3 MiB");
}

// Where the docs leave too little, they are copied for every pass.
TEST_F(DryRunTest, LessMemoryTakesMorePassesAndChunks) {
  const emulation::EmulatedGpu gpu({.memory_bytes = 1024 * kMiB});
  const auto text = Describe(108 * kMiB);
  ASSERT_TRUE(text.ok()) << text.status();
  const std::vector<std::string> lines = Lines(*text);
  ASSERT_EQ(lines.size(), 8U) << *text;
  EXPECT_THAT(lines[2], MatchesRegex("batches       [0-9]+ of up to [0-9]+ queries, one "
                                     "pass over the docs each"));
  EXPECT_THAT(lines[3], MatchesRegex("chunks        [2-9] per pass, of up to [0-9]+ docs, copied "
                                     "[0-9]+ at a time"));
  EXPECT_THAT(lines[6], HasSubstr("of 108.0 MiB: "));
}

TEST_F(DryRunTest, AnErrorOfTheSearchIsOneOfTheDryRun) {
  const emulation::EmulatedGpu gpu({.memory_bytes = 1024 * kMiB});
  const auto text = Describe(8 * kMiB);
  EXPECT_TRUE(absl::IsResourceExhausted(text.status())) << text.status();
  EXPECT_THAT(std::string(text.status().message()),
              HasSubstr("8 MiB of device memory are too little for k=10 and dim=64"));
}

TEST_F(DryRunTest, WhatTheCpuIsLeftToIsItsPlan) {
  const emulation::EmulatedGpu gpu({});
  shape_.compute_dtype = DType::kFloat64;
  const auto text = Describe(0);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, DescribePlan(shape_, plan_) +
                       "computed by   the CPU, which this dtype or size is left to\n");
}

TEST_F(DryRunTest, TheLinesOfAJobNameTheDevice) {
  const emulation::EmulatedGpu gpu({.memory_bytes = 1024 * kMiB});
  const auto engine = MakeCudaEngine(0, 0);
  ASSERT_TRUE(engine.ok()) << engine.status();
  const std::vector<float> values(64);
  JobSpec spec;
  spec.queries_path = std::string("q.npy");
  spec.docs_path = std::string("d.npy");
  PreparedJob job;
  job.queries = MakeMemoryRowSource("q.npy", {values.data(), DType::kFloat32, 1, 64});
  job.docs = MakeMemoryRowSource("d.npy", {values.data(), DType::kFloat32, 1, 64});
  job.shape = shape_;
  job.plan = plan_;
  const auto lines = PlanLines(spec, job, **engine);
  ASSERT_TRUE(lines.ok()) << lines.status();
  EXPECT_EQ((*lines)[3], "device        cuda");
  EXPECT_THAT((*lines)[5], HasSubstr("products by cuBLAS"));
}

}  // namespace
}  // namespace tiny_knn
