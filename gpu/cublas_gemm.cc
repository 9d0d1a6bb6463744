#include "gpu/cublas_gemm.h"

#include <limits>

#include "core/search/screen_rules.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Tensor cores truncate each aligned term and each partial sum: relative to |a||b| less than 2^-22
// for each element, by published measurements of V100 to H100; NVIDIA promises nothing.
constexpr double kTensorCoreUnit = 0x1p-22;

struct GemmTypes {
  cudaDataType_t rows;
  cudaDataType_t scores;
  cublasComputeType_t compute;
};

GemmTypes TypesOf(GemmKind kind) {
  switch (kind) {
    case GemmKind::kFloat16:
      return {CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F};
    case GemmKind::kBFloat16:
      return {CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F};
    case GemmKind::kTf32:
      return {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32};
    case GemmKind::kFloat32:
      // Without "pedantic" the library may emulate single precision.
      return {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_PEDANTIC};
    case GemmKind::kInt8:
      break;
  }
  return {CUDA_R_8I, CUDA_R_32I, CUBLAS_COMPUTE_32I};
}

}  // namespace

std::string_view GemmKindName(GemmKind kind) {
  switch (kind) {
    case GemmKind::kFloat16:
      return "float16";
    case GemmKind::kBFloat16:
      return "bfloat16";
    case GemmKind::kTf32:
      return "TF32";
    case GemmKind::kFloat32:
      return "float32";
    case GemmKind::kInt8:
      return "int8";
  }
  return "float32";
}

double GemmError(GemmKind kind, int64_t dim) {
  switch (kind) {
    case GemmKind::kFloat16:
    case GemmKind::kBFloat16:
    case GemmKind::kTf32: {
      const double error = static_cast<double>(dim + 32) * kTensorCoreUnit;
      return error < 0.25 ? error : std::numeric_limits<double>::infinity();
    }
    case GemmKind::kFloat32:
      return Float32DotError(dim);
    case GemmKind::kInt8:
      break;
  }
  return 0;
}

absl::Status MultiplyRows(const CublasApi& api, cublasHandle_t handle, const GemmArgs& args) {
  const GemmTypes types = TypesOf(args.kind);
  const float one = 1;
  const float zero = 0;
  const int32_t int_one = 1;
  const int32_t int_zero = 0;
  const bool integers = args.kind == GemmKind::kInt8;
  const int32_t unit = integers ? kInt8DocUnit : 1;
  const int32_t num_docs = (args.num_docs + unit - 1) / unit * unit;
  // In cuBLAS's column-major words: the scores are [num_docs, num_queries], docs are transposed,
  // queries are not, which is the only order of int8 rows that tensor cores take.
  const cublasStatus_t status = api.gemm_ex(
      handle, CUBLAS_OP_T, CUBLAS_OP_N, num_docs, args.num_queries, args.stride,
      integers ? static_cast<const void*>(&int_one) : &one, args.docs, types.rows, args.stride,
      args.queries, types.rows, args.stride, integers ? static_cast<const void*>(&int_zero) : &zero,
      args.scores, types.scores, args.score_stride, types.compute, CUBLAS_GEMM_DEFAULT);
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(fmt::format(
      "cuBLAS failed with status {} on a {} product of {} x {} x {}", static_cast<int>(status),
      GemmKindName(args.kind), args.num_queries, num_docs, args.stride));
}

}  // namespace tiny_knn
