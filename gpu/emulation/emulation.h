// The emulated GPU as a test sees it: what device it is, what goes wrong on demand, and what it
// found.
//
// Linked instead of libcudart and libcublas, it runs what nvcc compiled for compute_75 or
// compute_90 (the _emulated_ targets of cuda_library). docs/gpu_emulation.md says what it checks.
//
//   EmulatedGpu gpu({.seed = seed, .memory_bytes = 8 << 20});
//   ... code that uses CUDA ...
//   EXPECT_EQ(gpu.live_allocations(), 0);
//
// A violation aborts the process with its message, unless a ViolationCollector is alive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "gpu/emulation/violation.h"

namespace tiny_knn::emulation {

struct EmulatedGpuOptions {
  // Of the order in which streams, blocks and warps proceed. 0: no work is done before somebody
  // waits for it.
  uint64_t seed = 0;
  int devices = 1;                            // 0: cudaGetDeviceCount answers cudaErrorNoDevice
  uint64_t memory_bytes = uint64_t{1} << 30;  // of the device
  int multiprocessors = 4;
  uint64_t l2_bytes = uint64_t{4} << 20;
  // The n-th allocation of device memory from now on fails, and all after it; likewise of pinned
  // host memory. 0 is the first.
  uint64_t failing_allocation = std::numeric_limits<uint64_t>::max();
  uint64_t failing_host_allocation = std::numeric_limits<uint64_t>::max();
  // The n-th launch from now on is refused (cudaErrorLaunchOutOfResources).
  uint64_t failing_launch = std::numeric_limits<uint64_t>::max();
  // The n-th cublasGemmEx from now on fails.
  uint64_t failing_gemm = std::numeric_limits<uint64_t>::max();
  // Operations of all warps, before a launch counts as endless.
  uint64_t max_operations = uint64_t{1} << 33;
};

// What has happened since the device was configured.
struct EmulatedGpuCounts {
  uint64_t launches = 0;
  uint64_t blocks = 0;
  uint64_t operations = 0;  // that warps executed
  uint64_t copies = 0;
  uint64_t bytes_to_device = 0;
  uint64_t bytes_to_host = 0;
  uint64_t gemms = 0;
  uint64_t allocations = 0;       // of device memory, failed ones included
  uint64_t host_allocations = 0;  // of pinned memory, failed ones included
  uint64_t peak_bytes = 0;        // of device memory at one time
};

// A fresh device while it lives: no allocations, streams or errors. Without one the process has a
// device of default options. One at a time. Thread-safe, as the CUDA runtime is.
class EmulatedGpu {
 public:
  explicit EmulatedGpu(const EmulatedGpuOptions& options);
  // Does the work that is still in streams, and frees everything.
  ~EmulatedGpu();
  EmulatedGpu(const EmulatedGpu&) = delete;
  EmulatedGpu& operator=(const EmulatedGpu&) = delete;

  EmulatedGpuCounts counts() const;
  size_t live_allocations() const;       // of device memory
  size_t live_host_allocations() const;  // of pinned memory
  size_t live_streams() const;
  size_t live_events() const;
};

}  // namespace tiny_knn::emulation
