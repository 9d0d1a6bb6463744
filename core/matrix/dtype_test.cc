#include "core/matrix/dtype.h"

#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

const std::vector<DType> kAll = {DType::kBool,    DType::kInt8,   DType::kUInt8,   DType::kInt16,
                                 DType::kInt32,   DType::kInt64,  DType::kFloat16, DType::kBFloat16,
                                 DType::kFloat32, DType::kFloat64};

std::vector<std::string> Split(std::string_view names) {
  std::vector<std::string> parts(1);
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == ',') {
      parts.emplace_back();
      ++i;  // the space
    } else {
      parts.back() += names[i];
    }
  }
  return parts;
}

TEST(DTypeTest, EveryNameParsesBackToItsDType) {
  for (DType dtype : kAll) EXPECT_EQ(ParseDType(DTypeName(dtype)), dtype) << DTypeName(dtype);
}

TEST(DTypeTest, UnknownNamesParseToNothing) {
  for (std::string_view name : {"", "float", "Float32", "float32 ", "uint16", "fp16", "f4"}) {
    EXPECT_EQ(ParseDType(name), std::nullopt) << name;
  }
}

TEST(DTypeTest, ItemSizesAreThoseOfTheFormats) {
  EXPECT_EQ(ItemSize(DType::kBool), 1);
  EXPECT_EQ(ItemSize(DType::kInt8), 1);
  EXPECT_EQ(ItemSize(DType::kUInt8), 1);
  EXPECT_EQ(ItemSize(DType::kInt16), 2);
  EXPECT_EQ(ItemSize(DType::kInt32), 4);
  EXPECT_EQ(ItemSize(DType::kInt64), 8);
  EXPECT_EQ(ItemSize(DType::kFloat16), 2);
  EXPECT_EQ(ItemSize(DType::kBFloat16), 2);
  EXPECT_EQ(ItemSize(DType::kFloat32), 4);
  EXPECT_EQ(ItemSize(DType::kFloat64), 8);
}

TEST(DTypeTest, NameListsHoldExactlyTheAcceptedDTypes) {
  std::vector<DType> compute, file;
  for (const std::string& name : Split(ComputeDTypeNames())) {
    compute.push_back(ParseDType(name).value());
  }
  for (const std::string& name : Split(FileDTypeNames())) file.push_back(ParseDType(name).value());
  EXPECT_EQ(file.size(), kAll.size());
  for (DType dtype : kAll) {
    EXPECT_EQ(std::count(file.begin(), file.end(), dtype), 1) << DTypeName(dtype);
    EXPECT_EQ(std::count(compute.begin(), compute.end(), dtype), IsComputeDType(dtype) ? 1 : 0)
        << DTypeName(dtype);
  }
}

TEST(DTypeTest, OnlyFloat64WorksInFloat64) {
  for (DType dtype : kAll) {
    EXPECT_EQ(WorkingDType(dtype), dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32);
  }
}

TEST(DTypeTest, FloatingPointDTypesAreTheFourWithFloatInTheirName) {
  for (DType dtype : kAll) {
    EXPECT_EQ(IsFloatingPoint(dtype), DTypeName(dtype).find("float") != std::string_view::npos);
  }
}

}  // namespace
}  // namespace tiny_knn
