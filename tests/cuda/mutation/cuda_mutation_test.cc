// Runs cases of the conformance list on the changed CUDA engine that this is linked with, on an
// emulated GPU. With --expect=caught a case must fail or the emulation must report a violation;
// with
// --expect=clean, for the unchanged engine, neither. --cases=TEXT runs those whose names hold TEXT,
// for a change that few notice. --count goes on after the first and says how many cases catch the
// change.
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "core/cpu/thread_pool.h"
#include "core/io/row_source.h"
#include "core/matrix/dtype.h"
#include "gpu/doc_uploader.h"
#include "gpu/emulation/emulation.h"
#include "gpu/emulation/violation.h"
#include "tests/conformance/conformance_cases.h"
#include "tests/conformance/run_case.h"
#include "tests/cuda/cuda_engines.h"

namespace tiny_knn::conformance {
namespace {

// One of so many pairs of a case and an engine is run, and of these so many where none may fail:
// more than any change takes to be caught.
constexpr size_t kStep = 29;
constexpr size_t kMostClean = 40;

// Slices as DocUploader takes them when nobody waits in between, which its users happen to do. What
// went wrong.
std::string UploadSlices() {
  constexpr int64_t kSlice = 40;
  constexpr int64_t kSlices = 5;
  constexpr int64_t kDim = 7;
  const auto context = DeviceContext::Open(0);
  const auto pool = ThreadPool::Start(1);
  if (!context.ok() || !pool.ok()) return "there is no device\n";
  std::vector<float> values(kSlice * kSlices * kDim);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const auto docs = MakeMemoryRowSource("docs", {values.data(), DType::kFloat32, kSlice * kSlices,
                                                 kDim, kDim * int64_t{sizeof(float)}});
  SearchParams params;
  DocChunk chunk;
  DocUploader uploader(**context);
  FirstError error;
  error(chunk.Allocate({}, kDim, kSlice * kSlices));
  error(uploader.Reserve(kSlice * kDim * int64_t{sizeof(float)}));
  for (int64_t slice = 0; slice < kSlices; ++slice) {
    error(uploader.Stage(*docs, slice * kSlice, (slice + 1) * kSlice, **pool));
    error(uploader.Prepare(params, DType::kFloat32, kDim, chunk, slice * kSlice, nullptr));
  }
  std::vector<float> found(static_cast<size_t>(kSlice * kSlices * chunk.stride()));
  error(cudaMemcpyAsync(found.data(), chunk.Rows(0), found.size() * sizeof(float),
                        cudaMemcpyDeviceToHost, (*context)->compute()),
        "copying rows");
  error(cudaStreamSynchronize((*context)->compute()), "copying rows");
  error(cudaStreamSynchronize((*context)->copies()), "copying rows");
  const absl::Status status = error.Take();
  if (!status.ok()) return status.ToString() + "\n";
  for (int64_t i = 0; i < kSlice * kSlices; ++i) {
    for (int64_t j = 0; j < kDim; ++j) {
      if (found[static_cast<size_t>(i * chunk.stride() + j)] !=
          values[static_cast<size_t>(i * kDim + j)]) {
        return "doc " + std::to_string(i) + " differs on the device\n";
      }
    }
  }
  return "";
}

// What `run` returns, and the emulation's violations meanwhile.
template <typename Run>
std::string Watch(uint64_t seed, Run run) {
  const emulation::EmulatedGpu gpu({.seed = seed});
  emulation::ViolationCollector collector;
  std::string found = run();
  for (const emulation::Violation& violation : collector.Take()) {
    found +=
        std::string(emulation::ViolationName(violation.kind)) + ": " + violation.message + "\n";
  }
  return found;
}

int Main(int argc, char** argv) {
  bool expect_caught = false;
  bool expect_clean = false;
  bool count_all = false;
  std::string_view cases;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    expect_caught |= argument == "--expect=caught";
    expect_clean |= argument == "--expect=clean";
    count_all |= argument == "--count";
    if (argument.starts_with("--cases=")) cases = argument.substr(8);
  }
  if (expect_caught == expect_clean) {
    std::fprintf(stderr, "usage: %s --expect=caught|clean [--cases=TEXT] [--count]\n", argv[0]);
    return 2;
  }
  size_t step = cases.empty() ? kStep : 1;
  const std::vector<EngineUnderTest>& engines = CudaEnginesUnderTest();
  std::vector<std::string> failures;
  size_t ran = 0;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    const std::string difference = Watch(seed, UploadSlices);
    if (!difference.empty()) failures.push_back("upload of slices\n" + difference);
  }
  if (!failures.empty() && !count_all) step = AllCases().size() * engines.size();
  const size_t most = expect_clean ? kMostClean : AllCases().size() * engines.size();
  for (size_t i = 0; i < AllCases().size() * engines.size() && ran < most; i += step) {
    const Case& c = AllCases()[i / engines.size()];
    const EngineUnderTest& engine = engines[i % engines.size()];
    if (WorkingDType(c.compute_dtype) != DType::kFloat32) continue;
    if (c.name.find(cases) == std::string::npos) continue;
    ++ran;
    // Seed 0 has the worst sums.
    const uint64_t seed = cases.empty() ? c.seed % 3 : 0;
    const std::string difference = Watch(seed, [&] { return RunCase(c, engine); });
    if (difference.empty()) continue;
    failures.push_back(c.name + " on " + std::string(engine.name) + "\n" + difference);
    if (!count_all) break;
  }
  std::printf("%zu cases run, %zu failed\n", ran, failures.size());
  for (size_t i = 0; i < failures.size() && i < 10; ++i) std::printf("%s", failures[i].c_str());
  if (expect_caught && failures.empty()) {
    std::printf(
        "neither the emulation nor the conformance list notices this change to the engine\n");
    return 1;
  }
  return expect_clean && !failures.empty() ? 1 : 0;
}

}  // namespace
}  // namespace tiny_knn::conformance

int main(int argc, char** argv) { return tiny_knn::conformance::Main(argc, argv); }
