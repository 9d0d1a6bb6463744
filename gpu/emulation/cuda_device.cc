// The device and its kernels in the CUDA runtime: properties, limits, attributes, errors.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "cuda_runtime_api.h"
#include "gpu/emulation/device.h"

namespace tiny_knn::emulation {
namespace {

constexpr int kWarpSize = 32;
constexpr int kMaxThreadsPerBlock = 1024;
constexpr int kSharedPerBlock = 48 * 1024;

// Calls f(device) if the process has that device.
template <typename F>
cudaError_t WithDevice(int index, F&& f) {
  Locked locked;
  if (locked.device.options.devices == 0) return Noted(cudaErrorNoDevice);
  if (index < 0 || index >= locked.device.options.devices) return Noted(cudaErrorInvalidDevice);
  return f(locked.device);
}

int Attribute(Device& device, cudaDeviceAttr attribute, bool* known) {
  const int arch = device.modules.NewestArch();
  const Limits limits = LimitsOf(arch);
  *known = true;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
      return kMaxThreadsPerBlock;
    case cudaDevAttrMaxBlockDimZ:
      return 64;
    case cudaDevAttrMaxGridDimX:
      return 0x7fffffff;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      return 65535;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return kSharedPerBlock;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return limits.max_shared_per_block;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return limits.shared_per_multiprocessor;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return limits.threads_per_multiprocessor;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return limits.blocks_per_multiprocessor;
    case cudaDevAttrMultiProcessorCount:
      return device.options.multiprocessors;
    case cudaDevAttrWarpSize:
      return kWarpSize;
    case cudaDevAttrL2CacheSize:
      return static_cast<int>(device.options.l2_bytes);
    case cudaDevAttrComputeCapabilityMajor:
      return arch / 10;
    case cudaDevAttrComputeCapabilityMinor:
      return arch % 10;
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrAsyncEngineCount:
      return 1;
    case cudaDevAttrIntegrated:
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrComputeMode:
      return 0;
    default:
      *known = false;
      return 0;
  }
}

// Blocks of a kernel that a multiprocessor holds, as far as threads and shared memory say.
int ActiveBlocks(Device& device, const Program& program, int block_threads, size_t dynamic) {
  const Limits limits = LimitsOf(device.modules.NewestArch());
  const int warps = (block_threads + kWarpSize - 1) / kWarpSize;
  const int by_threads = limits.threads_per_multiprocessor / std::max(warps * kWarpSize, 1);
  const size_t shared = program.shared.static_bytes + dynamic;
  const int by_shared =
      shared == 0
          ? limits.blocks_per_multiprocessor
          : static_cast<int>(static_cast<size_t>(limits.shared_per_multiprocessor) / shared);
  return std::min({limits.blocks_per_multiprocessor, by_threads, by_shared});
}

// Calls f(device, kernel, program) for the kernel of a host stub.
template <typename F>
cudaError_t WithKernel(const void* stub, F&& f) {
  Locked locked;
  Device& device = locked.device;
  if (device.sticky != cudaSuccess) return device.sticky;
  KernelHandle* kernel = device.modules.Find(stub);
  if (kernel == nullptr) return Noted(cudaErrorInvalidDeviceFunction);
  const absl::StatusOr<const Program*> program = device.modules.Load(kernel, device.memory);
  if (!program.ok()) {
    device.Report({ViolationKind::kUnsupported, std::string(program.status().message())},
                  cudaErrorNoKernelImageForDevice);
    return Noted(cudaErrorNoKernelImageForDevice);
  }
  return f(device, *kernel, **program);
}

struct ErrorText {
  cudaError_t error;
  const char* name;
  const char* text;
};
constexpr ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidPitchValue, "cudaErrorInvalidPitchValue", "invalid pitch argument"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorMissingConfiguration, "cudaErrorMissingConfiguration",
     "__global__ function call is not configured"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources",
     "too many resources requested for launch"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
};

const ErrorText* FindError(cudaError_t error) {
  const auto* found = std::find_if(std::begin(kErrors), std::end(kErrors),
                                   [&](const ErrorText& each) { return each.error == error; });
  return found == std::end(kErrors) ? nullptr : found;
}

}  // namespace
}  // namespace tiny_knn::emulation

