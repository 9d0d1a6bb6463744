#include "core/cpu/few_queries_gemm.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/matrix/aligned_vector.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/few_queries_gemm.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tiny_knn::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;
using FloatVec = hn::Vec<Floats>;

// Queries whose sums with two docs stay in registers: there are 32 with 512 bits, else 16.
#if HWY_CAP_GE512
constexpr int kMostQueries = 10;
#else
constexpr int kMostQueries = 6;
#endif
// How far docs are fetched ahead: 4 KiB. Half of that and twice as much are as good.
constexpr int64_t kPrefetchFloats = 1024;

// Up to kMostQueries queries, interleaved so that a doc meets one stream of them instead of as many
// as there are queries: those evict each other's lines where rows are a multiple of a page apart,
// nearly so, or many.
struct QueryGroup {
  const float* HWY_RESTRICT packed;  // [dim / lanes, queries of the group, lanes]
  const float* HWY_RESTRICT rows;    // of the first query, as the caller has them
  int64_t row_stride;
};

// Two docs, or one where kD = 1, and where their scores go.
struct Docs {
  const float* HWY_RESTRICT rows[2];
  float* HWY_RESTRICT scores[2];  // of the group's first query
  int64_t score_stride;
};

template <int kQ, int kD>
void ScoreGroup(const QueryGroup& group, const Docs& docs, int64_t dim) {
  const Floats tag;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(tag));
  const float* HWY_RESTRICT packed = group.packed;
  FloatVec sums[kD][kQ];
  for (auto& row : sums) {
    for (FloatVec& sum : row) sum = hn::Zero(tag);
  }
  int64_t j = 0;
  for (; j + lanes <= dim; j += lanes) {
    FloatVec values[kD];
#pragma GCC unroll 2
    for (int b = 0; b < kD; ++b) {
      // The hardware looks too little ahead once there is work to do for a line. At the end it is
      // some other memory, or none, which is fine.
      hwy::Prefetch(docs.rows[b] + j + kPrefetchFloats);
      values[b] = hn::LoadU(tag, docs.rows[b] + j);
    }
#pragma GCC unroll 16
    for (int a = 0; a < kQ; ++a, packed += lanes) {
      const FloatVec query = hn::Load(tag, packed);
#pragma GCC unroll 2
      for (int b = 0; b < kD; ++b) sums[b][a] = hn::MulAdd(query, values[b], sums[b][a]);
    }
  }
  for (int b = 0; b < kD; ++b) {
#pragma GCC unroll 16
    for (int a = 0; a < kQ; ++a) {
      docs.scores[b][a * docs.score_stride] = hn::GetLane(hn::SumOfLanes(tag, sums[b][a]));
    }
  }
  for (; j < dim; ++j) {
    for (int b = 0; b < kD; ++b) {
      for (int a = 0; a < kQ; ++a) {
        docs.scores[b][a * docs.score_stride] +=
            group.rows[a * group.row_stride + j] * docs.rows[b][j];
      }
    }
  }
}

using ScoreGroupFunction = void (*)(const QueryGroup&, const Docs&, int64_t dim);

template <int kD, int... kIndex>
constexpr std::array<ScoreGroupFunction, sizeof...(kIndex)> GroupTable(
    std::integer_sequence<int, kIndex...>) {
  return {&ScoreGroup<kIndex + 1, kD>...};
}

void MultiplyFewQueriesImpl(const float* queries, int64_t query_stride, int64_t num_queries,
                            const float* docs, int64_t doc_stride, int64_t num_docs, int64_t dim,
                            float* scores, int64_t score_stride) {
  static constexpr auto kOneDoc = GroupTable<1>(std::make_integer_sequence<int, kMostQueries>());
  static constexpr auto kTwoDocs = GroupTable<2>(std::make_integer_sequence<int, kMostQueries>());
  const Floats tag;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(tag));
  const int64_t whole = dim / lanes * lanes;
  // Groups of queries are as equal as can be.
  const int64_t groups = (num_queries + kMostQueries - 1) / kMostQueries;
  const auto first_of = [&](int64_t group) { return group * num_queries / groups; };
  AlignedVector<float> packed(static_cast<size_t>(num_queries * whole));
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t first = first_of(group);
    float* out = packed.data() + first * whole;
    for (int64_t j = 0; j < whole; j += lanes) {
      for (int64_t query = first; query < first_of(group + 1); ++query, out += lanes) {
        hn::Store(hn::LoadU(tag, queries + query * query_stride + j), tag, out);
      }
    }
  }
  const auto score = [&](const auto& table, int64_t doc, int64_t other) {
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t first = first_of(group);
      float* const out = scores + first * score_stride;
      table[static_cast<size_t>(first_of(group + 1) - first - 1)](
          {packed.data() + first * whole, queries + first * query_stride, query_stride},
          {{docs + doc * doc_stride, docs + other * doc_stride},
           {out + doc, out + other},
           score_stride},
          dim);
    }
  };
  // The docs of a pair come from two halves of all: two long streams, which the hardware
  // prefetches. Two neighbours would be streams that end with every row.
  const int64_t half = num_docs / 2;
  for (int64_t doc = 0; doc < half; ++doc) score(kTwoDocs, doc, doc + half);
  if (num_docs % 2 != 0) score(kOneDoc, num_docs - 1, num_docs - 1);
}

}  // namespace tiny_knn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tiny_knn {

HWY_EXPORT(MultiplyFewQueriesImpl);

void MultiplyFewQueries(const float* queries, int64_t query_stride, int64_t num_queries,
                        const float* docs, int64_t doc_stride, int64_t num_docs, int64_t dim,
                        float* scores, int64_t score_stride) {
  HWY_DYNAMIC_DISPATCH(MultiplyFewQueriesImpl)
  (queries, query_stride, num_queries, docs, doc_stride, num_docs, dim, scores, score_stride);
}

}  // namespace tiny_knn
#endif  // HWY_ONCE
