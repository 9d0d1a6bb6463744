#include "tests/conformance/engines.h"

#include "core/cpu/cpu_engine.h"

namespace tiny_knn::conformance {

const std::vector<EngineUnderTest>& EnginesUnderTest() {
  static const std::vector<EngineUnderTest>* const engines = new std::vector<EngineUnderTest>{
      {"cpu", MakeCpuEngine},
      {"cpuwarm", MakeCpuEngine, /*warm=*/true},
      {"cpuint8", MakeCpuEngine, /*warm=*/false, ScreenKind::kInt8Codes, true},
      {"cpuint8warm", MakeCpuEngine, /*warm=*/true, ScreenKind::kInt8Codes, true},
      {"cpuint16", MakeCpuEngine, /*warm=*/false, ScreenKind::kInt16Codes, true},
      {"cpuint16guess", MakeCpuEngine, /*warm=*/true, ScreenKind::kInt16Codes, true, true},
      {"cpuguess", MakeCpuEngine, /*warm=*/true, ScreenKind::kFloat32Gemm, true, true},
      {"cpuint8guess", MakeCpuEngine, /*warm=*/true, ScreenKind::kInt8Codes, true, true},
      {"cpusaved", MakeCpuEngine, /*warm=*/false, ScreenKind::kFloat32Gemm, true, false,
       /*save_every=*/1},
      {"cpuint8saved", MakeCpuEngine, /*warm=*/false, ScreenKind::kInt8Codes, true, true,
       /*save_every=*/1},
  };
  return *engines;
}

}  // namespace tiny_knn::conformance
