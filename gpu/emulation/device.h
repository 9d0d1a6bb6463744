// The emulated device: what the functions of the CUDA runtime and cuBLAS work on.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "cuda_runtime_api.h"
#include "gpu/emulation/device_memory.h"
#include "gpu/emulation/emulation.h"
#include "gpu/emulation/host_buffers.h"
#include "gpu/emulation/interpreter.h"
#include "gpu/emulation/modules.h"
#include "gpu/emulation/shared_memory.h"
#include "gpu/emulation/streams.h"

namespace tiny_knn::emulation {

// What a GPU of an architecture can hold.
struct Limits {
  int max_shared_per_block = 0;  // with cudaFuncAttributeMaxDynamicSharedMemorySize
  int shared_per_multiprocessor = 0;
  int threads_per_multiprocessor = 0;
  int blocks_per_multiprocessor = 0;
};
Limits LimitsOf(int arch);

// One for the process. Every function of the API locks `mutex` first.
class Device {
 public:
  static Device& Get();

  // A fresh device with these options.
  void Configure(const EmulatedGpuOptions& options);

  struct Event {
    WorkId work;
    bool timed = false;
    std::shared_ptr<double> milliseconds;  // when it was done
  };

  std::recursive_mutex mutex;
  EmulatedGpuOptions options;
  EmulatedGpuCounts counts;
  DeviceMemory memory;
  SharedMemory shared;
  Modules modules;
  HostBuffers host;
  std::unique_ptr<Streams> streams;
  std::map<uint64_t, Event> events;
  uint64_t next_event = 1;
  cudaError_t sticky = cudaSuccess;  // after a violation: what every call returns

  // The stream that a handle stands for; false if it is none of ours.
  bool FindStream(cudaStream_t handle, uint32_t* stream) const;
  static cudaStream_t StreamHandle(uint32_t stream);

  // Work that accesses device memory on a stream. A Fault is reported as a violation of `what`, and
  // the device is lost, as after any violation: later work is not done.
  WorkId Enqueue(uint32_t stream, std::string what, std::function<void(const Actor&)> run);
  WorkId EnqueueLaunch(uint32_t stream, Launch launch);
  void Report(Violation violation, cudaError_t error);

  uint64_t used_bytes() const { return used_bytes_; }
  void AddUsedBytes(int64_t bytes);

 private:
  Device();
  uint64_t used_bytes_ = 0;  // without the variables of modules
};

// Notes an error for cudaGetLastError, and returns it.
cudaError_t Noted(cudaError_t error);
// What cudaGetLastError (`clear`) and cudaPeekAtLastError say.
cudaError_t LastError(const Device& device, bool clear);

// The device, locked.
struct Locked {
  Device& device = Device::Get();
  std::lock_guard<std::recursive_mutex> lock{device.mutex};
};

}  // namespace tiny_knn::emulation
