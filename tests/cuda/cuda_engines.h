// The CUDA engine under test, as planned and with plans that make small problems hard.
#pragma once

#include <vector>

#include "tests/conformance/engines.h"

namespace tiny_knn::conformance {

// Names begin with "cuda".
const std::vector<EngineUnderTest>& CudaEnginesUnderTest();

}  // namespace tiny_knn::conformance
