// The few functions of cuBLAS that the engine calls, found when it is opened: the program starts
// where libcublas is missing. In tests the table points to the emulation (emulated_cublas_api.cc).
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cublas_v2.h"

namespace tiny_knn {

// cublasGemmEx has an overload of old.
using CublasGemmEx = cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m,
                                        int n, int k, const void* alpha, const void* a,
                                        cudaDataType a_type, int lda, const void* b,
                                        cudaDataType b_type, int ldb, const void* beta, void* c,
                                        cudaDataType c_type, int ldc, cublasComputeType_t,
                                        cublasGemmAlgo_t);

struct CublasApi {
  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasDestroy_v2) destroy = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  CublasGemmEx gemm_ex = nullptr;
};

// The functions of the library of that file name. Unavailable, saying what is missing.
absl::StatusOr<CublasApi> OpenCublas(const std::string& library);

// The table of the toolkit's own version of the library, which lives as long as the process.
// Unavailable, saying what is missing. Thread-safe.
absl::StatusOr<const CublasApi*> LoadCublas();

}  // namespace tiny_knn
