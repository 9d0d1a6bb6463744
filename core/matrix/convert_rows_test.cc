// Rows of every file dtype, converted to every compute dtype.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/matrix/convert.h"
#include "core/matrix/dtype.h"
#include "core/matrix/float_formats_for_test.h"
#include "core/matrix/matrix_view.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

uint32_t Bits(float value) { return std::bit_cast<uint32_t>(value); }
uint64_t Bits(double value) { return std::bit_cast<uint64_t>(value); }

// Rows of one dtype, converted; fails the test on an error.
template <typename T, typename E>
std::vector<T> ConvertedRow(const std::vector<E>& row, DType from, DType compute,
                            ConvertCounts* counts = nullptr) {
  EXPECT_TRUE(CheckConversion(from, compute).ok());
  const auto dim = static_cast<int64_t>(row.size());
  const MatrixView view{row.data(), from, 1, dim, dim * ItemSize(from)};
  std::vector<T> out(row.size());
  ConvertCounts local;
  const absl::Status status =
      ConvertRows<T>(view, compute, 0, out.data(), dim, counts != nullptr ? *counts : local);
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

template <typename E>
absl::Status ConvertError(const std::vector<E>& row, DType from, DType compute, int64_t first_row) {
  const auto dim = static_cast<int64_t>(row.size()) / 2;
  const MatrixView view{row.data(), from, 2, dim, dim * ItemSize(from)};
  std::vector<float> out(row.size());
  ConvertCounts counts;
  return ConvertRows<float>(view, compute, first_row, out.data(), dim, counts);
}

std::vector<uint16_t> AllPatterns() {
  std::vector<uint16_t> patterns(65536);
  for (int i = 0; i < 65536; ++i) patterns[i] = static_cast<uint16_t>(i);
  return patterns;
}

TEST(ConvertRowsTest, EveryFloat16PatternAsARow) {
  const std::vector<uint16_t> all = AllPatterns();
  const auto same = ConvertedRow<float>(all, DType::kFloat16, DType::kFloat16);
  const auto wide = ConvertedRow<double>(all, DType::kFloat16, DType::kFloat64);
  const auto brain = ConvertedRow<float>(all, DType::kFloat16, DType::kBFloat16);
  for (size_t i = 0; i < all.size(); ++i) {
    const double value = Float16Value(all[i]);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(same[i]) && std::isnan(wide[i]) && std::isnan(brain[i])) << i;
      continue;
    }
    EXPECT_EQ(Bits(same[i]), Bits(static_cast<float>(value))) << i;
    EXPECT_EQ(Bits(wide[i]), Bits(value)) << i;
    EXPECT_EQ(Bits(brain[i]), Bits(static_cast<float>(BFloat16Value(Float64ToBFloat16(value)))));
  }
}

TEST(ConvertRowsTest, EveryBFloat16PatternAsARow) {
  const std::vector<uint16_t> all = AllPatterns();
  const auto same = ConvertedRow<float>(all, DType::kBFloat16, DType::kBFloat16);
  const auto wide = ConvertedRow<double>(all, DType::kBFloat16, DType::kFloat64);
  ConvertCounts counts;
  const auto half = ConvertedRow<float>(all, DType::kBFloat16, DType::kFloat16, &counts);
  int64_t infs = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    const double value = BFloat16Value(all[i]);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(same[i]) && std::isnan(wide[i]) && std::isnan(half[i])) << i;
      continue;
    }
    EXPECT_EQ(Bits(same[i]), Bits(static_cast<float>(value))) << i;
    EXPECT_EQ(Bits(wide[i]), Bits(value)) << i;
    EXPECT_EQ(Bits(half[i]), Bits(static_cast<float>(Float16Value(Float64ToFloat16(value))))) << i;
    if (std::isfinite(value) && std::isinf(half[i])) ++infs;
  }
  EXPECT_GT(infs, 0);
  EXPECT_EQ(counts.infs_made, infs);
}

