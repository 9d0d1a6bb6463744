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

// cuBLAS multiplies int8 rows on tensor cores if the docs, in its words the dimension m, are a
// multiple of this; on some devices else not at all.
inline constexpr int32_t kInt8DocUnit = 4;
// Rows behind the last doc that a product may read: they have to be there, whatever they hold.
constexpr int64_t RowsReadBehind(GemmKind kind) {
  return kind == GemmKind::kInt8 ? kInt8DocUnit - 1 : 0;
}

// scores[i * score_stride + j] ~ query i . doc j. Pointers are to device memory, aligned to 16
// bytes; the stride of rows is in elements, a multiple of 16 bytes; that of scores is a multiple of
// four, and what lies between num_docs and the next multiple of four is written, too.
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
