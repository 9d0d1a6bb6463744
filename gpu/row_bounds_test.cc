#include "gpu/row_bounds.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace tiny_knn {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(RoundToTf32, IsTheNearestNumberOfElevenBitsTiesToEven) {
  uint64_t state = 1;
  for (int i = 0; i < 200000; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const float value = std::bit_cast<float>(static_cast<uint32_t>(state >> 32));
    if (!std::isfinite(value) || std::abs(value) < 0x1p-126F || std::abs(value) > 0x1p126F)
      continue;
    const double unit = std::ldexp(1.0, std::ilogb(value) - 10);
    // nearbyint rounds ties to even.
    const double expected = std::nearbyint(static_cast<double>(value) / unit) * unit;
    EXPECT_EQ(static_cast<double>(RoundToTf32(value)), expected) << value;
  }
}

TEST(RoundToTf32, LeavesWhatIsNoNumberAlone) {
  EXPECT_EQ(RoundToTf32(kInfinity), kInfinity);
  EXPECT_EQ(RoundToTf32(-kInfinity), -kInfinity);
  EXPECT_TRUE(std::isnan(RoundToTf32(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_EQ(RoundToTf32(-0.0F), 0.0F);
}

TEST(BoundsOfRow, NonFiniteAndHugeRowsBypass) {
  for (const bool cosine : {false, true}) {
    for (const double norm : {static_cast<double>(kInfinity), std::nan(""), 0x1p63, 0x1p100}) {
      const RowBounds row = BoundsOfRow(cosine, norm, 0, norm);
      EXPECT_FALSE(row.screened) << norm;
      EXPECT_EQ(ScreenOfDoc(row, false, norm * norm, 5).upper, kInfinity);
      EXPECT_EQ(TailOfDoc(row, false, norm * norm, norm, 5).lower, -kInfinity);
    }
  }
}

TEST(BoundsOfRow, TinyRowsBypassForCosineOnly) {
  EXPECT_FALSE(BoundsOfRow(true, 0x1p-41, 0, 0x1p-41).screened);
  EXPECT_TRUE(BoundsOfRow(false, 0x1p-41, 0, 0x1p-41).screened);
  EXPECT_TRUE(BoundsOfRow(true, 0, 0, 0).screened);
  EXPECT_EQ(BoundsOfRow(true, 0, 0, 0).scale, 0);
}

TEST(BoundsOfRow, WhatTf32LeavesCountsOnBothSides) {
  const RowBounds row = BoundsOfRow(false, 10, 0.25, 10);
  EXPECT_GE(row.gemm_norm, 10.25);
  EXPECT_GE(row.residual, 0.25);
  const RowBounds unit = BoundsOfRow(true, 10, 0.25, 10);
  EXPECT_GE(unit.gemm_norm, 1.025);
  EXPECT_GE(unit.residual, 0.025);
}

}  // namespace
}  // namespace tiny_knn