// The row loops round in float32 or float64 arithmetic; the scalar functions are checked above.
TEST(ConvertRowsTest, RowsRoundLikeTheScalarFunctions) {
  std::mt19937_64 random(7);
  std::vector<double> doubles;
  std::vector<float> floats;
  for (int i = 0; i < 100000; ++i) {
    // Exponents around the formats' ranges, mantissas often near midpoints.
    uint64_t mantissa = random() >> 12;
    if (i % 3 == 0) mantissa = (mantissa & 0xFFE0000000000) | 0x20000000000;
    if (i % 3 == 1) mantissa = (mantissa & 0xFF00000000000) | (uint64_t{1} << 43) | (i % 2);
    const uint64_t exponent = i % 5 == 0 ? 1023 - 150 + random() % 300 : 1023 - 30 + random() % 50;
    doubles.push_back(
        std::bit_cast<double>((random() & (uint64_t{1} << 63)) | exponent << 52 | mantissa));
    floats.push_back(static_cast<float>(doubles.back()));
  }
  for (uint16_t bits = 0; bits < 0x7C00; ++bits) {  // midpoints of float16, exact in float32
    floats.push_back(static_cast<float>(
        (Float16Value(bits) + Float16Value(static_cast<uint16_t>(bits + 1))) / 2));
    floats.push_back(std::nextafter(floats.back(), 0.0f));
  }
  for (DType compute : {DType::kFloat16, DType::kBFloat16}) {
    auto expected = [compute](double value) {
      return compute == DType::kFloat16 ? Float16ToFloat32(Float64ToFloat16(value))
                                        : BFloat16ToFloat32(Float64ToBFloat16(value));
    };
    const auto from_doubles = ConvertedRow<float>(doubles, DType::kFloat64, compute);
    for (size_t i = 0; i < doubles.size(); ++i) {
      ASSERT_EQ(Bits(from_doubles[i]), Bits(expected(doubles[i]))) << doubles[i];
    }
    const auto from_floats = ConvertedRow<float>(floats, DType::kFloat32, compute);
    for (size_t i = 0; i < floats.size(); ++i) {
      ASSERT_EQ(Bits(from_floats[i]), Bits(expected(floats[i]))) << floats[i];
    }
  }
}

TEST(ConvertRowsTest, NaNStaysNaNWhateverItsPayload) {
  // The payload's only bit is below what the narrow formats keep.
  const std::vector<float> floats = {std::bit_cast<float>(0x7F800001u),
                                     std::bit_cast<float>(0xFFFFFFFFu)};
  const std::vector<double> doubles = {std::bit_cast<double>(uint64_t{0x7FF0000000000001}),
                                       std::bit_cast<double>(~uint64_t{0})};
  for (DType compute : {DType::kFloat16, DType::kBFloat16, DType::kFloat32}) {
    for (float value : ConvertedRow<float>(floats, DType::kFloat32, compute)) {
      EXPECT_TRUE(std::isnan(value)) << DTypeName(compute);
    }
    ConvertCounts counts;
    for (float value : ConvertedRow<float>(doubles, DType::kFloat64, compute, &counts)) {
      EXPECT_TRUE(std::isnan(value)) << DTypeName(compute);
    }
    EXPECT_EQ(counts.infs_made, 0);
  }
}

TEST(ConvertRowsTest, Float64SubnormalsRoundOnceAndSurviveInFloat64) {
  const std::vector<double> values = {
      std::numeric_limits<double>::denorm_min(), 0x1p-1030, -0.0, 0x1p-149, 0x1.8p-149, 0x1p-150};
  const auto same = ConvertedRow<double>(values, DType::kFloat64, DType::kFloat64);
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(Bits(same[i]), Bits(values[i]));
  const auto narrow = ConvertedRow<float>(values, DType::kFloat64, DType::kFloat32);
  const std::vector<float> expected = {0.0f, 0.0f, -0.0f, 0x1p-149f, 0x1p-148f, 0.0f};
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(Bits(narrow[i]), Bits(expected[i])) << i;
}

