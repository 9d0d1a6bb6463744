#include "core/cpu/few_queries_gemm.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/few_queries_gemm.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "core/cpu/float32_squares-inl.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tiny_knn::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using float32_squares::HWY_NAMESPACE::AddWidened;
using float32_squares::HWY_NAMESPACE::kSquareChain;
using Floats = hn::ScalableTag<float>;
using FloatVec = hn::Vec<Floats>;
using Wide = hn::ScalableTag<double>;
using WideVec = hn::Vec<Wide>;

// Docs and queries whose sums stay in registers: there are 32 with 512 bits, else 16. More docs
// than two, since the queries come from the first cache again for all of them together.
#if HWY_CAP_GE512
constexpr int kMostDocs = 4;
#else
constexpr int kMostDocs = 2;
#endif
constexpr int kMostQueries = 5;
// How far docs are fetched ahead: 2 KiB. Half of that is too little, twice as much costs a few
// percent where queries leave less of the first cache.
constexpr int64_t kPrefetchFloats = 512;

// Groups of queries are as equal as can be.
int64_t GroupsOf(int64_t num_queries) { return (num_queries + kMostQueries - 1) / kMostQueries; }
int64_t FirstOfGroup(int64_t group, int64_t num_queries) {
  return group * num_queries / GroupsOf(num_queries);
}

// kD docs, `stride` floats apart, and where their scores and squared norms go.
struct Docs {
  const float* rows;  // of the first one
  int64_t stride;
  float* scores;  // of the first one and the group's first query
  int64_t step;   // docs from one to the next, in `scores` and `squared_norms`
  int64_t score_stride;
  double* squared_norms;  // of the first one
};

// Of kQ queries, as FewQueries packs them.
struct QueryGroup {
  const float* HWY_RESTRICT packed;  // [dim / lanes, kQ, lanes]
  const float* HWY_RESTRICT rest;    // the other columns, [dim % lanes], rest_stride apart
  int64_t rest_stride;
  // Docs are fetched ahead from here on, as seen from their rows, so many floats for each vector:
  // all groups together fetch as much as they use, so that memory is at work for all of them.
  int64_t ahead;
  int64_t ahead_step;
};

template <int kQ, int kD, bool kSquares>
void ScoreGroup(const QueryGroup& group, const Docs& docs, int64_t dim) {
  const Floats tag;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(tag));
  const float* HWY_RESTRICT packed = group.packed;
  FloatVec sums[kD][kQ];
  FloatVec squares[kD];     // of a few vectors
  WideVec all_squares[kD];  // of those before them
  const float* HWY_RESTRICT rows[kD];
  const float* ahead[kD];
  for (int b = 0; b < kD; ++b) {
    for (FloatVec& sum : sums[b]) sum = hn::Zero(tag);
    all_squares[b] = hn::Zero(Wide());
    rows[b] = docs.rows + b * docs.stride;
    ahead[b] = rows[b] + group.ahead;
  }
  const int64_t whole = dim / lanes * lanes;
  int64_t j = 0;
  while (j < whole) {
    const int64_t end = kSquares ? std::min(whole, j + kSquareChain * lanes) : whole;
    for (FloatVec& sum : squares) sum = hn::Zero(tag);
    for (; j < end; j += lanes) {
      FloatVec values[kD];
#pragma GCC unroll 4
      for (int b = 0; b < kD; ++b) {
        // The hardware looks too little ahead once there is work to do for a line. At the end it is
        // some other memory, or none, which is fine.
        hwy::Prefetch(ahead[b]);
        ahead[b] += group.ahead_step;
        values[b] = hn::LoadU(tag, rows[b] + j);
        if constexpr (kSquares) squares[b] = hn::MulAdd(values[b], values[b], squares[b]);
      }
#pragma GCC unroll 8
      for (int a = 0; a < kQ; ++a, packed += lanes) {
        const FloatVec query = hn::Load(tag, packed);
#pragma GCC unroll 4
        for (int b = 0; b < kD; ++b) sums[b][a] = hn::MulAdd(query, values[b], sums[b][a]);
      }
    }
    if constexpr (kSquares) {
      for (int b = 0; b < kD; ++b) all_squares[b] = AddWidened(squares[b], all_squares[b]);
    }
  }
#pragma GCC unroll 4
  for (int b = 0; b < kD; ++b) {
#pragma GCC unroll 8
    for (int a = 0; a < kQ; ++a) {
      docs.scores[b * docs.step + a * docs.score_stride] =
          hn::GetLane(hn::SumOfLanes(tag, sums[b][a]));
    }
    if constexpr (kSquares) {
      docs.squared_norms[b * docs.step] = hn::GetLane(hn::SumOfLanes(Wide(), all_squares[b]));
    }
  }
  const float* HWY_RESTRICT rest = group.rest;
  for (; j < dim; ++j, rest += group.rest_stride) {
    for (int b = 0; b < kD; ++b) {
      const float value = rows[b][j];
      for (int a = 0; a < kQ; ++a) {
        docs.scores[b * docs.step + a * docs.score_stride] += rest[a] * value;
      }
      if constexpr (kSquares) {
        docs.squared_norms[b * docs.step] +=
            static_cast<double>(value) * static_cast<double>(value);
      }
    }
  }
}

