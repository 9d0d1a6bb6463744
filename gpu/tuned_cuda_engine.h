// For tests: the CUDA engine with another plan.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "core/search/engine.h"
#include "gpu/device_plan.h"

namespace tiny_knn {

// As MakeCudaEngine.
absl::StatusOr<std::unique_ptr<Engine>> MakeTunedCudaEngine(int device_index,
                                                            int64_t gpu_memory_bytes,
                                                            const DeviceTuning& tuning);

}  // namespace tiny_knn