TEST(ConvertRowsTest, CountsInfinitiesMadeButNotThoseThatWere) {
  const double inf = kInf;
  ConvertCounts counts;
  ConvertedRow<float>(std::vector<double>{65519.0, 65520.0, -1e300, inf, -inf, NAN, 1.0},
                      DType::kFloat64, DType::kFloat16, &counts);
  EXPECT_EQ(counts.infs_made, 2);
  ConvertedRow<float>(std::vector<double>{1e39, 3e38, inf}, DType::kFloat64, DType::kFloat32,
                      &counts);
  EXPECT_EQ(counts.infs_made, 3) << "counts add up";
  ConvertedRow<float>(std::vector<float>{std::numeric_limits<float>::max(), 3.38e38f},
                      DType::kFloat32, DType::kBFloat16, &counts);
  EXPECT_EQ(counts.infs_made, 4);
  ConvertedRow<float>(std::vector<int32_t>{65519, 65520, -65520, -65519}, DType::kInt32,
                      DType::kFloat16, &counts);
  EXPECT_EQ(counts.infs_made, 6);
  ConvertedRow<float>(std::vector<int64_t>{std::numeric_limits<int64_t>::min(), 65504},
                      DType::kInt64, DType::kFloat16, &counts);
  EXPECT_EQ(counts.infs_made, 7);
}

TEST(ConvertRowsTest, EverySmallIntegerConvertsToEveryComputeDType) {
  std::vector<int8_t> row;
  std::vector<int64_t> wide_row;
  for (int i = -128; i < 128; ++i) {
    row.push_back(static_cast<int8_t>(i));
    wide_row.push_back(i);
  }
  for (DType compute : {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kInt8,
                        DType::kInt16, DType::kInt32, DType::kInt64}) {
    const auto from_int8 = ConvertedRow<float>(row, DType::kInt8, compute);
    const auto from_int64 = ConvertedRow<float>(wide_row, DType::kInt64, compute);
    for (size_t i = 0; i < row.size(); ++i) {
      EXPECT_EQ(from_int8[i], static_cast<float>(row[i])) << DTypeName(compute);
      EXPECT_EQ(from_int64[i], static_cast<float>(row[i])) << DTypeName(compute);
    }
  }
  const auto doubles = ConvertedRow<double>(row, DType::kInt8, DType::kFloat64);
  for (size_t i = 0; i < row.size(); ++i) EXPECT_EQ(doubles[i], row[i]);
}

TEST(ConvertRowsTest, EveryInt16RoundsToFloat16AndBFloat16Once) {
  std::vector<int16_t> row;
  for (int i = -32768; i < 32768; ++i) row.push_back(static_cast<int16_t>(i));
  const auto half = ConvertedRow<float>(row, DType::kInt16, DType::kFloat16);
  const auto brain = ConvertedRow<float>(row, DType::kInt16, DType::kBFloat16);
  for (size_t i = 0; i < row.size(); ++i) {
    EXPECT_EQ(half[i], Float16ToFloat32(Float64ToFloat16(row[i])));
    EXPECT_EQ(brain[i], BFloat16ToFloat32(Float64ToBFloat16(row[i])));
  }
}

TEST(ConvertRowsTest, AnyNonZeroBoolByteIsOne) {
  std::vector<uint8_t> bytes(256);
  for (int i = 0; i < 256; ++i) bytes[i] = static_cast<uint8_t>(i);
  for (DType compute : {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kInt8,
                        DType::kUInt8, DType::kInt64}) {
    const auto row = ConvertedRow<float>(bytes, DType::kBool, compute);
    for (int i = 0; i < 256; ++i) EXPECT_EQ(row[i], i == 0 ? 0.0f : 1.0f) << i;
  }
  EXPECT_EQ(ConvertedRow<double>(bytes, DType::kBool, DType::kFloat64)[255], 1.0);
}