using ScoreGroupFunction = void (*)(const QueryGroup&, const Docs&, int64_t dim);

template <int kD, bool kSquares, int... kIndex>
constexpr std::array<ScoreGroupFunction, sizeof...(kIndex)> GroupTable(
    std::integer_sequence<int, kIndex...>) {
  return {&ScoreGroup<kIndex + 1, kD, kSquares>...};
}

void PackImpl(const float* rows, int64_t stride, int64_t count, int64_t dim, float* packed) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Floats()));
  const int64_t whole = dim / lanes * lanes;
  for (int64_t group = 0; group < GroupsOf(count); ++group) {
    const int64_t end = FirstOfGroup(group + 1, count);
    for (int64_t j = 0; j < whole; j += lanes) {
      for (int64_t query = FirstOfGroup(group, count); query < end; ++query, packed += lanes) {
        std::copy_n(rows + query * stride + j, lanes, packed);
      }
    }
  }
  for (int64_t j = whole; j < dim; ++j) {
    for (int64_t query = 0; query < count; ++query) *packed++ = rows[query * stride + j];
  }
}

void MultiplyImpl(const float* packed, int64_t num_queries, const float* docs, int64_t doc_stride,
                  int64_t num_docs, int64_t dim, float* scores, int64_t score_stride,
                  double* squared_norms) {
  using Counts = std::make_integer_sequence<int, kMostQueries>;
  // [whether squares are summed][whether for kMostDocs docs, not for one]
  static constexpr std::array<ScoreGroupFunction, kMostQueries> kTables[2][2] = {
      {GroupTable<1, false>(Counts()), GroupTable<kMostDocs, false>(Counts())},
      {GroupTable<1, true>(Counts()), GroupTable<kMostDocs, true>(Counts())}};
  const int64_t groups = GroupsOf(num_queries);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Floats()));
  const int64_t whole = dim / lanes * lanes;
  // Docs of a group come from as many parts of all: long streams, which the hardware prefetches.
  // Neighbours would be streams that end with every row.
  const int64_t step = num_docs / kMostDocs;
  const auto score = [&](bool most, int64_t doc) {
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t first = FirstOfGroup(group, num_queries);
      const int64_t count = FirstOfGroup(group + 1, num_queries) - first;
      // While the docs come from memory; then they are in cache.
      const bool squares = squared_norms != nullptr && group == 0;
      kTables[squares ? 1 : 0][most ? 1 : 0][static_cast<size_t>(count - 1)](
          {packed + first * whole, packed + num_queries * whole + first, num_queries,
           kPrefetchFloats + group * (dim / groups), lanes / groups},
          {docs + doc * doc_stride, step * doc_stride, scores + first * score_stride + doc, step,
           score_stride, squares ? squared_norms + doc : nullptr},
          dim);
    }
  };
  for (int64_t doc = 0; doc < step; ++doc) score(true, doc);
  for (int64_t doc = step * kMostDocs; doc < num_docs; ++doc) score(false, doc);
}

}  // namespace tiny_knn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tiny_knn {

HWY_EXPORT(PackImpl);
HWY_EXPORT(MultiplyImpl);

void FewQueries::Set(const float* rows, int64_t stride, int64_t count, int64_t dim) {
  count_ = count;
  dim_ = dim;
  packed_.resize(static_cast<size_t>(count * dim));
  HWY_DYNAMIC_DISPATCH(PackImpl)(rows, stride, count, dim, packed_.data());
}

void FewQueries::Multiply(const float* docs, int64_t doc_stride, int64_t num_docs, float* scores,
                          int64_t score_stride, double* squared_norms) const {
  HWY_DYNAMIC_DISPATCH(MultiplyImpl)
  (packed_.data(), count_, docs, doc_stride, num_docs, dim_, scores, score_stride, squared_norms);
}

void MultiplyFewQueries(const float* queries, int64_t query_stride, int64_t num_queries,
                        const float* docs, int64_t doc_stride, int64_t num_docs, int64_t dim,
                        float* scores, int64_t score_stride) {
  FewQueries packed;
  packed.Set(queries, query_stride, num_queries, dim);
  packed.Multiply(docs, doc_stride, num_docs, scores, score_stride, nullptr);
}

}  // namespace tiny_knn
#endif  // HWY_ONCE
