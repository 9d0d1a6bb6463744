// Every case of the conformance list on every engine, at the instruction-set level that --isa
// names. A case that is not run is a failure, unless --gtest_filter asked for a selection.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/search/isa.h"
#include "tests/conformance/conformance_cases.h"
#include "tests/conformance/engines.h"
#include "tests/conformance/run_case.h"

namespace tiny_knn::conformance {
namespace {

struct Subject {
  const EngineUnderTest* engine;
  const Case* problem;
};

void PrintTo(const Subject& subject, std::ostream* out) { *out << subject.problem->name; }

std::vector<Subject> AllSubjects() {
  std::vector<Subject> subjects;
  for (const EngineUnderTest& engine : EnginesUnderTest()) {
    for (const Case& c : AllCases()) subjects.push_back({&engine, &c});
  }
  return subjects;
}

bool IsForThisLevel(const EngineUnderTest& engine) {
  const IsaLevel level = CurrentIsaLevel();
  // Tiles multiply codes only: the rest is what it is without them.
  if (level == IsaLevel::kAmx) return HasCodes(engine.screen);
  // Without tiles nobody would choose codes of two digits, and they are slow.
  if (engine.screen == ScreenKind::kInt16Codes) return level == BestIsaLevel();
  return !engine.at_best_level_only || level == std::min(BestIsaLevel(), IsaLevel::kAvx512);
}

class Conformance : public testing::TestWithParam<Subject> {};

TEST_P(Conformance, EqualsTheOracleBitForBit) {
  const auto& [engine, problem] = GetParam();
  const std::string difference = RunCase(*problem, *engine);
  EXPECT_EQ(difference, "") << problem->name << ", scenario " << problem->scenario << ", seed "
                            << problem->seed;
}

INSTANTIATE_TEST_SUITE_P(Engines, Conformance, testing::ValuesIn(AllSubjects()),
                         [](const testing::TestParamInfo<Subject>& subject) {
                           return fmt::format("{}_{}", subject.param.engine->name,
                                              subject.param.problem->name);
                         });

// Counts finished cases by engine.
class Counter : public testing::EmptyTestEventListener {
 public:
  void OnTestEnd(const testing::TestInfo& test) override {
    if (!test.result()->Skipped()) ++ran_[EngineOf(test)];
  }

  // The closing lines; false if a case of the list was not run.
  bool Report(std::string_view isa, bool whole_list) const {
    bool complete = true;
    for (size_t i = 0; i < ran_.size(); ++i) {
      const std::string_view engine = EnginesUnderTest()[i].name;
      const int64_t wanted =
          IsForThisLevel(EnginesUnderTest()[i]) ? static_cast<int64_t>(AllCases().size()) : 0;
      std::printf("%.*s/%.*s: ran %lld of %lld cases\n", static_cast<int>(engine.size()),
                  engine.data(), static_cast<int>(isa.size()), isa.data(),
                  static_cast<long long>(ran_[i]), static_cast<long long>(wanted));
      if (whole_list && ran_[i] != wanted) complete = false;
    }
    return complete;
  }

 private:
  static size_t EngineOf(const testing::TestInfo& test) {
    const std::string_view name = test.name();
    const std::string_view parameter = name.substr(name.find('/') + 1);
    for (size_t i = 0; i < EnginesUnderTest().size(); ++i) {
      if (parameter.starts_with(fmt::format("{}_", EnginesUnderTest()[i].name))) return i;
    }
    return 0;
  }

  std::vector<int64_t> ran_ = std::vector<int64_t>(EnginesUnderTest().size(), 0);
};

int Main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  std::optional<IsaLevel> level;
  if (argc == 2 && std::string_view(argv[1]).starts_with("--isa=")) {
    level = ParseIsaLevel(std::string_view(argv[1]).substr(6));
  }
  if (!level.has_value()) {
    std::fprintf(stderr, "usage: %s --isa=portable|avx2|avx512 [gtest flags]\n", argv[0]);
    return 2;
  }
  const std::string_view isa = IsaLevelName(*level);
  const absl::Status forced = ForceIsaLevelForTest(*level);
  if (!forced.ok()) {
    const std::string_view best = IsaLevelName(BestIsaLevel());
    std::printf("%.*s: NOT RUN on this machine, whose best instruction-set level is %.*s\n",
                static_cast<int>(isa.size()), isa.data(), static_cast<int>(best.size()),
                best.data());
    return *level > BestIsaLevel() ? 0 : 1;
  }
  auto* const counter = new Counter;  // the listeners own it
  testing::UnitTest::GetInstance()->listeners().Append(counter);
  const bool whole_list = testing::GTEST_FLAG(filter) == "*";
  if (whole_list) {
    std::string left_out = "-";
    for (const EngineUnderTest& engine : EnginesUnderTest()) {
      if (!IsForThisLevel(engine)) left_out += fmt::format("*/{}_*:", engine.name);
    }
    if (left_out.size() > 1) testing::GTEST_FLAG(filter) = left_out;
  }
  const int failed = RUN_ALL_TESTS();
  if (!counter->Report(isa, whole_list)) {
    std::fprintf(stderr, "some cases were not run\n");
    return 1;
  }
  return failed;
}

}  // namespace
}  // namespace tiny_knn::conformance

int main(int argc, char** argv) { return tiny_knn::conformance::Main(argc, argv); }
