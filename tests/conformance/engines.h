// The engines that the conformance list runs against. A new engine is one more line of engines.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "core/search/engine.h"
#include "core/search/planner.h"

namespace tiny_knn::conformance {

struct EngineUnderTest {
  std::string_view name;  // letters and digits
  std::unique_ptr<Engine> (*make)();
  // Each case is searched twice: by a search that keeps the docs warm, and by one that uses them.
  bool warm = false;
  ScreenKind screen = ScreenKind::kFloat32Gemm;  // where the compute dtype has it
  // Run at the machine's best instruction-set level, and at AVX-512: at others nobody would choose
  // it.
  bool at_best_level_only = false;
  // Thresholds are guessed from every other doc: too high for about half of the queries.
  bool guesses = false;
  // The state is saved at each of the first borders between chunks and then at every n-th; searches
  // go on from some of what was saved. 0: never.
  int64_t save_every = 0;
  // Survivors of codes wait to be refined.
  bool survivors_wait = false;
};

const std::vector<EngineUnderTest>& EnginesUnderTest();

}  // namespace tiny_knn::conformance
