#include "tests/conformance/engines.h"

#include "core/cpu/cpu_engine.h"

namespace tiny_knn::conformance {

const std::vector<EngineUnderTest>& EnginesUnderTest() {
  static const std::vector<EngineUnderTest>* const engines = new std::vector<EngineUnderTest>{
      {.name = "cpu", .make = MakeCpuEngine},
      {.name = "cpuwarm", .make = MakeCpuEngine, .warm = true},
      {.name = "cpuint8",
       .make = MakeCpuEngine,
       .screen = ScreenKind::kInt8Codes,
       .at_best_level_only = true},
      {.name = "cpuint8warm",
       .make = MakeCpuEngine,
       .warm = true,
       .screen = ScreenKind::kInt8Codes,
       .at_best_level_only = true,
       .survivors_wait = true},
      {.name = "cpuint8wait",
       .make = MakeCpuEngine,
       .screen = ScreenKind::kInt8Codes,
       .at_best_level_only = true,
       .survivors_wait = true},
      {.name = "cpuint16",
       .make = MakeCpuEngine,
       .screen = ScreenKind::kInt16Codes,
       .at_best_level_only = true},
      {.name = "cpuint16guess",
       .make = MakeCpuEngine,
       .warm = true,
       .screen = ScreenKind::kInt16Codes,
       .at_best_level_only = true,
       .guesses = true},
      {.name = "cpuguess",
       .make = MakeCpuEngine,
       .warm = true,
       .at_best_level_only = true,
       .guesses = true},
      {.name = "cpuint8guess",
       .make = MakeCpuEngine,
       .warm = true,
       .screen = ScreenKind::kInt8Codes,
       .at_best_level_only = true,
       .guesses = true,
       .survivors_wait = true},
      {.name = "cpusaved", .make = MakeCpuEngine, .at_best_level_only = true, .save_every = 1},
      {.name = "cpuint8saved",
       .make = MakeCpuEngine,
       .screen = ScreenKind::kInt8Codes,
       .at_best_level_only = true,
       .guesses = true,
       .save_every = 1,
       .survivors_wait = true},
  };
  return *engines;
}

}  // namespace tiny_knn::conformance
