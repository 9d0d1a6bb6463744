#include "tests/cuda/cuda_engines.h"

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "gpu/tuned_cuda_engine.h"

namespace tiny_knn::conformance {
namespace {

// An emulated launch takes longer than what it computes. So an engine with lists of a few
// candidates is given few pairs of a query and a doc, and one that searches each case up to ten
// times, sorting whatever it saves, is given few chunks and saves seldom.
constexpr int64_t kMostPairsOfTiny = 3000;
constexpr std::string_view kTiny = "cudatiny";
constexpr int64_t kMostChunksOfSaved = 64;
constexpr std::string_view kSaved = "cudasaved";
constexpr int64_t kSaveEvery = 7;

std::unique_ptr<Engine> Make(const DeviceTuning& tuning) {
  auto engine = MakeTunedCudaEngine(0, 0, tuning);
  if (!engine.ok()) {
    std::fprintf(stderr, "no CUDA engine: %s\n", engine.status().ToString().c_str());
    std::abort();
  }
  return *std::move(engine);
}

// As planned: float32 rows as they are, because the problems have few queries.
std::unique_ptr<Engine> MakePlanned() { return Make({}); }

// Float32 rows rounded to TF32, whatever the number of queries.
std::unique_ptr<Engine> MakeTf32() { return Make({.tf32_always = true}); }

// Chunks, slices, batches and groups of several, lists that fill up, few doubts at a time.
std::unique_ptr<Engine> MakeSmall() {
  return Make({.query_batch = 3,
               .doc_chunk = 150,
               .slice_docs = 40,
               .query_tile = 2,
               .doc_tile = 24,
               .capacity = 30,
               .group = 2,
               .doubts = 3,
               .tf32_always = true});
}

// Lists of one or a few candidates, tiles of four docs: every list is stuck all the time.
std::unique_ptr<Engine> MakeTiny() {
  return Make({.query_batch = 2,
               .doc_chunk = 33,
               .slice_docs = 9,
               .query_tile = 1,
               .doc_tile = 4,
               .capacity = 3,
               .group = 1,
               .doubts = 1});
}

}  // namespace

const std::vector<EngineUnderTest>& CudaEnginesUnderTest() {
  static const std::vector<EngineUnderTest>* const engines = new std::vector<EngineUnderTest>{
      {"cuda", MakePlanned},
      {"cudatf32", MakeTf32},
      {"cudasmall", MakeSmall},
      {kTiny, MakeTiny},
      {"cudawarm", MakeTf32, /*warm=*/true},
      {kSaved, MakeSmall, /*warm=*/false, ScreenKind::kFloat32Gemm, false, false, kSaveEvery},
  };
  return *engines;
}

size_t EngineOfTurn(const Case& c, uint64_t number, uint64_t turn) {
  const std::vector<EngineUnderTest>& engines = CudaEnginesUnderTest();
  size_t engine = static_cast<size_t>((number + turn) % engines.size());
  const int64_t chunks = c.plan.doc_chunk > 0 ? c.num_docs / c.plan.doc_chunk : 1;
  const bool is_too_large =
      (engines[engine].name == kTiny && c.num_queries * c.num_docs > kMostPairsOfTiny) ||
      (engines[engine].name == kSaved && chunks > kMostChunksOfSaved);
  return is_too_large ? (engine + 1) % engines.size() : engine;
}

}  // namespace tiny_knn::conformance
