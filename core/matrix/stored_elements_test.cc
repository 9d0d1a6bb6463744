// Widening by vectors against widening one by one, for every element there is, at every
// instruction-set level.
#include "core/matrix/stored_elements.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "core/matrix/convert.h"
#include "gtest/gtest.h"
#include "hwy/highway.h"

namespace tiny_knn {
namespace {

// Rows at an odd address, of all elements and a rest that fills no vector.
template <typename Element, typename Widen>
void CheckEveryElement(DType stored, int64_t elements, Widen widen) {
  std::vector<Element> row(static_cast<size_t>(elements + 7));
  for (size_t i = 0; i < row.size(); ++i) {
    const auto bits = static_cast<uint16_t>(i);
    std::memcpy(&row[i], &bits, sizeof(Element));
  }
  std::vector<char> unaligned(row.size() * sizeof(Element) + 1);
  std::memcpy(unaligned.data() + 1, row.data(), row.size() * sizeof(Element));
  std::vector<float> out(row.size());
  WidenRow(unaligned.data() + 1, stored, static_cast<int64_t>(row.size()), out.data());
  for (size_t i = 0; i < row.size(); ++i) {
    const float expected = widen(row[i]);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(out[i])) << DTypeName(stored) << " " << i;
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(expected))
          << DTypeName(stored) << " " << i;
    }
  }
}

TEST(StoredElementsTest, WidensEveryElementAtEveryLevel) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    CheckEveryElement<uint16_t>(DType::kFloat16, 65536, Float16ToFloat32);
    CheckEveryElement<uint16_t>(DType::kBFloat16, 65536, BFloat16ToFloat32);
    CheckEveryElement<int8_t>(DType::kInt8, 256, [](int8_t v) { return static_cast<float>(v); });
    CheckEveryElement<uint8_t>(DType::kUInt8, 256, [](uint8_t v) { return static_cast<float>(v); });
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(StoredElementsTest, OnlyWhatNoComputeDTypeChangesIsWidenedExactly) {
  EXPECT_TRUE(IsWidenedExactly(DType::kFloat16, DType::kFloat32));
  EXPECT_TRUE(IsWidenedExactly(DType::kInt8, DType::kBFloat16));
  EXPECT_TRUE(IsWidenedExactly(DType::kUInt8, DType::kUInt8));
  EXPECT_FALSE(IsWidenedExactly(DType::kFloat32, DType::kFloat16));
  EXPECT_FALSE(IsWidenedExactly(DType::kBFloat16, DType::kFloat16));
  EXPECT_FALSE(IsWidenedExactly(DType::kUInt8, DType::kInt8));
  EXPECT_FALSE(IsWidenedExactly(DType::kFloat32, DType::kFloat64));
  EXPECT_FALSE(IsWidenedExactly(DType::kInt16, DType::kFloat32));
}

}  // namespace
}  // namespace tiny_knn
