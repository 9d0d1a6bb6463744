// The part of the CUDA runtime that nvcc's host code calls: registration of kernels, and launches.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "cuda_runtime_api.h"
#include "fmt/format.h"
#include "gpu/emulation/device.h"

namespace tiny_knn::emulation {
namespace {

// What <<<...>>> leaves for the stub that it calls.
struct CallConfiguration {
  dim3 grid, block;
  size_t shared = 0;
  cudaStream_t stream = nullptr;
};
thread_local std::vector<CallConfiguration> call_configurations;

// What a fatbin's wrapper in the object is.
struct FatbinWrapper {
  int magic;
  int version;
  const void* data;
  const void* file;
};
constexpr int kWrapperMagic = 0x466243b1;

bool FitsGrid(dim3 grid) {
  constexpr unsigned kMostY = 65535;
  return grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x <= 0x7fffffffU && grid.y <= kMostY &&
         grid.z <= kMostY;
}

bool FitsBlock(dim3 block, const PtxKernel& kernel) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const uint32_t most = kernel.max_threads != 0 ? kernel.max_threads : 1024;
  return threads > 0 && threads <= std::min<uint32_t>(most, 1024) && block.z <= 64;
}

cudaError_t LaunchKernel(KernelHandle* kernel, dim3 grid, dim3 block, void** arguments,
                         size_t shared, cudaStream_t handle) {
  Locked locked;
  Device& device = locked.device;
  if (device.sticky != cudaSuccess) return device.sticky;
  uint32_t stream = 0;
  if (kernel == nullptr) return Noted(cudaErrorInvalidDeviceFunction);
  if (!device.FindStream(handle, &stream)) return Noted(cudaErrorInvalidResourceHandle);
  const absl::StatusOr<const Program*> program = device.modules.Load(kernel, device.memory);
  if (!program.ok()) {
    device.Report({ViolationKind::kUnsupported, std::string(program.status().message())},
                  cudaErrorNoKernelImageForDevice);
    return Noted(cudaErrorNoKernelImageForDevice);
  }
  const PtxKernel& ptx = *(*program)->kernel;
  if (!FitsGrid(grid) || !FitsBlock(block, ptx)) return Noted(cudaErrorInvalidConfiguration);
  if (shared > static_cast<size_t>(kernel->max_dynamic_shared) ||
      shared + (*program)->shared.static_bytes >
          static_cast<size_t>(LimitsOf(device.modules.NewestArch()).max_shared_per_block)) {
    return Noted(cudaErrorInvalidValue);
  }
  if (device.counts.launches++ >= device.options.failing_launch) {
    return Noted(cudaErrorLaunchOutOfResources);
  }
  Launch launch;
  launch.program = *program;
  launch.grid = {grid.x, grid.y, grid.z};
  launch.block = {block.x, block.y, block.z};
  launch.dynamic_shared = static_cast<uint32_t>(shared);
  launch.parameters.resize(ptx.parameter_bytes);
  for (size_t i = 0; i < ptx.parameters.size(); ++i) {
    std::memcpy(&launch.parameters[ptx.parameters[i].offset], arguments[i],
                ptx.parameters[i].bytes);
  }
  launch.seed = device.streams->NextRandom();
  launch.max_operations = device.options.max_operations;
  launch.multiprocessors = static_cast<uint32_t>(device.options.multiprocessors);
  device.counts.blocks += launch.grid.volume();
  device.EnqueueLaunch(stream, std::move(launch));
  return cudaSuccess;
}

KernelHandle* FindKernel(const void* stub) {
  Locked locked;
  return locked.device.modules.Find(stub);
}

}  // namespace
}  // namespace tiny_knn::emulation

// The names and types are those that nvcc's host code and cuda_runtime_api.h have.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" {

using namespace tiny_knn::emulation;  // NOLINT(google-build-using-namespace)

void** __cudaRegisterFatBinary(void* wrapper);
void __cudaRegisterFatBinaryEnd(void** handle);
void __cudaUnregisterFatBinary(void** handle);
void __cudaRegisterFunction(void** handle, const char* stub, char* device_function,
                            const char* device_name, int thread_limit, uint3* tid, uint3* bid,
                            dim3* block, dim3* grid, int* warp_size);
void __cudaRegisterVar(void** handle, char* host_variable, char* device_address,
                       const char* device_name, int ext, size_t size, int constant, int global);
char __cudaInitModule(void** handle);
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream);
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream);
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub);
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t stream);

void** __cudaRegisterFatBinary(void* wrapper) {
  const auto* fatbin = static_cast<const FatbinWrapper*>(wrapper);
  Locked locked;
  return reinterpret_cast<void**>(
      locked.device.modules.Register(fatbin->magic == kWrapperMagic ? fatbin->data : wrapper));
}

void __cudaRegisterFatBinaryEnd(void** /*handle*/) {}

void __cudaUnregisterFatBinary(void** handle) {
  Locked locked;
  locked.device.modules.Unregister(reinterpret_cast<Module*>(handle));
}

void __cudaRegisterFunction(void** handle, const char* stub, char* /*device_function*/,
                            const char* device_name, int /*thread_limit*/, uint3* /*tid*/,
                            uint3* /*bid*/, dim3* /*block*/, dim3* /*grid*/, int* /*warp_size*/) {
  Locked locked;
  locked.device.modules.RegisterKernel(reinterpret_cast<Module*>(handle), stub, device_name);
}

// Variables are found by their names, in the PTX.
void __cudaRegisterVar(void** /*handle*/, char* /*host_variable*/, char* /*device_address*/,
                       const char* /*device_name*/, int /*ext*/, size_t /*size*/, int /*constant*/,
                       int /*global*/) {}

char __cudaInitModule(void** /*handle*/) { return 1; }

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  call_configurations.push_back({grid, block, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (call_configurations.empty()) return cudaErrorMissingConfiguration;
  const CallConfiguration configuration = call_configurations.back();
  call_configurations.pop_back();
  *grid = configuration.grid;
  *block = configuration.block;
  *shared = configuration.shared;
  *static_cast<cudaStream_t*>(stream) = configuration.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  *kernel = reinterpret_cast<cudaKernel_t>(FindKernel(stub));
  return *kernel == nullptr ? cudaErrorInvalidDeviceFunction : cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t stream) {
  return LaunchKernel(reinterpret_cast<KernelHandle*>(kernel), grid, block, arguments, shared,
                      stream);
}

cudaError_t cudaLaunchKernel(const void* func, dim3 grid, dim3 block, void** args, size_t shared,
                             cudaStream_t stream) {
  return LaunchKernel(FindKernel(func), grid, block, args, shared, stream);
}

}  // extern "C"
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
