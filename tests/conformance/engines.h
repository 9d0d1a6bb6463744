// The engines that the conformance list runs against. A new engine is one more line of engines.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "core/search/engine.h"

namespace tiny_knn::conformance {

struct EngineUnderTest {
  std::string_view name;  // letters and digits
  // An engine that thins a query's candidates at `candidate_capacity` (0: as planned).
  std::unique_ptr<Engine> (*make)(int64_t candidate_capacity);
};

const std::vector<EngineUnderTest>& EnginesUnderTest();

}  // namespace tiny_knn::conformance
