// Score tiles by cuBLAS, and what is known of their error.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "gpu/cublas_api.h"
#include "gpu/device_types.h"

namespace tiny_knn {

// How GEMM rows are multiplied.
enum class GemmKind {
  kFloat16,   // tensor cores, float32 sums
  kBFloat16,  // tensor cores, float32 sums
  kTf32,      // float32 rows rounded to TF32 before; tensor cores, float32 sums
  kFloat32,   // float32 arithmetic, no tensor cores
  kInt8,      // int32 sums, exact
};
std::string_view GemmKindName(GemmKind kind);

// A bound on |s - a.b| / (|a| |b|) for rows of `dim` elements, besides what underflows; infinite
// where nothing useful is known. docs/exactness.md.
double GemmError(GemmKind kind, int64_t dim);

// Most elements of rows whose int32 sums cannot overflow.
inline constexpr int64_t kMostInt8Dim = 131071;

// scores[i * score_stride + j] ~ query i . doc j. Pointers are to device memory, aligned to 16
// bytes; strides in elements, of 16 bytes or more: multiples of 16 bytes.
struct GemmArgs {
  GemmKind kind = GemmKind::kFloat32;
  const void* queries = nullptr;  // [num_queries, stride]
  const void* docs = nullptr;     // [num_docs, stride]
  int32_t num_queries = 0;
  int32_t num_docs = 0;
  int32_t stride = 0;      // of both; all of it is multiplied
  void* scores = nullptr;  // [num_queries, score_stride], int32 for kInt8, else float32
  int32_t score_stride = 0;
};
absl::Status MultiplyRows(const CublasApi& api, cublasHandle_t handle, const GemmArgs& args);

}  // namespace tiny_knn
