// tiny-knn with one more flag, the first: --force-isa=portable|avx2|avx512. Exits with 77 when this
// machine lacks the level.
#include <cstdio>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "cli/cli_main.h"
#include "core/search/isa.h"

int main(int argc, char** argv) {
  constexpr std::string_view kFlag = "--force-isa=";
  if (argc < 2 || !std::string_view(argv[1]).starts_with(kFlag)) {
    std::fprintf(stderr, "usage: %s --force-isa=LEVEL ARGUMENTS OF tiny-knn\n", argv[0]);
    return 2;
  }
  const std::optional<tiny_knn::IsaLevel> level =
      tiny_knn::ParseIsaLevel(std::string_view(argv[1]).substr(kFlag.size()));
  if (!level.has_value()) {
    std::fprintf(stderr, "%s: no such level\n", argv[1]);
    return 2;
  }
  const absl::Status forced = tiny_knn::ForceIsaLevelForTest(*level);
  if (!forced.ok()) {
    std::fprintf(stderr, "%s: %s\n", argv[1], forced.ToString().c_str());
    return 77;
  }
  argv[1] = argv[0];
  return tiny_knn::CliMain(argc - 1, argv + 1);
}
