#include "core/matrix/convert.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/matrix/float_formats_for_test.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

uint32_t Bits(float value) { return std::bit_cast<uint32_t>(value); }

// --- 16-bit formats, all 65,536 patterns

TEST(ConvertTest, EveryFloat16WidensToItsValue) {
  for (int i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const double expected = Float16Value(bits);
    const float got = Float16ToFloat32(bits);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(got)) << i;
      EXPECT_EQ(std::signbit(got), i >= 0x8000) << i;
    } else {
      EXPECT_EQ(Bits(got), Bits(static_cast<float>(expected))) << i;
    }
  }
}

TEST(ConvertTest, EveryBFloat16WidensToItsValue) {
  for (int i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const double expected = BFloat16Value(bits);
    const float got = BFloat16ToFloat32(bits);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(got)) << i;
    } else {
      EXPECT_EQ(Bits(got), Bits(static_cast<float>(expected))) << i;
    }
  }
}

TEST(ConvertTest, EveryFloat16ComesBackFromFloat64) {
  for (int i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const double value = Float16Value(bits);
    const uint16_t back = Float64ToFloat16(std::isnan(value) ? Float16ToFloat32(bits) : value);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(Float16Value(back))) << i;
      EXPECT_NE(back & 0x0200, 0) << "quiet: " << i;
    } else {
      EXPECT_EQ(back, bits);
    }
  }
}

TEST(ConvertTest, EveryBFloat16ComesBackFromFloat64) {
  for (int i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const double value = BFloat16Value(bits);
    const uint16_t back = Float64ToBFloat16(std::isnan(value) ? BFloat16ToFloat32(bits) : value);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(BFloat16Value(back))) << i;
      EXPECT_NE(back & 0x0040, 0) << "quiet: " << i;
    } else {
      EXPECT_EQ(back, bits);
    }
  }
}

// Between each two neighbours: the midpoint goes to the even one, and the doubles on either side of
// the midpoint go to the nearer one. This is where a detour through float32 rounds twice.
template <typename ToBits, typename ToValue>
void CheckAllMidpoints(ToBits to_bits, ToValue to_value, uint16_t largest) {
  for (uint16_t low = 0; low <= largest; ++low) {
    const auto high = static_cast<uint16_t>(low + 1);
    const double low_value = to_value(low);
    // Above the largest number, the next would-be number takes the place of infinity.
    const double step = low == largest ? low_value - to_value(static_cast<uint16_t>(low - 1))
                                       : to_value(high) - low_value;
    const double middle = low_value + step / 2;
    const uint16_t even = low % 2 == 0 ? low : high;
    ASSERT_EQ(to_bits(middle), even) << low;
    ASSERT_EQ(to_bits(std::nextafter(middle, 0.0)), low) << low;
    ASSERT_EQ(to_bits(std::nextafter(middle, kInf)), high) << low;
    ASSERT_EQ(to_bits(-middle), even | 0x8000) << low;
    ASSERT_EQ(to_bits(-std::nextafter(middle, 0.0)), low | 0x8000) << low;
    ASSERT_EQ(to_bits(-std::nextafter(middle, kInf)), high | 0x8000) << low;
  }
}

TEST(ConvertTest, Float64ToFloat16RoundsOnceAtEveryMidpoint) {
  CheckAllMidpoints(Float64ToFloat16, Float16Value, 0x7BFF);
}

TEST(ConvertTest, Float64ToBFloat16RoundsOnceAtEveryMidpoint) {
  CheckAllMidpoints(Float64ToBFloat16, BFloat16Value, 0x7F7F);
}

TEST(ConvertTest, DetourThroughFloat32WouldDifferAndIsNotTaken) {
  const double value = 1.0 + 0x1p-11 + 0x1p-40;  // just above a float16 midpoint
  EXPECT_EQ(Float64ToFloat16(value), 0x3C01);
  EXPECT_EQ(Float64ToFloat16(static_cast<float>(value)), 0x3C00);
  const double bvalue = 1.0 + 0x1p-8 + 0x1p-40;
  EXPECT_EQ(Float64ToBFloat16(bvalue), 0x3F81);
  EXPECT_EQ(Float64ToBFloat16(static_cast<float>(bvalue)), 0x3F80);
}

TEST(ConvertTest, TinyFloat64ValuesBecomeSignedZeros) {
  for (double value : {std::numeric_limits<double>::denorm_min(), 0x1p-1030, 0x1p-200, 0x1p-25}) {
    EXPECT_EQ(Float64ToFloat16(value), 0x0000) << value;
    EXPECT_EQ(Float64ToFloat16(-value), 0x8000) << value;
  }
  for (double value : {std::numeric_limits<double>::denorm_min(), 0x1p-1030, 0x1p-134}) {
    EXPECT_EQ(Float64ToBFloat16(value), 0x0000) << value;
    EXPECT_EQ(Float64ToBFloat16(-value), 0x8000) << value;
  }
}

// --- integers to bfloat16

TEST(ConvertTest, Int64ToBFloat16RoundsOnceBeyondTwoToThe53) {
  const int64_t one = 1;
  for (int exponent = 8; exponent <= 62; ++exponent) {
    const int64_t power = one << exponent;
    const int64_t half = one << (exponent - 8);  // half a step of bfloat16 above this power
    const uint16_t base = Float64ToBFloat16(std::ldexp(1.0, exponent));
    EXPECT_EQ(Int64ToBFloat16(power + half), base) << exponent;  // tie, to even
    EXPECT_EQ(Int64ToBFloat16(power + half + 1), base + 1) << exponent;
    EXPECT_EQ(Int64ToBFloat16(power + half - 1), base) << exponent;
    EXPECT_EQ(Int64ToBFloat16(-(power + half + 1)), (base + 1) | 0x8000) << exponent;
    EXPECT_EQ(Int64ToBFloat16(-(power + half - 1)), base | 0x8000) << exponent;
  }
  EXPECT_EQ(Int64ToBFloat16(std::numeric_limits<int64_t>::max()), 0x5F00);  // 2^63
  EXPECT_EQ(Int64ToBFloat16(std::numeric_limits<int64_t>::min()), 0xDF00);
  EXPECT_EQ(Int64ToBFloat16(0), 0);
}

TEST(ConvertTest, Int64DetourThroughFloat64WouldDifferAndIsNotTaken) {
  const int64_t value = (int64_t{1} << 62) + (int64_t{1} << 54) + 1;
  EXPECT_EQ(static_cast<double>(value), 0x1p62 + 0x1p54) << "the case tests nothing";
  EXPECT_EQ(Int64ToBFloat16(value), Float64ToBFloat16(0x1p62) + 1);
}

}  // namespace
}  // namespace tiny_knn
