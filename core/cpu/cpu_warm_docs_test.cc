#include "core/cpu/cpu_warm_docs.h"

#include <cstdint>
#include <cstring>
#include <memory>

#include "core/cpu/huge_pages.h"
#include "core/search/planner.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

TEST(HugePagesTest, GivesZeroedMemoryOnTwoMebibytes) {
  HugePages pages;
  for (const int64_t bytes : {int64_t{1}, HugePages::kPageBytes, HugePages::kPageBytes + 1}) {
    ASSERT_TRUE(pages.Allocate(bytes));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(pages.data()) % HugePages::kPageBytes, 0U);
    EXPECT_EQ(pages.bytes(), HugePages::RoundUp(bytes));
    EXPECT_EQ(pages.data()[pages.bytes() - 1], std::byte{0});
    std::memset(pages.data(), 1, static_cast<size_t>(pages.bytes()));
  }
  pages.Release();
  EXPECT_EQ(pages.data(), nullptr);
  EXPECT_EQ(pages.bytes(), 0);
}

TEST(HugePagesTest, SaysWhenThereIsNone) {
  HugePages pages;
  ASSERT_TRUE(pages.Allocate(1));
  EXPECT_FALSE(pages.Allocate(int64_t{1} << 60));
  EXPECT_EQ(pages.data(), nullptr);
  EXPECT_EQ(pages.bytes(), 0);
}

TEST(CpuWarmDocsTest, StaysEmptyWithoutMemory) {
  const SearchPlan plan{.num_chunks = 1, .memory = {}};
  const auto warm = CpuWarmDocs::Make({.num_docs = int64_t{1} << 30, .dim = 1 << 24}, plan);
  ASSERT_NE(warm, nullptr);
  EXPECT_FALSE(warm->Allocate());
  EXPECT_EQ(warm->allocated_bytes(), 0);
  EXPECT_FALSE(warm->filling());
  EXPECT_FALSE(warm->prepared());
}

TEST(CpuWarmDocsTest, RefusesShapesThatHaveNothingToKeepOrTooMuchToCount) {
  const SearchPlan plan{.num_chunks = 1, .memory = {}};
  EXPECT_EQ(CpuWarmDocs::Make({.num_docs = 0, .dim = 3}, plan), nullptr);
  EXPECT_EQ(CpuWarmDocs::Make({.num_docs = int64_t{1} << 31, .dim = int64_t{1} << 40}, plan),
            nullptr);
  EXPECT_EQ(CpuWarmDocs::Make({.num_docs = int64_t{1} << 31, .dim = int64_t{1} << 30}, plan),
            nullptr);
}

TEST(CpuWarmDocsTest, IsFilledOnlyOnceItIsSaidToBe) {
  const SearchPlan plan{.num_chunks = 1, .memory = {}};
  const auto warm = CpuWarmDocs::Make({.num_docs = 5, .dim = 3}, plan);
  ASSERT_NE(warm, nullptr);
  ASSERT_TRUE(warm->Allocate());
  EXPECT_TRUE(warm->filling());
  EXPECT_FALSE(warm->prepared());
  warm->FinishFilling({.nonfinite_rows = 2, .convert = {}});
  EXPECT_FALSE(warm->filling());
  EXPECT_TRUE(warm->prepared());
  EXPECT_FALSE(warm->filled());
  warm->MarkFilled();
  EXPECT_TRUE(warm->prepared());
  EXPECT_TRUE(warm->filled());
  EXPECT_EQ(warm->counts().nonfinite_rows, 2);
  warm->Clear();
  EXPECT_FALSE(warm->prepared());
  EXPECT_EQ(warm->allocated_bytes(), 0);
  EXPECT_EQ(warm->counts().nonfinite_rows, 0);
}

}  // namespace
}  // namespace tiny_knn
