#include "cli/progress.h"

#include <cstdlib>
#include <map>

#include "cli/text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

std::function<const char*(const char*)> Environment(
    const std::map<std::string, std::string>& variables) {
  return [variables](const char* name) -> const char* {
    const auto it = variables.find(name);
    return it == variables.end() ? nullptr : it->second.c_str();
  };
}

TEST(WantsBar, AutoNeedsATerminalThatCanRedrawALine) {
  const auto xterm = Environment({{"TERM", "xterm"}});
  EXPECT_TRUE(WantsBar(ProgressMode::kAuto, false, true, xterm));
  EXPECT_FALSE(WantsBar(ProgressMode::kAuto, false, false, xterm));
  EXPECT_FALSE(WantsBar(ProgressMode::kAuto, true, true, xterm));
  EXPECT_FALSE(WantsBar(ProgressMode::kAuto, false, true, Environment({{"TERM", "dumb"}})));
  EXPECT_FALSE(WantsBar(ProgressMode::kAuto, false, true, Environment({})));
}

TEST(WantsBar, TqdmDisableIsReadAsTqdmReadsIt) {
  for (const char* off : {"1", "true", "yes"}) {
    EXPECT_FALSE(WantsBar(ProgressMode::kAuto, false, true,
                          Environment({{"TERM", "xterm"}, {"TQDM_DISABLE", off}})));
  }
  for (const char* on : {"", "0", "false"}) {
    EXPECT_TRUE(WantsBar(ProgressMode::kAuto, false, true,
                         Environment({{"TERM", "xterm"}, {"TQDM_DISABLE", on}})));
  }
}

TEST(WantsBar, AlwaysAndNeverAreObeyed) {
  EXPECT_TRUE(WantsBar(ProgressMode::kAlways, true, false, Environment({{"TERM", "dumb"}})));
  EXPECT_FALSE(WantsBar(ProgressMode::kNever, false, true, Environment({{"TERM", "xterm"}})));
  EXPECT_FALSE(WantsBar(ProgressMode::kJson, false, true, Environment({{"TERM", "xterm"}})));
}

TEST(ProgressBar, ShowsShareRateAndTimeLeft) {
  EXPECT_EQ(FormatProgressBar({50'000'000, 200'000'000, 2.0}, 60),
            " 25% [######                    ] 25.0 M pairs/s, 00:06 left");
  EXPECT_EQ(FormatProgressBar({200, 200, 2.0}, 60),
            "100% [#############################] 100 pairs/s, 00:00 left");
}

TEST(ProgressBar, KnowsNoTimeAtTheStart) {
  EXPECT_EQ(FormatProgressBar({0, 200, 0}, 60),
            "  0% [                               ] 0 pairs/s, --:-- left");
}

TEST(ProgressBar, SomebodyElseMayKnowTheTimeLeft) {
  EXPECT_THAT(FormatProgressBar({0, 200, 0, 65.0}, 60), testing::HasSubstr(", 01:05 left"));
}

TEST(ProgressBar, LongSearchesShowHours) {
  EXPECT_THAT(FormatProgressBar({1, 10801, 1}, 80), testing::HasSubstr("3:00:00 left"));
}

TEST(ProgressBar, NeverExceedsTheWidth) {
  for (int width = 0; width < 120; ++width) {
    EXPECT_LE(DisplayWidth(FormatProgressBar({123'456, 7'890'123'456, 3.5}, width)), width);
  }
}

TEST(ProgressBar, NothingToDoIsDone) {
  EXPECT_EQ(FormatProgressBar({0, 0, 0}, 20).substr(0, 4), "100%");
}

TEST(ProgressJson, IsOneObjectWithNullWhereNothingIsKnown) {
  const auto start = nlohmann::json::parse(FormatProgressJson({0, 200, 0}));
  EXPECT_EQ(start["event"], "progress");
  EXPECT_TRUE(start["eta_seconds"].is_null());
  const auto later = nlohmann::json::parse(FormatProgressJson({50, 200, 2}));
  EXPECT_EQ(later["pairs_done"], 50);
  EXPECT_EQ(later["pairs_total"], 200);
  EXPECT_EQ(later["seconds"], 2.0);
  EXPECT_EQ(later["pairs_per_second"], 25);
  EXPECT_EQ(later["eta_seconds"], 6.0);
}

TEST(JsonString, EscapesAndReplacesInvalidBytes) {
  EXPECT_EQ(JsonString("a\"b\n"), "\"a\\\"b\\n\"");
  EXPECT_EQ(JsonString("\xff"), "\"\uFFFD\"");
}

}  // namespace
}  // namespace tiny_knn