TEST(ConvertRowsTest, LimitsOfAnIntegerComputeDTypePass) {
  EXPECT_EQ(ConvertedRow<float>(std::vector<int32_t>{-128, 127}, DType::kInt32, DType::kInt8),
            (std::vector<float>{-128, 127}));
  EXPECT_EQ(ConvertedRow<float>(std::vector<int64_t>{0, 255}, DType::kInt64, DType::kUInt8),
            (std::vector<float>{0, 255}));
  EXPECT_EQ(ConvertedRow<float>(std::vector<int64_t>{-2147483648, 2147483647}, DType::kInt64,
                                DType::kInt32),
            (std::vector<float>{-0x1p31f, 0x1p31f}));
  EXPECT_EQ(ConvertedRow<float>(std::vector<uint8_t>{0, 255}, DType::kUInt8, DType::kInt16),
            (std::vector<float>{0, 255}));
}

TEST(ConvertRowsTest, IntegerThatDoesNotFitNamesValueRowAndColumn) {
  const absl::Status high =
      ConvertError(std::vector<int32_t>{0, 1, 2, 3, 128, 5}, DType::kInt32, DType::kInt8, 40);
  EXPECT_EQ(high.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(high.message()),
            "the int32 value 128 in row 41, column 1 does not fit --dtype int8 (-128 to 127); use "
            "--dtype int32 or float32");
  const absl::Status negative =
      ConvertError(std::vector<int8_t>{0, 1, -1, 3}, DType::kInt8, DType::kUInt8, 0);
  EXPECT_EQ(std::string(negative.message()),
            "the int8 value -1 in row 1, column 0 does not fit --dtype uint8 (0 to 255); use "
            "--dtype int8 or float32");
  for (DType compute : {DType::kInt8, DType::kUInt8, DType::kInt16, DType::kInt32}) {
    for (int64_t value : {std::numeric_limits<int64_t>::min(), int64_t{1} << 32,
                          std::numeric_limits<int64_t>::max()}) {
      EXPECT_FALSE(ConvertError(std::vector<int64_t>{0, value}, DType::kInt64, compute, 0).ok());
    }
  }
  EXPECT_FALSE(ConvertError(std::vector<uint8_t>{0, 128}, DType::kUInt8, DType::kInt8, 0).ok());
}

TEST(ConvertRowsTest, StridesOfInputAndOutputAreHonoured) {
  const std::vector<uint16_t> rows = {0x3C00, 0x4000, 0xFFFF, 0x4200, 0x4400, 0xFFFF};
  std::vector<float> out(8, -7.0f);
  ConvertCounts counts;
  const MatrixView view{rows.data(), DType::kFloat16, 2, 2, 6};
  ASSERT_TRUE(ConvertRows<float>(view, DType::kFloat16, 0, out.data(), 4, counts).ok());
  EXPECT_EQ(out, (std::vector<float>{1, 2, -7, -7, 3, 4, -7, -7}));
  const MatrixView repeated{rows.data(), DType::kFloat16, 2, 2, 0};
  ASSERT_TRUE(ConvertRows<float>(repeated, DType::kFloat16, 0, out.data(), 2, counts).ok());
  EXPECT_EQ(out, (std::vector<float>{1, 2, 1, 2, 3, 4, -7, -7}));
}

TEST(ConvertRowsTest, UnalignedRowsConvert) {
  std::vector<std::byte> bytes(1 + 3 * sizeof(double));
  const double values[3] = {1.5, -2.25, 1e-3};
  std::memcpy(bytes.data() + 1, values, sizeof(values));
  std::vector<float> out(3);
  ConvertCounts counts;
  const MatrixView view{bytes.data() + 1, DType::kFloat64, 1, 3, 24};
  ASSERT_TRUE(ConvertRows<float>(view, DType::kFloat32, 0, out.data(), 3, counts).ok());
  EXPECT_EQ(out, (std::vector<float>{1.5f, -2.25f, 1e-3f}));
}

