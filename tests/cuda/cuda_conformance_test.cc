// The conformance list on the CUDA engine: indices, scores and report equal the oracle's bit for
// bit. On an emulated GPU, which aborts with a message if it finds anything wrong; tools/gpu_check
// builds it for the machine's own.
//
// usage: cuda_conformance_test [--turn=T | --every=N] [--seed=S] [--filter=TEXT] [--verbose]
//   --turn=T   each case on one of the engines of cuda_engines.h, which take turns from the T-th on
//   --every=N  each case on all of them, but only every N-th of these pairs; the default is all
//   --seed=S   of the device, and of which pairs
#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
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
  std::string_view filter;
  bool verbose = false;
};

bool ReadNumber(std::string_view argument, std::string_view name, uint64_t& number) {
  if (!argument.starts_with(name)) return false;
  argument.remove_prefix(name.size());
  const char* const end = argument.data() + argument.size();
  return std::from_chars(argument.data(), end, number).ptr == end;
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
    } else if (argument == "--verbose") {
      options.verbose = true;
    } else {
      std::fprintf(stderr,
                   "usage: %s [--turn=T | --every=N] [--seed=S] [--filter=TEXT] [--verbose]\n",
                   argv[0]);
      return 2;
    }
  }
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
      if ((++pair_number + options.seed) % options.every != 0) continue;
      const std::string name = fmt::format("{}_{}", engine.name, c.name);
      if (name.find(options.filter) == std::string::npos) continue;
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
