// The CUDA engine under test, as planned and with plans that make small problems hard.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/conformance/conformance_cases.h"
#include "tests/conformance/engines.h"

namespace tiny_knn::conformance {

// Names begin with "cuda".
const std::vector<EngineUnderTest>& CudaEnginesUnderTest();

// Which of them runs `c`, the case of that number, when they take turns; another `turn` begins with
// another engine. One that launches kernels for every few pairs leaves large cases to the next.
size_t EngineOfTurn(const Case& c, uint64_t number, uint64_t turn);

}  // namespace tiny_knn::conformance