extern "C" {

using namespace tiny_knn::emulation;  // NOLINT(google-build-using-namespace)

cudaError_t cudaGetLastError() {
  Locked locked;
  return LastError(locked.device, true);
}

cudaError_t cudaPeekAtLastError() {
  Locked locked;
  return LastError(locked.device, false);
}

const char* cudaGetErrorString(cudaError_t error) {
  const ErrorText* found = FindError(error);
  return found == nullptr ? "unrecognized error code" : found->text;
}

const char* cudaGetErrorName(cudaError_t error) {
  const ErrorText* found = FindError(error);
  return found == nullptr ? "unrecognized error code" : found->name;
}

cudaError_t cudaGetDeviceCount(int* count) {
  Locked locked;
  *count = locked.device.options.devices;
  return *count == 0 ? Noted(cudaErrorNoDevice) : cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  return WithDevice(device, [](Device& gpu) { return gpu.sticky; });
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return WithDevice(0, [](Device& gpu) { return gpu.sticky; });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return WithDevice(device, [=](Device& gpu) {
    bool known = false;
    *value = Attribute(gpu, attribute, &known);
    return known ? gpu.sticky : Noted(cudaErrorInvalidValue);
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return WithDevice(device, [=](Device& gpu) {
    const auto attribute = [&](cudaDeviceAttr which) {
      bool known = false;
      return Attribute(gpu, which, &known);
    };
    *properties = {};
    std::snprintf(properties->name, sizeof(properties->name), "Emulated GPU");
    properties->totalGlobalMem = gpu.options.memory_bytes;
    properties->sharedMemPerBlock = kSharedPerBlock;
    properties->sharedMemPerBlockOptin =
        static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
    properties->sharedMemPerMultiprocessor =
        static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor));
    properties->regsPerBlock = 65536;
    properties->warpSize = kWarpSize;
    properties->maxThreadsPerBlock = kMaxThreadsPerBlock;
    properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = kMaxThreadsPerBlock;
    properties->maxThreadsDim[2] = 64;
    properties->maxGridSize[0] = 0x7fffffff;
    properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
    properties->major = attribute(cudaDevAttrComputeCapabilityMajor);
    properties->minor = attribute(cudaDevAttrComputeCapabilityMinor);
    properties->multiProcessorCount = gpu.options.multiprocessors;
    properties->l2CacheSize = static_cast<int>(gpu.options.l2_bytes);
    properties->maxThreadsPerMultiProcessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
    properties->maxBlocksPerMultiProcessor = attribute(cudaDevAttrMaxBlocksPerMultiprocessor);
    properties->unifiedAddressing = 1;
    properties->concurrentKernels = 1;
    properties->asyncEngineCount = 1;
    return gpu.sticky;
  });
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* func) {
  return WithKernel(func, [=](Device& device, KernelHandle& kernel, const Program& program) {
    *attributes = {};
    attributes->sharedSizeBytes = program.shared.static_bytes;
    attributes->localSizeBytes = program.local_bytes;
    attributes->maxThreadsPerBlock = program.kernel->max_threads != 0
                                         ? static_cast<int>(program.kernel->max_threads)
                                         : kMaxThreadsPerBlock;
    attributes->numRegs = 32;
    attributes->ptxVersion = attributes->binaryVersion = device.modules.NewestArch();
    attributes->maxDynamicSharedSizeBytes = kernel.max_dynamic_shared;
    return cudaSuccess;
  });
}

cudaError_t cudaFuncSetAttribute(const void* func, cudaFuncAttribute attribute, int value) {
  return WithKernel(func, [=](Device& device, KernelHandle& kernel, const Program& program) {
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
      return Noted(cudaErrorInvalidValue);
    }
    const int most = LimitsOf(device.modules.NewestArch()).max_shared_per_block -
                     static_cast<int>(program.shared.static_bytes);
    if (value < 0 || value > most) return Noted(cudaErrorInvalidValue);
    kernel.max_dynamic_shared = value;
    return cudaSuccess;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* func,
                                                          int blockSize, size_t dynamic) {
  return WithKernel(func, [=](Device& device, KernelHandle& /*kernel*/, const Program& program) {
    *blocks = ActiveBlocks(device, program, blockSize, dynamic);
    return cudaSuccess;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* func,
                                                                   int blockSize, size_t dynamic,
                                                                   unsigned /*flags*/) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, func, blockSize, dynamic);
}

}  // extern "C"
