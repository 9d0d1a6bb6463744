#include "cli/matrix_stats.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

absl::StatusOr<MatrixStats> Stats(const std::vector<double>& values, int64_t dim) {
  const auto rows = static_cast<int64_t>(values.size()) / dim;
  const auto source = MakeMemoryRowSource(
      "m", {values.data(), DType::kFloat64, rows, dim, dim * static_cast<int64_t>(sizeof(double))});
  return ComputeMatrixStats(*source);
}

TEST(MatrixStats, CountsRowsNotElements) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  const auto stats = Stats({nan, nan, inf, nan, -inf, 1, 0, -0.0, 3, 4}, 2);
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->rows_with_nan, 2);
  EXPECT_EQ(stats->rows_with_inf, 2);
  EXPECT_EQ(stats->zero_rows, 1);
  EXPECT_EQ(stats->finite_rows, 2);
  EXPECT_EQ(stats->min_norm, 0);
  EXPECT_EQ(stats->mean_norm, 2.5);
  EXPECT_EQ(stats->max_norm, 5);
}

TEST(MatrixStats, NormsOfHugeAndTinyRowsNeitherOverflowNorVanish) {
  EXPECT_EQ(Stats({0x1p1000, 0}, 2)->max_norm, 0x1p1000);
  EXPECT_EQ(Stats({0x1p-1070, 0}, 2)->min_norm, 0x1p-1070);
}

TEST(MatrixStats, NoRowsAtAll) {
  const auto stats = Stats({}, 3);
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->finite_rows, 0);
}

TEST(MatrixStats, RowsWithoutElementsAreZeroHoweverManyTheyAre) {
  constexpr int64_t kRows = int64_t{1} << 60;
  const auto source = MakeMemoryRowSource("m", {nullptr, DType::kFloat64, kRows, 0, 0});
  const auto stats = ComputeMatrixStats(*source);
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->zero_rows, kRows);
  EXPECT_EQ(stats->finite_rows, kRows);
  EXPECT_EQ(stats->min_norm, 0);
}

TEST(MatrixStats, ARowLongerThanAChunkIsStillOneRow) {
  constexpr int64_t kDim = 1'200'000;
  std::vector<double> values(2 * kDim, 0.0);
  values[0] = 3;
  values[kDim - 1] = -4;
  values[kDim] = 0x1p1000;
  values[2 * kDim - 1] = 0x1p1000;
  const auto stats = Stats(values, kDim);
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->finite_rows, 2);
  EXPECT_EQ(stats->min_norm, 5);
  EXPECT_EQ(stats->max_norm, 0x1p1000 * std::sqrt(2.0));
  values[kDim] = std::nan("");
  EXPECT_EQ(Stats(values, kDim)->rows_with_nan, 1);
}

TEST(MatrixStats, EveryChunkIsCounted) {
  // More than one chunk of 4 MiB of float64.
  std::vector<double> values(1'000'000, 0.0);
  values.front() = 1;
  values.back() = 2;
  const auto stats = Stats(values, 10);
  EXPECT_EQ(stats->zero_rows, 99'998);
  EXPECT_EQ(stats->max_norm, 2);
}

}  // namespace
}  // namespace tiny_knn
