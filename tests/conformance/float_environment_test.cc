// Engines called from threads whose arithmetic a host program has changed: other rounding modes,
// subnormals flushed. Results must not change, and neither must the host's settings.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "tests/conformance/conformance_cases.h"
#include "tests/conformance/engines.h"
#include "tests/conformance/run_case.h"

namespace tiny_knn::conformance {
namespace {

constexpr uint32_t kDefault = 0x1F80;
constexpr uint32_t kFlushToZero = 0x8000;
constexpr uint32_t kDenormalsAreZero = 0x0040;
constexpr uint32_t kRoundDown = 0x2000;
constexpr uint32_t kRoundUp = 0x4000;
constexpr uint32_t kRoundToZero = 0x6000;

// Every 5th case, which meets all scenarios and plans. Engines that keep docs warm, guess or save
// do their arithmetic with the same code as those that do not: every 29th.
void ExpectSameResults(uint32_t mxcsr) {
  for (const EngineUnderTest& engine : EnginesUnderTest()) {
    const bool is_plain = !engine.warm && !engine.guesses && engine.save_every == 0;
    const size_t step = is_plain ? 5 : 29;
    for (size_t i = mxcsr % step; i < AllCases().size(); i += step) {
      const Case& c = AllCases()[i];
      ASSERT_EQ(RunCase(c, engine, {.mxcsr = mxcsr}), "") << engine.name << " " << c.name;
    }
  }
}

TEST(HostFloatEnvironment, FlushedSubnormalsChangeNothing) {
  ExpectSameResults(kDefault | kFlushToZero | kDenormalsAreZero);
}
TEST(HostFloatEnvironment, RoundingUpChangesNothing) { ExpectSameResults(kDefault | kRoundUp); }
TEST(HostFloatEnvironment, RoundingDownChangesNothing) { ExpectSameResults(kDefault | kRoundDown); }
TEST(HostFloatEnvironment, TruncationWithFlushingChangesNothing) {
  ExpectSameResults(kDefault | kRoundToZero | kFlushToZero | kDenormalsAreZero);
}

}  // namespace
}  // namespace tiny_knn::conformance
