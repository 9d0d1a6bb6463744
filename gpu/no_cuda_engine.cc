// The CUDA engine's door in a build without CUDA: it says so.
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "gpu/cuda_engine.h"

namespace tiny_knn {

absl::StatusOr<std::unique_ptr<Engine>> MakeCudaEngine(int /*device_index*/,
                                                       int64_t /*gpu_memory_bytes*/) {
  return absl::UnavailableError("no CUDA device: this build of tiny-knn has no CUDA engine");
}

}  // namespace tiny_knn
