// The elements of files that float32 holds exactly, as C++ types, and rows of them. Pure functions,
// safe to call from any thread.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "core/matrix/dtype.h"

namespace tiny_knn {

// IEEE binary16 and bfloat16, as their bits.
struct StoredFloat16 {
  uint16_t bits;
};
struct StoredBFloat16 {
  uint16_t bits;
};

// Whether float32 holds every value of a file of dtype `stored`, and searching it in
// `compute_dtype` changes none of them and refuses none: rows can then be used where they lie.
bool IsWidenedExactly(DType stored, DType compute_dtype);

// Branch-free, so that loops over it vectorise. NaN keeps its bits.
inline float WidenElement(StoredFloat16 element) {
  const uint32_t magnitude = element.bits & 0x7FFFU;
  const uint32_t sign = static_cast<uint32_t>(element.bits & 0x8000U) << 16;
  const uint32_t shifted = magnitude << 13;
  const auto subnormal =
      std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24F);
  uint32_t result = magnitude < 0x0400 ? subnormal : shifted + (112U << 23);
  result = magnitude >= 0x7C00 ? shifted | 0x7F800000U : result;
  return std::bit_cast<float>(result | sign);
}
inline float WidenElement(StoredBFloat16 element) {
  return std::bit_cast<float>(static_cast<uint32_t>(element.bits) << 16);
}
inline float WidenElement(float element) { return element; }
inline float WidenElement(int8_t element) { return element; }
inline float WidenElement(uint8_t element) { return element; }

// Element i of a row that need not be aligned.
template <typename Element>
float WidenElementAt(const Element* row, int64_t i) {
  Element element;
  std::memcpy(&element, reinterpret_cast<const char*>(row) + i * int64_t{sizeof(Element)},
              sizeof(Element));
  return WidenElement(element);
}

// out[j] = row[j] for j < dim. The row need not be aligned. REQUIRES: IsWidenedExactly(stored,
// kFloat32).
void WidenRow(const void* row, DType stored, int64_t dim, float* out);

// Calls visit(const Element*{}) with the element type of `stored`, which IsWidenedExactly.
template <typename Visit>
decltype(auto) VisitStoredElement(DType stored, Visit visit) {
  switch (stored) {
    case DType::kFloat16:
      return visit(static_cast<const StoredFloat16*>(nullptr));
    case DType::kBFloat16:
      return visit(static_cast<const StoredBFloat16*>(nullptr));
    case DType::kInt8:
      return visit(static_cast<const int8_t*>(nullptr));
    case DType::kUInt8:
      return visit(static_cast<const uint8_t*>(nullptr));
    default:
      return visit(static_cast<const float*>(nullptr));
  }
}

}  // namespace tiny_knn
