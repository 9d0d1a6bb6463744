// Runs the conformance list on the changed engine that this is linked with. With --expect=caught
// the change must make a case fail: a guard whose removal nobody notices is either untested or not
// needed. With --expect=clean (the unchanged copy) every case must pass, which shows that copying
// alone breaks nothing.
//
// --first=TEXT runs the cases whose names hold TEXT before the others, --count goes on after the
// first failure and says how many cases catch the change.
#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/conformance/conformance_cases.h"
#include "tests/conformance/engines.h"
#include "tests/conformance/run_case.h"
#include "tests/mutation/unpatched/cpu_engine.h"

namespace tiny_knn::conformance {
namespace {

int Main(int argc, char** argv) {
  bool expect_caught = false;
  bool expect_clean = false;
  bool count_all = false;
  std::string_view first;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    expect_caught |= argument == "--expect=caught";
    expect_clean |= argument == "--expect=clean";
    count_all |= argument == "--count";
    if (argument.starts_with("--first=")) first = argument.substr(8);
  }
  if (expect_caught == expect_clean) {
    std::fprintf(stderr, "usage: %s --expect=caught|clean [--first=TEXT] [--count]\n", argv[0]);
    return 2;
  }
  const std::vector<EngineUnderTest> engines = {
      {.name = "mutant", .make = mutant::MakeCpuEngine},
      {.name = "mutantint8", .make = mutant::MakeCpuEngine, .screen = ScreenKind::kInt8Codes},
      {.name = "mutantguess", .make = mutant::MakeCpuEngine, .guesses = true},
      {.name = "mutantwarm", .make = mutant::MakeCpuEngine, .warm = true},
      {.name = "mutantint8warm",
       .make = mutant::MakeCpuEngine,
       .warm = true,
       .screen = ScreenKind::kInt8Codes,
       .survivors_wait = true},
      {.name = "mutantint8wait",
       .make = mutant::MakeCpuEngine,
       .screen = ScreenKind::kInt8Codes,
       .survivors_wait = true},
      {.name = "mutantint16", .make = mutant::MakeCpuEngine, .screen = ScreenKind::kInt16Codes},
  };
  std::vector<std::pair<std::string, std::string>> failures;
  std::vector<Case> cases = AllCases();
  std::stable_partition(cases.begin(), cases.end(), [&](const Case& c) {
    return !first.empty() && c.name.find(first) != std::string::npos;
  });
  size_t ran = 0;
  for (const Case& c : cases) {
    ++ran;
    std::string difference;
    for (const EngineUnderTest& engine : engines) {
      if (difference.empty()) difference = RunCase(c, engine);
    }
    if (difference.empty()) continue;
    failures.emplace_back(c.name, std::move(difference));
    if (!count_all) break;
  }
  std::printf("%zu of %zu cases run, %zu failed\n", ran, cases.size(), failures.size());
  for (size_t i = 0; i < failures.size() && i < 10; ++i) {
    std::printf("%s\n%s", failures[i].first.c_str(), failures[i].second.c_str());
  }
  if (expect_caught && failures.empty()) {
    std::printf("no case of the conformance list notices this change to the engine\n");
    return 1;
  }
  return expect_clean && !failures.empty() ? 1 : 0;
}

}  // namespace
}  // namespace tiny_knn::conformance

int main(int argc, char** argv) { return tiny_knn::conformance::Main(argc, argv); }
