// The stages of a search one by one, on one thread, beside what the core can do at best and beside
// the library calls that could do the same.
//
//   bazel run //bench:stage_benchmark -- --benchmark_repetitions=5
//       --benchmark_enable_random_interleaving=true --benchmark_report_aggregates_only=true (one
//       line)
//
// Rates count two operations for each multiplication with its addition, so that all of them can be
// compared; where a stage handles pairs or rows, time is per item.
#include <benchmark/benchmark.h>
#include <dnnl.h>
#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "core/cpu/candidates.h"
#include "core/cpu/float32_dots.h"
#include "core/cpu/gemm.h"
#include "core/cpu/int8_kernels.h"
#include "core/cpu/int8_screen.h"
#include "core/cpu/screen_kernels.h"
#include "core/matrix/aligned_vector.h"
#include "core/search/isa.h"
#include "core/search/rounded_score.h"

namespace tiny_knn {
namespace {

// A tile as the screen has it.
constexpr int64_t kTileQueries = 128;
constexpr int64_t kTileDocs = 512;
// A threshold.
constexpr float kNothingSurvives = 1e30F;

AlignedVector<float> GaussianRows(int64_t rows, int64_t dim) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  AlignedVector<float> values(static_cast<size_t>(rows * dim));
  for (float& value : values) value = normal(random);
  return values;
}

void SetOperations(benchmark::State& state, double operations) {
  state.counters["op/s"] =
      benchmark::Counter(operations, benchmark::Counter::kIsIterationInvariantRate);
}

double TileOperations(int64_t dim) {
  return 2.0 * static_cast<double>(kTileQueries * kTileDocs * dim);
}

#if defined(__x86_64__)
// What the core's units can do at best: independent operations on registers.
constexpr int kChains = 24;
constexpr int kRounds = 1000;

// An instruction on 24 registers in turn, each with itself.
#define TINY_KNN_ON_REGISTERS(instruction)                                                   \
  asm volatile(                                                                              \
      ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n\t" instruction \
      " %%zmm\\r, %%zmm\\r, %%zmm\\r\n\t"                                                    \
      ".endr" ::                                                                             \
          : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",  \
            "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", \
            "xmm19", "xmm20", "xmm21", "xmm22", "xmm23")
// Of zeros: what lies there otherwise could make subnormals, which take longer.
#define TINY_KNN_PEAK_LOOP(instruction)                                               \
  for (auto _ : state) {                                                              \
    TINY_KNN_ON_REGISTERS("vpxord");                                                  \
    for (int round = 0; round < kRounds; ++round) TINY_KNN_ON_REGISTERS(instruction); \
  }

__attribute__((target("avx512f"))) void BM_PeakFloat32(benchmark::State& state) {
  if (CurrentIsaLevel() < IsaLevel::kAvx512) return state.SkipWithError("needs AVX-512");
  TINY_KNN_PEAK_LOOP("vfmadd231ps")
  SetOperations(state, 2.0 * 16 * kChains * kRounds);
}

__attribute__((target("avx512f,avx512vnni"))) void BM_PeakInt8(benchmark::State& state) {
  if (!HasInt8DotProducts()) return state.SkipWithError("needs AVX-512 VNNI");
  TINY_KNN_PEAK_LOOP("vpdpbusd")
  SetOperations(state, 2.0 * 64 * kChains * kRounds);
}
#endif

#if defined(__x86_64__)
// The same of tiles, of random numbers: those of zeros take less power, and run faster.
__attribute__((target("amx-tile,amx-int8"))) void BM_PeakTiles(benchmark::State& state) {
  if (!HasInt8Tiles()) return state.SkipWithError("needs AMX");
  struct alignas(64) {
    uint8_t palette = 1;
    uint8_t unused[15] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  alignas(64) int8_t numbers[4][1024];
  std::mt19937 random(3);
  for (auto& tile : numbers) {
    for (int8_t& number : tile) number = static_cast<int8_t>(random());
  }
  _tile_loadconfig(&config);
  _tile_loadd(4, numbers[0], 64);
  _tile_loadd(5, numbers[1], 64);
  _tile_loadd(6, numbers[2], 64);
  _tile_loadd(7, numbers[3], 64);
  for (auto _ : state) {
    for (int round = 0; round < kRounds; ++round) {
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
  }
  _tile_release();
  SetOperations(state, 2.0 * 4 * 16 * 16 * 64 * kRounds);
}
#endif

struct CodedTile {
  CodedTile(int64_t dim, int digits)
      : query_codes(static_cast<size_t>(kTileQueries * QueryCodeBytes(dim, digits))),
        panels(static_cast<size_t>(CodeBytes(kTileDocs, dim, digits))),
        scales(static_cast<size_t>(kTileDocs), 0.01F),
        zeros(static_cast<size_t>(kTileDocs)),
        queries(static_cast<size_t>(kTileQueries)),
        bounds(static_cast<size_t>(kTileQueries), {kNothingSurvives, 1, 1}),
        scores(static_cast<size_t>(kTileQueries * kTileDocs)),
        groups(static_cast<size_t>(kTileQueries)) {
    std::mt19937 random(3);
    for (int8_t& code : query_codes) code = static_cast<int8_t>(random() % 255);
    for (uint8_t& code : panels) code = static_cast<uint8_t>(random());
    for (int64_t i = 0; i < kTileQueries; ++i) {
      CodedQuery& query = queries[static_cast<size_t>(i)];
      query.codes = query_codes.data() + i * QueryCodeBytes(dim, digits);
      query.scale = 0.01F;
    }
  }
  AlignedVector<int8_t> query_codes;
  AlignedVector<uint8_t> panels;
  std::vector<float> scales;
  std::vector<float> zeros;
  std::vector<CodedQuery> queries;
  std::vector<QueryBounds> bounds;
  AlignedVector<float> scores;
  std::vector<uint64_t> groups;
};

// Products, scores, and where that is one step their comparison.
void ScoreCodesWith(benchmark::State& state, int digits) {
  const int64_t dim = state.range(0);
  CodedTile tile(dim, digits);
  const float* const zeros = tile.zeros.data();
  const TileBounds bounds{tile.bounds.data(), {zeros, zeros, zeros, zeros}};
  for (auto _ : state) {
    ScoreCodes(tile.queries.data(), kTileQueries,
               {tile.panels.data(), tile.scales.data(), kTileDocs, digits}, dim, bounds,
               {tile.scores.data(), kTileDocs, tile.groups.data()});
    benchmark::ClobberMemory();
  }
  SetOperations(state, TileOperations(dim));
}

void BM_ScoreCodes(benchmark::State& state) { ScoreCodesWith(state, 1); }
void BM_ScoreTwoDigits(benchmark::State& state) { ScoreCodesWith(state, 2); }

void BM_DnnlGemmU8S8(benchmark::State& state) {
  const int64_t dim = state.range(0);
  const AlignedVector<uint8_t> docs(static_cast<size_t>(kTileDocs * dim), 3);
  const AlignedVector<int8_t> queries(static_cast<size_t>(kTileQueries * dim), 5);
  AlignedVector<int32_t> sums(static_cast<size_t>(kTileQueries * kTileDocs));
  omp_set_num_threads(1);
  const int32_t zero = 0;
  for (auto _ : state) {
    dnnl_gemm_u8s8s32('N', 'T', 'F', kTileDocs, kTileQueries, dim, 1.0F, docs.data(), dim, 0,
                      queries.data(), dim, 0, 0.0F, sums.data(), kTileQueries, &zero);
    benchmark::ClobberMemory();
  }
  SetOperations(state, TileOperations(dim));
}

void BM_Sgemm(benchmark::State& state) {
  const int64_t dim = state.range(0);
  const AlignedVector<float> queries = GaussianRows(kTileQueries, dim);
  const AlignedVector<float> docs = GaussianRows(kTileDocs, dim);
  AlignedVector<float> scores(static_cast<size_t>(kTileQueries * kTileDocs));
  for (auto _ : state) {
    MultiplyByTransposed(queries.data(), dim, kTileQueries, docs.data(), dim, kTileDocs, dim,
                         scores.data(), kTileDocs);
    benchmark::ClobberMemory();
  }
  SetOperations(state, TileOperations(dim));
}

// Scores of a tile and what of them survives, by oneDNN and a pass of its own, as searches have it.
void BM_SgemmAndFilter(benchmark::State& state) {
  const int64_t dim = state.range(0);
  const AlignedVector<float> queries = GaussianRows(kTileQueries, dim);
  const AlignedVector<float> docs = GaussianRows(kTileDocs, dim);
  const std::vector<float> zeros(static_cast<size_t>(kTileDocs));
  const DocBounds bounds{zeros.data(), zeros.data(), zeros.data()};
  AlignedVector<float> scores(static_cast<size_t>(kTileQueries * kTileDocs));
  std::vector<float> lower(static_cast<size_t>(kTileDocs + kCandidatePadding));
  std::vector<int32_t> doc(lower.size());
  for (auto _ : state) {
    MultiplyByTransposed(queries.data(), dim, kTileQueries, docs.data(), dim, kTileDocs, dim,
                         scores.data(), kTileDocs);
    for (int64_t query = 0; query < kTileQueries; ++query) {
      benchmark::DoNotOptimize(
          FilterScores({scores.data() + query * kTileDocs, kTileDocs, AllGroups(kTileDocs)}, 0,
                       {kNothingSurvives, 1, 0}, bounds, 0, lower.data(), doc.data(), kTileDocs));
    }
  }
  SetOperations(state, TileOperations(dim));
}

#if defined(__x86_64__)
// What could take its place: a kernel that compares sums while they are in registers, and stores
// only those of panels in which something survives. Docs lie in panels, [dim][kPanelDocs]; who made
// them is not counted.
constexpr int kFusedQueries = 6;

struct FusedTile {
  AlignedVector<float> queries;  // [kTileQueries, dim]
  AlignedVector<float> panels;   // [kTileDocs / kPanelDocs][dim][kPanelDocs]
  AlignedVector<float> scores;   // [kTileQueries, kTileDocs]
  std::vector<float> norm;       // [kTileDocs]
  std::vector<float> upper_offset;
};

template <int kQueries>
__attribute__((target("avx512f"))) int64_t ScoreFusedPanel(const float* queries, int64_t dim,
                                                           const float* panel, const float* norm,
                                                           const float* upper_offset,
                                                           float threshold, float* scores) {
  __m512 sums[kQueries][4];
#pragma GCC unroll 6
  for (auto& row : sums) {
#pragma GCC unroll 4
    for (__m512& sum : row) sum = _mm512_setzero_ps();
  }
  for (int64_t j = 0; j < dim; ++j, panel += kPanelDocs) {
    __m512 docs[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) docs[v] = _mm512_load_ps(panel + 16 * v);
#pragma GCC unroll 6
    for (int i = 0; i < kQueries; ++i) {
      const __m512 query = _mm512_set1_ps(queries[i * dim + j]);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) sums[i][v] = _mm512_fmadd_ps(query, docs[v], sums[i][v]);
    }
  }
  int64_t survivors = 0;
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const __m512 bound =
        _mm512_sub_ps(_mm512_sub_ps(_mm512_set1_ps(threshold), _mm512_loadu_ps(norm + 16 * v)),
                      _mm512_loadu_ps(upper_offset + 16 * v));
#pragma GCC unroll 6
    for (int i = 0; i < kQueries; ++i) {
      const __mmask16 mask = _mm512_cmp_ps_mask(sums[i][v], bound, _CMP_NLT_UQ);
      if (__builtin_expect(mask != 0, 0)) {
        _mm512_storeu_ps(scores + i * kTileDocs + 16 * v, sums[i][v]);
        ++survivors;
      }
    }
  }
  return survivors;
}

void BM_FusedFloat32(benchmark::State& state) {
  if (CurrentIsaLevel() < IsaLevel::kAvx512) return state.SkipWithError("needs AVX-512");
  const int64_t dim = state.range(0);
  FusedTile tile{GaussianRows(kTileQueries, dim), GaussianRows(kTileDocs, dim),
                 AlignedVector<float>(static_cast<size_t>(kTileQueries * kTileDocs)),
                 std::vector<float>(static_cast<size_t>(kTileDocs)),
                 std::vector<float>(static_cast<size_t>(kTileDocs))};
  for (auto _ : state) {
    for (int64_t panel = 0; panel < kTileDocs / kPanelDocs; ++panel) {
      const auto score = [&](auto kernel, int64_t query) {
        benchmark::DoNotOptimize(kernel(
            tile.queries.data() + query * dim, dim, tile.panels.data() + panel * kPanelDocs * dim,
            tile.norm.data() + panel * kPanelDocs, tile.upper_offset.data() + panel * kPanelDocs,
            kNothingSurvives, tile.scores.data() + query * kTileDocs + panel * kPanelDocs));
      };
      int64_t query = 0;
      for (; query + kFusedQueries <= kTileQueries; query += kFusedQueries) {
        score(ScoreFusedPanel<kFusedQueries>, query);
      }
      for (; query < kTileQueries; ++query) score(ScoreFusedPanel<1>, query);
    }
    benchmark::ClobberMemory();
  }
  SetOperations(state, TileOperations(dim));
}
#endif

// One query's scores of a tile, of which one in `range(0)` survives.
void BM_FilterScores(benchmark::State& state) {
  const int64_t one_in = state.range(0);
  std::vector<float> scores(static_cast<size_t>(kTileDocs));
  std::mt19937 random(3);
  for (float& score : scores) score = static_cast<int64_t>(random()) % one_in == 0 ? 2.F : 0.F;
  const std::vector<float> zeros(static_cast<size_t>(kTileDocs));
  const DocBounds bounds{zeros.data(), zeros.data(), zeros.data(), zeros.data()};
  std::vector<float> lower(static_cast<size_t>(kTileDocs + kCandidatePadding));
  std::vector<int32_t> doc(lower.size());
  for (auto _ : state) {
    benchmark::DoNotOptimize(FilterScores({scores.data(), kTileDocs, AllGroups(kTileDocs)}, 0,
                                          {1, 1, 1}, bounds, 0, lower.data(), doc.data(),
                                          kTileDocs));
  }
  state.SetItemsProcessed(state.iterations() * kTileDocs);
}

// Docs to codes and bounds, as the screen does it, from rows in the core's own caches.
void PrepareDocs(benchmark::State& state, int digits) {
  constexpr int64_t kRowBytes = 256 * 1024;
  const int64_t dim = state.range(0);
  const int64_t docs =
      kRowBytes / (dim * int64_t{sizeof(float)}) / kPanelDocs * kPanelDocs + kPanelDocs;
  const AlignedVector<float> rows = GaussianRows(docs, dim);
  const MatrixView view{rows.data(), DType::kFloat32, docs, dim, dim * int64_t{sizeof(float)}};
  Int8Screen screen({}, dim, docs, digits);
  DocBoundArrays bounds(docs, ScreenKind::kInt8Codes, Metric::kInnerProduct);
  screen.StartChunk(view.Slice(0, kPanelDocs), {});
  screen.SetBlock(view, {});
  for (auto _ : state) {
    PrepareCounts counts;
    screen.PrepareDocs({0, docs}, 0, 0, bounds, counts).IgnoreError();
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * docs);
}
void BM_PrepareDocs(benchmark::State& state) { PrepareDocs(state, 1); }
void BM_PrepareDocsTwoDigits(benchmark::State& state) { PrepareDocs(state, 2); }

// Pairs of one query and docs that lie in this many KiB.
void BM_RefinePair(benchmark::State& state) {
  constexpr int64_t kDim = 768;
  const int64_t docs = state.range(0) * 1024 / (kDim * int64_t{sizeof(float)});
  const AlignedVector<float> rows = GaussianRows(docs + 1, kDim);
  const float* const query = rows.data();
  int64_t next = 0;
  for (auto _ : state) {
    const void* others[kMostDots];
    for (const void*& other : others) {
      next = (next + 7) % docs;
      other = rows.data() + (next + 1) * kDim;
    }
    float dots[kMostDots];
    Float32Dots(query, others, DType::kFloat32, kMostDots, kDim, dots);
    benchmark::DoNotOptimize(dots[0]);
  }
  state.SetItemsProcessed(state.iterations() * kMostDots);
}

void BM_RescorePair(benchmark::State& state) {
  constexpr int64_t kDim = 768;
  const int64_t docs = state.range(0) * 1024 / (kDim * int64_t{sizeof(float)});
  const AlignedVector<float> rows = GaussianRows(docs + 1, kDim);
  const std::vector<double> wide(rows.begin(), rows.begin() + kDim);
  const PreparedQuery<float> query = PrepareQuery<float>(rows.data(), wide.data(), kDim);
  int64_t next = 0;
  for (auto _ : state) {
    next = (next + 7) % docs;
    benchmark::DoNotOptimize(RoundedScore<float>(Metric::kInnerProduct, query,
                                                 rows.data() + (next + 1) * kDim, 40, kDim));
  }
  state.SetItemsProcessed(state.iterations());
}

void BM_KthLargest(benchmark::State& state) {
  const int64_t k = state.range(0);
  const AlignedVector<float> values = GaussianRows(1, 2 * k + 128);
  std::vector<uint32_t> scratch;
  for (auto _ : state) {
    benchmark::DoNotOptimize(KthLargest({values.data(), values.size()}, k, scratch));
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(values.size()));
}

void Dims(benchmark::internal::Benchmark* benchmark) {
  for (const int64_t dim : {64, 100, 128, 384, 768, 1536}) benchmark->Arg(dim);
}

#if defined(__x86_64__)
BENCHMARK(BM_PeakFloat32);
BENCHMARK(BM_PeakInt8);
BENCHMARK(BM_PeakTiles);
#endif
BENCHMARK(BM_ScoreCodes)->Apply(Dims);
BENCHMARK(BM_ScoreTwoDigits)->Apply(Dims);
BENCHMARK(BM_DnnlGemmU8S8)->Apply(Dims);
BENCHMARK(BM_Sgemm)->Apply(Dims);
BENCHMARK(BM_SgemmAndFilter)->Apply(Dims);
#if defined(__x86_64__)
BENCHMARK(BM_FusedFloat32)->Apply(Dims);
#endif
BENCHMARK(BM_FilterScores)->Arg(1'000'000)->Arg(100)->Arg(10);
BENCHMARK(BM_PrepareDocs)->Apply(Dims);
BENCHMARK(BM_PrepareDocsTwoDigits)->Apply(Dims);
BENCHMARK(BM_RefinePair)->Arg(24)->Arg(512)->Arg(8192);
BENCHMARK(BM_RescorePair)->Arg(24)->Arg(512)->Arg(8192);
BENCHMARK(BM_KthLargest)->Arg(10)->Arg(100)->Arg(2000);

}  // namespace
}  // namespace tiny_knn

BENCHMARK_MAIN();
