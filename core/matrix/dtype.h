// Element types of matrices: what a file may hold and what a search may compute in.
//
// Everything here is a pure function and safe to call from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace tiny_knn {

enum class DType {
  kBool,
  kInt8,
  kUInt8,
  kInt16,
  kInt32,
  kInt64,
  kFloat16,   // IEEE binary16
  kBFloat16,  // upper half of a binary32
  kFloat32,
  kFloat64,
};

// Bytes of one element.
int64_t ItemSize(DType dtype);

// numpy's name: "float32", "bool". The text lives forever.
std::string_view DTypeName(DType dtype);

// The dtype of that name (exact match of DTypeName), or nothing.
std::optional<DType> ParseDType(std::string_view name);

bool IsFloatingPoint(DType dtype);

// Whether `--dtype` accepts it: every dtype but bool.
bool IsComputeDType(DType dtype);

// All names that `--dtype` (compute) or `--input-dtype` (file) accepts, comma separated, for
// messages.
std::string_view ComputeDTypeNames();
std::string_view FileDTypeNames();

// The type that rows of a compute dtype are held in while searching: float64 for float64, float32
// for everything else (float16 and bfloat16 values are float32 values; integers become float32, as
// the contract in core/search/search.h says). Scores have the same type.
DType WorkingDType(DType compute_dtype);

}  // namespace tiny_knn
