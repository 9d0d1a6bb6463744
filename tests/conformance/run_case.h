// Runs one case of the conformance list on an engine and on the oracle, and compares bit patterns.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tests/conformance/conformance_cases.h"
#include "tests/conformance/engines.h"

namespace tiny_knn::conformance {

struct RunOptions {
  // Control and status of SSE arithmetic (rounding mode, DAZ, FTZ) on the thread that calls the
  // engine, as a host program may have left it; nothing: the default.
  std::optional<uint32_t> mxcsr = std::nullopt;
};

// Empty if the engine's indices, scores and report equal the oracle's; otherwise what differs
// first, in a few lines. Nothing is cached: the oracle runs every time.
std::string RunCase(const Case& c, const EngineUnderTest& engine, const RunOptions& options = {});

}  // namespace tiny_knn::conformance
