#include "gpu/device_plan.h"

#include <gtest/gtest.h>

#include <limits>

namespace tiny_knn {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kGiB = int64_t{1} << 30;
constexpr DeviceTraits kH100{90, 50 * kMiB};
constexpr DeviceTraits kTuring{75, 4 * kMiB};

DeviceShape LargeShape() {
  DeviceShape shape;
  shape.num_queries = 100000;
  shape.num_docs = 10000000;
  shape.dim = 768;
  shape.k = 2000;
  shape.doc_item_bytes = 2;
  shape.format = ChooseRowFormat(DType::kFloat16, shape.dim, shape.num_queries, kH100, {});
  return shape;
}

TEST(PlanOnDevice, TakesAllQueriesInOnePassWhereTheyLeaveHalfToTheDocs) {
  const auto plan = PlanOnDevice(LargeShape(), kH100, 78 * kGiB, {});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->query_batch, 100000);
  EXPECT_EQ(plan->doc_chunk, 10000000);
  EXPECT_LE(plan->bytes, 78 * kGiB);
}

TEST(PlanOnDevice, KeepsTheTileInCacheAndAligned) {
  for (const DeviceTraits& traits :
       {kH100, DeviceTraits{80, 40 * kMiB}, DeviceTraits{89, 72 * kMiB}}) {
    const auto plan = PlanOnDevice(LargeShape(), traits, 70 * kGiB, {});
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_LE(plan->query_tile * plan->doc_tile * 4, traits.l2_bytes * 2 / 3);
    EXPECT_GE(plan->query_tile * plan->doc_tile * 4, traits.l2_bytes / 2);
    EXPECT_EQ(plan->doc_tile % 4, 0);
  }
}

TEST(PlanOnDevice, StaysWithinEveryBudgetThatWorksAtAll) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kInt8}) {
    for (int64_t k : {1, 10, 2000, 100000, 5000000}) {
      DeviceShape shape = LargeShape();
      shape.k = k;
      shape.format = ChooseRowFormat(dtype, shape.dim, shape.num_queries, kH100, {});
      for (int64_t budget = 64 * kMiB; budget <= 80 * kGiB; budget += budget / 3) {
        const auto plan = PlanOnDevice(shape, kH100, budget, {});
        if (!plan.ok()) {
          EXPECT_TRUE(absl::IsResourceExhausted(plan.status())) << plan.status();
          EXPECT_LT(budget, 512 * kMiB + 100 * k);
          continue;
        }
        EXPECT_LE(plan->bytes, budget) << k << " " << budget;
        EXPECT_GE(plan->query_batch, 1);
        EXPECT_GE(plan->doc_chunk, 1);
        EXPECT_GE(plan->capacity, 1);
        EXPECT_LE(plan->query_tile, plan->query_batch);
        EXPECT_LE(plan->group, plan->query_batch);
        EXPECT_LE(plan->slice_docs, plan->doc_chunk);
      }
    }
  }
}

TEST(PlanOnDevice, ListsHoldKAndWhatATileBrings) {
  DeviceShape shape = LargeShape();
  for (const int64_t k : {1, 100, 2048, 2049, 100000}) {
    shape.k = k;
    const auto plan = PlanOnDevice(shape, kH100, 70 * kGiB, {});
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_GE(plan->capacity / 2, k);
  }
}

TEST(PlanOnDevice, ResidentDocsAreInNoBudget) {
  DeviceShape shape = LargeShape();
  shape.num_queries = 10;
  shape.docs_are_resident = true;
  const auto plan = PlanOnDevice(shape, kH100, kGiB, {});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->doc_chunk, shape.num_docs);
}

TEST(PlanOnDevice, TuningMakesItSmallerOnly) {
  DeviceTuning tuning;
  tuning.query_batch = 3;
  tuning.doc_chunk = 50;
  tuning.slice_docs = 20;
  tuning.query_tile = 2;
  tuning.doc_tile = 7;
  tuning.capacity = 5;
  tuning.group = 2;
  tuning.doubts = 1;
  const auto plan = PlanOnDevice(LargeShape(), kH100, 70 * kGiB, tuning);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->query_batch, 3);
  EXPECT_EQ(plan->doc_chunk, 50);
  EXPECT_EQ(plan->slice_docs, 20);
  EXPECT_EQ(plan->query_tile, 2);
  EXPECT_EQ(plan->doc_tile, 8);
  EXPECT_EQ(plan->capacity, 5);
  EXPECT_EQ(plan->group, 2);
  EXPECT_EQ(plan->doubts, 1);
}

TEST(ChooseRowFormat, KeepsSmallTypesAndRoundsFloat32ForManyQueries) {
  const auto format = [](DType dtype, int64_t queries, const DeviceTraits& traits) {
    return ChooseRowFormat(dtype, 100, queries, traits, {});
  };
  EXPECT_EQ(format(DType::kFloat16, 1, kTuring).gemm, GemmKind::kFloat16);
  EXPECT_EQ(format(DType::kUInt8, 1, kH100).row_type, RowType::kFloat16);
  EXPECT_EQ(format(DType::kBFloat16, 1, kH100).gemm, GemmKind::kBFloat16);
  EXPECT_EQ(format(DType::kBFloat16, 1, kTuring).gemm, GemmKind::kFloat32);
  EXPECT_EQ(format(DType::kInt8, 1, kTuring).gemm, GemmKind::kInt8);
  EXPECT_EQ(format(DType::kFloat32, 1000, kH100).gemm, GemmKind::kTf32);
  EXPECT_EQ(format(DType::kInt32, 1000, kH100).gemm, GemmKind::kTf32);
  EXPECT_EQ(format(DType::kFloat32, 1, kH100).gemm, GemmKind::kFloat32);
  EXPECT_EQ(format(DType::kFloat32, 1000, kTuring).gemm, GemmKind::kFloat32);
}

TEST(ChooseRowFormat, LongRowsOfInt8WouldOverflowInt32) {
  EXPECT_EQ(ChooseRowFormat(DType::kInt8, kMostInt8Dim, 1, kH100, {}).gemm, GemmKind::kInt8);
  EXPECT_EQ(ChooseRowFormat(DType::kInt8, kMostInt8Dim + 1, 1, kH100, {}).gemm, GemmKind::kFloat16);
  EXPECT_LE(kMostInt8Dim * 128 * 128, std::numeric_limits<int32_t>::max());
}

TEST(RowFormat, RowsFillWholeVectors) {
  EXPECT_EQ((RowFormat{RowType::kFloat32, GemmKind::kFloat32}.Stride(5)), 8);
  EXPECT_EQ((RowFormat{RowType::kFloat16, GemmKind::kFloat16}.Stride(8)), 8);
  EXPECT_EQ((RowFormat{RowType::kInt8, GemmKind::kInt8}.Stride(17)), 32);
  EXPECT_EQ((RowFormat{RowType::kFloat32, GemmKind::kTf32}.BytesPerRow(4)), 32);
}

}  // namespace
}  // namespace tiny_knn
