// The CUDA engine's door. In a build without CUDA the same header is served by no_cuda_engine.cc.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "core/search/engine.h"

namespace tiny_knn {

// An engine on CUDA device `device_index` that uses at most `gpu_memory_bytes` (0: what is free) of
// its memory. Errors, saying why there is no such engine: Unavailable (built without CUDA, no
// driver, no device of that index), FailedPrecondition (a device that cannot be used: no libcublas,
// too old).
//
// Searches in compute dtype float64, and those whose numbers it cannot count (k of 2^30 or more,
// 2^32 docs or more, 2^30 dims or more), are the CPU engine's, which this one owns.
absl::StatusOr<std::unique_ptr<Engine>> MakeCudaEngine(int device_index, int64_t gpu_memory_bytes);

}  // namespace tiny_knn
