// main() of tests that run once for each instruction-set level: --isa=portable|avx2|avx512.
#include <cstdio>
#include <optional>
#include <string_view>

#include "core/search/isa.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

int Main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  constexpr std::string_view kFlag = "--isa=";
  const std::string_view argument = argc == 2 ? argv[1] : "";
  std::optional<IsaLevel> level;
  if (argument.starts_with(kFlag)) level = ParseIsaLevel(argument.substr(kFlag.size()));
  if (!level.has_value()) {
    std::fprintf(stderr, "usage: %s --isa=portable|avx2|avx512 [gtest flags]\n", argv[0]);
    return 2;
  }
  if (*level > BestIsaLevel()) {
    std::printf("NOT RUN: this machine's best instruction-set level is lower\n");
    return 0;
  }
  if (!ForceIsaLevelForTest(*level).ok()) return 1;
  return RUN_ALL_TESTS();
}

}  // namespace
}  // namespace tiny_knn

int main(int argc, char** argv) { return tiny_knn::Main(argc, argv); }
