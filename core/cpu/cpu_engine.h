// The CPU engine: screen (float32 GEMM with a proved bound), select, rescore.
#pragma once

#include <cstdint>
#include <memory>

#include "core/search/engine.h"

namespace tiny_knn {

// Ways to force what normally depends on the machine or on chance; for tests only. Results never
// depend on them.
struct CpuEngineTestHooks {
  // Treat every query's candidates as if the buffer were full after this many (0: as planned).
  int64_t candidate_capacity = 0;
};

// One engine owns one thread pool, grown to what a plan asks for.
std::unique_ptr<Engine> MakeCpuEngine(const CpuEngineTestHooks& hooks = {});

}  // namespace tiny_knn
