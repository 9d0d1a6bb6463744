// The CPU engine: screen (float32 GEMM with a proved bound), select, rescore.
#pragma once

#include <cstdint>
#include <memory>

#include "core/search/engine.h"

namespace tiny_knn {

// One engine owns one thread pool, grown to what a plan asks for.
std::unique_ptr<Engine> MakeCpuEngine();

}  // namespace tiny_knn
