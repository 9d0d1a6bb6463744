// The conformance list on the CUDA engine: indices, scores and report equal the oracle's bit for
// bit. On an emulated GPU, which aborts with a message if it finds anything wrong; tools/gpu_check
// builds it for the machine's own.
//
// usage: cuda_conformance_test [--turn=T] [--every=N] [--always=TEXT] [--seed=S] [--filter=TEXT]
//                              [--verbose]
//   --turn=T       each case on one of the engines of cuda_engines.h, which take turns from the
//   T-th
//                  on; without it, on all of them
//   --every=N      only every N-th of these pairs of a case and an engine; the default is all
//   --always=TEXT  and those with TEXT in their names
//   --seed=S       of the device, and of which pairs
//   --filter=TEXT  of all that, what has TEXT in its name
// As a sharded test of Bazel it takes a share of the cases.
#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/matrix/dtype.h"
#include "tests/conformance/conformance_cases.h"
#include "tests/conformance/run_case.h"
#include "tests/cuda/case_device.h"
#include "tests/cuda/cuda_engines.h"

namespace tiny_knn::conformance {
namespace {

struct Options {
  uint64_t every = 1;
  std::optional<uint64_t> turn;
  uint64_t seed = 1;
  std::string_view always;
  std::string_view filter;
  bool verbose = false;

  // Of the case that has this name on an engine, the `number`-th of those that may be run.
  bool Wants(std::string_view name, uint64_t number) const {
    const bool has_turn = (number + seed) % every == 0;
    const bool is_special = !always.empty() && name.find(always) != std::string_view::npos;
    return (has_turn || is_special) && name.find(filter) != std::string_view::npos;
  }
};

// What Bazel asks of a sharded test.
struct Shard {
  uint64_t index = 0;
  uint64_t total = 1;

  // By the case's seed, which says nothing of the engine whose turn it is.
  bool Has(const Case& c) const { return c.seed % total == index; }
};

bool ReadNumber(std::string_view argument, std::string_view name, uint64_t& number) {
  if (!argument.starts_with(name)) return false;
  argument.remove_prefix(name.size());
  const char* const end = argument.data() + argument.size();
  return std::from_chars(argument.data(), end, number).ptr == end;
}

Shard ShardOfThisProcess() {
  Shard shard;
  const auto read = [](const char* name, uint64_t& number) {
    const char* const text = std::getenv(name);
    return text != nullptr && ReadNumber(text, "", number);
  };
  if (!read("TEST_TOTAL_SHARDS", shard.total) || !read("TEST_SHARD_INDEX", shard.index)) return {};
  const char* const status = std::getenv("TEST_SHARD_STATUS_FILE");
  if (status != nullptr) std::ofstream touched(status);
  return shard;
}

// How a problem is chosen: what runs on the CPU engine in any case is not worth interpreting.
bool IsForDevice(const Case& c) { return WorkingDType(c.compute_dtype) == DType::kFloat32; }

int Main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    uint64_t turn = 0;
    if (ReadNumber(argument, "--turn=", turn)) {
      options.turn = turn;
      continue;
    }
    if (ReadNumber(argument, "--every=", options.every) ||
        ReadNumber(argument, "--seed=", options.seed)) {
      continue;
    }
    if (argument.starts_with("--filter=")) {
      options.filter = argument.substr(9);
    } else if (argument.starts_with("--always=")) {
      options.always = argument.substr(9);
    } else if (argument == "--verbose") {
      options.verbose = true;
    } else {
      std::fprintf(stderr,
                   "usage: %s [--turn=T] [--every=N] [--always=TEXT] [--seed=S] [--filter=TEXT] "
                   "[--verbose]\n",
                   argv[0]);
      return 2;
    }
  }
  const Shard shard = ShardOfThisProcess();
  std::vector<uint64_t> ran(CudaEnginesUnderTest().size(), 0);
  uint64_t wanted = 0;
  int failed = 0;
  uint64_t case_number = 0;
  uint64_t pair_number = 0;
  for (const Case& c : AllCases()) {
    if (!IsForDevice(c)) continue;
    ++case_number;
    for (size_t e = 0; e < CudaEnginesUnderTest().size(); ++e) {
      const EngineUnderTest& engine = CudaEnginesUnderTest()[e];
      if (options.turn && e != EngineOfTurn(c, case_number, *options.turn)) continue;
      const std::string name = fmt::format("{}_{}", engine.name, c.name);
      if (!options.Wants(name, ++pair_number) || !shard.Has(c)) continue;
      ++wanted;
      if (options.verbose) std::printf("%s\n", name.c_str()), std::fflush(stdout);
      const auto start = std::chrono::steady_clock::now();
      // Seed 0: everything as late as it may be.
      const auto device = MakeCaseDevice((c.seed + options.seed) % 3);
      std::string difference = RunCase(c, engine);
      difference += device->Leftovers();
      ++ran[e];
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      if (options.verbose) std::printf("  %.2f s\n", seconds.count());
      if (difference.empty()) continue;
      ++failed;
      std::printf("FAILED %s\n%s", name.c_str(), difference.c_str());
      std::fflush(stdout);
    }
  }
  for (size_t e = 0; e < ran.size(); ++e) {
    std::printf("%-10s ran %llu cases\n", std::string(CudaEnginesUnderTest()[e].name).c_str(),
                static_cast<unsigned long long>(ran[e]));
  }
  std::printf("%llu cases, %d failed\n", static_cast<unsigned long long>(wanted), failed);
  return failed > 0 || wanted == 0 ? 1 : 0;
}

}  // namespace
}  // namespace tiny_knn::conformance

int main(int argc, char** argv) { return tiny_knn::conformance::Main(argc, argv); }
