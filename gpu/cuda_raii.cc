#include "gpu/cuda_raii.h"

#include <string>

#include "fmt/format.h"

namespace tiny_knn {

absl::Status CudaStatus(cudaError_t error, std::string_view call) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text = fmt::format("CUDA, {}: {}", call, cudaGetErrorString(error));
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(text);
  return absl::InternalError(text);
}

}  // namespace tiny_knn
