// Runs one case of the conformance list on an engine and on the oracle, and compares bit patterns.
#pragma once

#include <string>

#include "tests/conformance/conformance_cases.h"
#include "tests/conformance/engines.h"

namespace tiny_knn::conformance {

// Empty if the engine's indices, scores and report equal the oracle's; otherwise what differs
// first, in a few lines. Nothing is cached: the oracle runs every time.
std::string RunCase(const Case& c, const EngineUnderTest& engine);

}  // namespace tiny_knn::conformance
