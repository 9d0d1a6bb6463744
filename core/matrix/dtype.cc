#include "core/matrix/dtype.h"

#include <array>
#include <cstdlib>

namespace tiny_knn {
namespace {

struct Traits {
  DType dtype;
  std::string_view name;
  int64_t item_size;
  bool floating_point;
};

// In the order of the enumeration, so that a DType is its own index.
constexpr std::array<Traits, 10> kTraits = {{
    {DType::kBool, "bool", 1, false},
    {DType::kInt8, "int8", 1, false},
    {DType::kUInt8, "uint8", 1, false},
    {DType::kInt16, "int16", 2, false},
    {DType::kInt32, "int32", 4, false},
    {DType::kInt64, "int64", 8, false},
    {DType::kFloat16, "float16", 2, true},
    {DType::kBFloat16, "bfloat16", 2, true},
    {DType::kFloat32, "float32", 4, true},
    {DType::kFloat64, "float64", 8, true},
}};

const Traits& TraitsOf(DType dtype) {
  const auto index = static_cast<size_t>(dtype);
  if (index >= kTraits.size()) std::abort();  // not a DType: memory was overwritten
  return kTraits[index];
}

}  // namespace

int64_t ItemSize(DType dtype) { return TraitsOf(dtype).item_size; }

std::string_view DTypeName(DType dtype) { return TraitsOf(dtype).name; }

std::optional<DType> ParseDType(std::string_view name) {
  for (const Traits& traits : kTraits) {
    if (traits.name == name) return traits.dtype;
  }
  return std::nullopt;
}

bool IsFloatingPoint(DType dtype) { return TraitsOf(dtype).floating_point; }

bool IsComputeDType(DType dtype) { return dtype != DType::kBool; }

// Floating point first: what most people want.
std::string_view ComputeDTypeNames() {
  return "float32, float64, float16, bfloat16, int8, uint8, int16, int32, int64";
}

std::string_view FileDTypeNames() {
  return "float32, float64, float16, bfloat16, int8, uint8, int16, int32, int64, bool";
}

DType WorkingDType(DType compute_dtype) {
  return compute_dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

}  // namespace tiny_knn
