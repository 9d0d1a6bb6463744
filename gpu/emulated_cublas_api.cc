// For tests: the same table, of functions that are linked in.
#include "gpu/cublas_api.h"

namespace tiny_knn {

absl::StatusOr<const CublasApi*> LoadCublas() {
  static const CublasApi api{cublasCreate_v2, cublasDestroy_v2, cublasSetStream_v2, cublasGemmEx};
  return &api;
}

}  // namespace tiny_knn
