#include "gpu/device_context.h"

#include <string>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

absl::StatusOr<DeviceTraits> ReadTraits(int device) {
  int major = 0;
  int minor = 0;
  int l2_bytes = 0;
  FirstError error;
  error(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
        "reading the device's compute capability");
  error(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
        "reading the device's compute capability");
  error(cudaDeviceGetAttribute(&l2_bytes, cudaDevAttrL2CacheSize, device),
        "reading the size of the device's cache");
  const absl::Status status = error.Take();
  if (!status.ok()) return status;
  return DeviceTraits{10 * major + minor, l2_bytes};
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceContext>> DeviceContext::Open(int device_index) {
  int devices = 0;
  const cudaError_t counted = cudaGetDeviceCount(&devices);
  if (counted != cudaSuccess) {
    return absl::UnavailableError(fmt::format("no CUDA device: {}", cudaGetErrorString(counted)));
  }
  if (device_index >= devices) {
    return absl::UnavailableError(
        fmt::format("no CUDA device {}: this machine has {}", device_index, devices));
  }
  const absl::StatusOr<const CublasApi*> cublas = LoadCublas();
  if (!cublas.ok()) {
    return absl::FailedPreconditionError(fmt::format(
        "CUDA device {} cannot be used: {}", device_index, std::string(cublas.status().message())));
  }
  // The constructor is private.
  std::unique_ptr<DeviceContext> context(new DeviceContext(device_index));
  absl::Status status = context->Activate();
  const absl::StatusOr<DeviceTraits> traits = ReadTraits(device_index);
  if (status.ok()) status = traits.status();
  if (status.ok()) status = context->compute_.Create();
  if (status.ok()) status = context->copies_.Create();
  if (!status.ok()) {
    return absl::FailedPreconditionError(fmt::format("CUDA device {} cannot be used: {}",
                                                     device_index, std::string(status.message())));
  }
  constexpr int kOldest = 75;
  context->traits_ = *traits;
  if (traits->compute_capability < kOldest) {
    return absl::FailedPreconditionError(fmt::format(
        "CUDA device {} has compute capability {}.{}, 7.5 or more is needed", device_index,
        traits->compute_capability / 10, traits->compute_capability % 10));
  }
  context->cublas_ = *cublas;
  cublasStatus_t created = (*cublas)->create(&context->handle_);
  if (created == CUBLAS_STATUS_SUCCESS) {
    created = (*cublas)->set_stream(context->handle_, context->compute_.get());
  }
  if (created != CUBLAS_STATUS_SUCCESS) {
    return absl::FailedPreconditionError(
        fmt::format("cuBLAS does not start on CUDA device {}: status {}", device_index,
                    static_cast<int>(created)));
  }
  return context;
}

DeviceContext::~DeviceContext() {
  if (handle_ != nullptr) cublas_->destroy(handle_);
}

absl::Status DeviceContext::Activate() const {
  return CudaStatus(cudaSetDevice(device_index_), "choosing the device");
}

absl::StatusOr<int64_t> DeviceContext::FreeBytes() const {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  const cudaError_t error = cudaMemGetInfo(&free_bytes, &total_bytes);
  if (error != cudaSuccess) return CudaStatus(error, "asking for free memory");
  return static_cast<int64_t>(free_bytes);
}

}  // namespace tiny_knn
