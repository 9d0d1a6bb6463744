// The engine call, warm and without file output, beside bare oneDNN sgemm of the same shape on the
// same threads: how much of the library's rate is left once scores are filtered, selected and
// rescored.
//
//   bazel run -c opt //bench:engine_benchmark -- --benchmark_enable_random_interleaving=true
//       --benchmark_repetitions=7 --benchmark_report_aggregates_only=true     (one line)
//
// Arguments of each benchmark: queries, docs, dim, and for searches k. The counter `GFLOP/s` counts
// 2 * queries * docs * dim for both, so their ratio is the share of sgemm's rate.
#include <benchmark/benchmark.h>
#include <dnnl.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <omp.h>

#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/cpu/cpu_engine.h"
#include "core/io/row_source.h"
#include "core/matrix/aligned_vector.h"
#include "core/search/engine.h"
#include "core/search/isa.h"
#include "core/search/planner.h"
#include "core/search/search.h"

namespace tiny_knn {
namespace {

int Threads() { return static_cast<int>(std::thread::hardware_concurrency()); }

// Gaussian rows [rows, dim], aligned as numpy aligns the data in a file: the worst case for a
// screen, since no doc stands out. Made once a shape.
const AlignedVector<float>& GaussianRows(int64_t rows, int64_t dim, unsigned seed) {
  struct Made {
    int64_t rows = 0;
    int64_t dim = 0;
    AlignedVector<float> values;
  };
  static Made made[2];
  Made& slot = made[seed % 2];
  if (slot.rows != rows || slot.dim != dim) {
    slot.rows = rows;
    slot.dim = dim;
    slot.values.resize(static_cast<size_t>(rows * dim));
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (float& value : slot.values) value = normal(random);
  }
  return slot.values;
}

std::unique_ptr<RowSource> Source(std::string name, const AlignedVector<float>& values,
                                  int64_t rows, int64_t dim) {
  return MakeMemoryRowSource(
      std::move(name), {values.data(), DType::kFloat32, rows, dim, dim * int64_t{sizeof(float)}});
}

void SetRate(benchmark::State& state) {
  const double flops = 2.0 * static_cast<double>(state.range(0)) *
                       static_cast<double>(state.range(1)) * static_cast<double>(state.range(2));
  state.counters["GFLOP/s"] = benchmark::Counter(
      flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

class DiscardingSink : public TopKSink {
 public:
  absl::Status Take(int64_t, const TopKView& results) override {
    benchmark::DoNotOptimize(results.indices);
    return absl::OkStatus();
  }
};

void Search(benchmark::State& state, Metric metric, bool warm = false) {
  const int64_t num_queries = state.range(0);
  const int64_t num_docs = state.range(1);
  const int64_t dim = state.range(2);
  const SearchParams params{.k = state.range(3), .metric = metric};
  const auto queries = Source("queries", GaussianRows(num_queries, dim, 1), num_queries, dim);
  const auto docs = Source("docs", GaussianRows(num_docs, dim, 2), num_docs, dim);
  const ProblemShape shape{.num_queries = num_queries,
                           .num_docs = num_docs,
                           .dim = dim,
                           .k = params.k,
                           .metric = metric};
  const SearchPlan plan =
      PlanSearch(shape, {.threads = Threads(), .memory_limit_bytes = int64_t{8} << 30}).value();
  const auto engine = MakeCpuEngine();
  DiscardingSink sink;
  const auto warm_docs = warm ? engine->MakeWarmDocs(shape, plan) : nullptr;
  if (warm) {
    const auto filled =
        engine->Search(*queries, *docs, params, plan, nullptr, sink, warm_docs.get());
    if (!filled.ok() || !warm_docs->filled()) {
      state.SkipWithError("the docs could not be kept");
      return;
    }
  }
  int64_t rescored = 0;
  for (auto _ : state) {
    const auto report =
        engine->Search(*queries, *docs, params, plan, nullptr, sink, warm_docs.get());
    if (!report.ok()) {
      state.SkipWithError(report.status().ToString().c_str());
      return;
    }
    rescored = report->rescored_pairs;
  }
  SetRate(state);
  state.counters["rescored/query"] =
      static_cast<double>(rescored) / static_cast<double>(num_queries);
}

void BM_SearchInnerProduct(benchmark::State& state) { Search(state, Metric::kInnerProduct); }
void BM_SearchCosine(benchmark::State& state) { Search(state, Metric::kCosine); }
void BM_SearchL2(benchmark::State& state) { Search(state, Metric::kL2); }

// Few queries, bound by memory: docs as they come from a file, and docs kept warm.
void BM_FewQueriesCold(benchmark::State& state) { Search(state, Metric::kInnerProduct); }
void BM_FewQueriesWarm(benchmark::State& state) { Search(state, Metric::kInnerProduct, true); }

#if defined(__x86_64__)
// What reading docs takes that nobody does anything with: the least a search of few queries can
// take. Four sums a thread, each thread a part.
__attribute__((target("avx512f"))) float SumOf(const float* values, int64_t count) {
  __m512 sums[4] = {};
  for (int64_t i = 0; i + 64 <= count; i += 64) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      sums[v] = _mm512_add_ps(sums[v], _mm512_loadu_ps(values + i + 16 * v));
    }
  }
  float lanes[16];
  _mm512_storeu_ps(lanes,
                   _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
  return std::accumulate(lanes, lanes + 16, 0.F);
}

void BM_PlainSum(benchmark::State& state) {
  if (CurrentIsaLevel() < IsaLevel::kAvx512) return state.SkipWithError("needs AVX-512");
  const int64_t values = state.range(1) * state.range(2);
  const AlignedVector<float>& docs = GaussianRows(state.range(1), state.range(2), 2);
  for (auto _ : state) {
    std::vector<std::jthread> threads;
    for (int64_t t = 0; t < Threads(); ++t) {
      threads.emplace_back([&, t] {
        const int64_t begin = values / Threads() * t;
        benchmark::DoNotOptimize(SumOf(docs.data() + begin, values / Threads()));
      });
    }
  }
  SetRate(state);
}
#endif

void BM_Sgemm(benchmark::State& state) {
  const int64_t num_queries = state.range(0);
  const int64_t num_docs = state.range(1);
  const int64_t dim = state.range(2);
  const AlignedVector<float>& queries = GaussianRows(num_queries, dim, 1);
  const AlignedVector<float>& docs = GaussianRows(num_docs, dim, 2);
  std::vector<float> scores(static_cast<size_t>(num_queries * num_docs));
  omp_set_num_threads(Threads());
  for (auto _ : state) {
    dnnl_sgemm('N', 'T', num_queries, num_docs, dim, 1.0F, queries.data(), dim, docs.data(), dim,
               0.0F, scores.data(), num_docs);
    benchmark::DoNotOptimize(scores.data());
  }
  omp_set_num_threads(1);
  SetRate(state);
}

constexpr int64_t kQueries = 1024;
constexpr int64_t kDocs = 100'000;
constexpr int64_t kDim = 768;

BENCHMARK(BM_Sgemm)->Args({kQueries, kDocs, kDim})->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(BM_SearchInnerProduct)
    ->Args({kQueries, kDocs, kDim, 10})
    ->Args({kQueries, kDocs, kDim, 100})
    ->Args({kQueries, kDocs, kDim, 2000})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(BM_SearchCosine)
    ->Args({kQueries, kDocs, kDim, 10})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(BM_SearchL2)
    ->Args({kQueries, kDocs, kDim, 10})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

constexpr int64_t kFew = 10;
constexpr int64_t kManyDocs = 500'000;

#if defined(__x86_64__)
BENCHMARK(BM_PlainSum)->Args({1, kManyDocs, kDim})->Unit(benchmark::kMillisecond)->UseRealTime();
#endif
BENCHMARK(BM_FewQueriesCold)
    ->Args({1, kManyDocs, kDim, 10})
    ->Args({4, kManyDocs, kDim, 10})
    ->Args({16, kManyDocs, kDim, 10})
    ->Args({kFew, kManyDocs, kDim, 100})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(BM_FewQueriesWarm)
    ->Args({kFew, kManyDocs, kDim, 100})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace tiny_knn

BENCHMARK_MAIN();