TEST(ConvertRowsTest, NoRowsOrNoColumnsWriteNothing) {
  ConvertCounts counts;
  float out = -7.0f;
  const MatrixView no_rows{nullptr, DType::kFloat64, 0, 5, 40};
  EXPECT_TRUE(ConvertRows<float>(no_rows, DType::kFloat32, 0, &out, 5, counts).ok());
  const MatrixView no_columns{nullptr, DType::kInt64, 3, 0, 0};
  EXPECT_TRUE(ConvertRows<float>(no_columns, DType::kInt8, 0, &out, 0, counts).ok());
  EXPECT_EQ(out, -7.0f);
}

TEST(ConvertRowsTest, Int64RoundsOnceNotThroughFloat64) {
  const int64_t value = (int64_t{1} << 60) + (int64_t{1} << 36) + 1;  // just above a midpoint
  for (DType compute : {DType::kFloat32, DType::kInt64}) {
    EXPECT_EQ(ConvertedRow<float>(std::vector<int64_t>{value}, DType::kInt64, compute)[0],
              0x1p60f + 0x1p37f);
  }
  const int64_t wide = (int64_t{1} << 62) + (int64_t{1} << 54) + 1;
  EXPECT_EQ(ConvertedRow<float>(std::vector<int64_t>{wide}, DType::kInt64, DType::kBFloat16)[0],
            0x1p62f + 0x1p55f);
}

// --- which conversions there are

TEST(CheckConversionTest, FloatsAreRefusedForIntegerComputeDTypes) {
  const absl::Status status = CheckConversion(DType::kFloat16, DType::kInt8);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(status.message()),
            "float16 values cannot be searched in --dtype int8, which would lose their fractions; "
            "use --dtype float16 or float32");
}

TEST(CheckConversionTest, EveryPairIsAcceptedOrRefusedByOneRule) {
  for (int from = 0; from < 10; ++from) {
    for (int to = 0; to < 10; ++to) {
      const auto from_dtype = static_cast<DType>(from);
      const auto to_dtype = static_cast<DType>(to);
      const bool refused =
          to_dtype == DType::kBool || (IsFloatingPoint(from_dtype) && !IsFloatingPoint(to_dtype));
      EXPECT_EQ(CheckConversion(from_dtype, to_dtype).ok(), !refused)
          << DTypeName(from_dtype) << " to " << DTypeName(to_dtype);
      // What is accepted has a loop, and what has none says so instead of writing anything.
      const int64_t zero = 0;
      const MatrixView view{&zero, from_dtype, 1, 1, 8};
      ConvertCounts counts;
      float as_float = -7;
      double as_double = -7;
      const bool wide = to_dtype == DType::kFloat64;
      EXPECT_EQ(ConvertRows<float>(view, to_dtype, 0, &as_float, 1, counts).ok(),
                !refused && !wide);
      EXPECT_EQ(ConvertRows<double>(view, to_dtype, 0, &as_double, 1, counts).ok(),
                !refused && wide);
      EXPECT_EQ(as_float, !refused && !wide ? 0.0f : -7.0f);
      EXPECT_EQ(as_double, !refused && wide ? 0.0 : -7.0);
    }
  }
}

TEST(CheckConversionTest, OnlyFloat32AndFloat64AreTheirOwnWorkingValues) {
  for (int from = 0; from < 10; ++from) {
    for (int to = 0; to < 10; ++to) {
      const auto f = static_cast<DType>(from);
      const auto t = static_cast<DType>(to);
      EXPECT_EQ(IsIdentityConversion(f, t),
                f == t && (f == DType::kFloat32 || f == DType::kFloat64));
    }
  }
}

}  // namespace
}  // namespace tiny_knn
