// One CUDA device as the engine uses it: its traits, two streams, and cuBLAS.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/cublas_api.h"
#include "gpu/cuda_raii.h"
#include "gpu/device_plan.h"

namespace tiny_knn {

// Thread-compatible. Its functions act on the calling thread's current device, which Activate makes
// this one.
class DeviceContext {
 public:
  // Unavailable: no driver, no device of that index. FailedPrecondition: there is one, and it
  // cannot be used: no libcublas, too old, or in somebody else's hands. Both say why.
  static absl::StatusOr<std::unique_ptr<DeviceContext>> Open(int device_index);
  ~DeviceContext();
  DeviceContext(const DeviceContext&) = delete;
  DeviceContext& operator=(const DeviceContext&) = delete;

  absl::Status Activate() const;
  // Device memory that is free now.
  absl::StatusOr<int64_t> FreeBytes() const;

  const DeviceTraits& traits() const { return traits_; }
  cudaStream_t compute() const { return compute_.get(); }
  // For copies of docs to the device, beside what is computed.
  cudaStream_t copies() const { return copies_.get(); }
  // On the compute stream.
  absl::Status Multiply(const GemmArgs& args) const {
    return MultiplyRows(*cublas_, handle_, args);
  }

 private:
  explicit DeviceContext(int device_index) : device_index_(device_index) {}

  const int device_index_;
  DeviceTraits traits_;
  CudaStream compute_;
  CudaStream copies_;
  const CublasApi* cublas_ = nullptr;
  cublasHandle_t handle_ = nullptr;
};

}  // namespace tiny_knn
