#include "core/cpu/int8_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/search/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/int8_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tiny_knn::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;
using Ints = hn::RebindToSigned<Floats>;
using Bytes = hn::Rebind<uint8_t, Floats>;

float CentreRowImpl(const float* HWY_RESTRICT values, const float* HWY_RESTRICT centre, int64_t dim,
                    float* HWY_RESTRICT out) {
  const Floats tag;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(tag));
  auto greatest = hn::Zero(tag);
  int64_t j = 0;
  for (; j + lanes <= dim; j += lanes) {
    const auto value = hn::Sub(hn::LoadU(tag, values + j), hn::LoadU(tag, centre + j));
    greatest = hn::Max(greatest, hn::Abs(value));
    hn::StoreU(value, tag, out + j);
  }
  float most = hn::GetLane(hn::MaxOfLanes(tag, greatest));
  for (; j < dim; ++j) {
    out[j] = values[j] - centre[j];
    most = std::max(most, std::abs(out[j]));
  }
  return most;
}

CodedRow EncodeRowImpl(const float* HWY_RESTRICT values, float scale, float inverse, int64_t dim,
                       uint8_t* HWY_RESTRICT codes) {
  const Floats tag;
  const Ints int_tag;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(tag));
  const auto scale_lanes = hn::Set(tag, scale);
  const auto inverse_lanes = hn::Set(tag, inverse);
  const auto greatest = hn::Set(int_tag, kGreatestCode);
  const auto least = hn::Set(int_tag, -kGreatestCode);
  const auto shift = hn::Set(int_tag, kZeroCode);
  auto squared_codes = hn::Zero(int_tag);  // at most dim / lanes * 127^2 each: fits for all dims
  auto squared_residual = hn::Zero(tag);
  int64_t j = 0;
  for (; j + lanes <= dim; j += lanes) {
    const auto value = hn::LoadU(tag, values + j);
    const auto code =
        hn::Min(hn::Max(hn::NearestInt(hn::Mul(value, inverse_lanes)), least), greatest);
    const auto residual = hn::NegMulAdd(scale_lanes, hn::ConvertTo(tag, code), value);
    squared_codes = hn::Add(squared_codes, hn::Mul(code, code));
    squared_residual = hn::MulAdd(residual, residual, squared_residual);
    hn::StoreU(hn::DemoteTo(Bytes(), hn::Add(code, shift)), Bytes(), codes + j);
  }
  CodedRow row{hn::GetLane(hn::SumOfLanes(int_tag, squared_codes)),
               hn::GetLane(hn::SumOfLanes(tag, squared_residual))};
  for (; j < dim; ++j) {
    const float wanted = std::nearbyint(values[j] * inverse);
    const float limit = kGreatestCode;
    const float code = std::min(std::max(wanted, -limit), limit);
    const float residual = std::fma(-scale, code, values[j]);
    row.squared_codes += static_cast<int64_t>(code * code);
    row.squared_residual += residual * residual;
    codes[j] = static_cast<uint8_t>(static_cast<int>(code) + kZeroCode);
  }
  return row;
}

}  // namespace tiny_knn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tiny_knn {
namespace {

// Queries whose sums with a panel stay in registers.
constexpr int kGroup = 6;

// [queries of the group][kPanelDocs] sums of products, query by query.
using Sums = int32_t[kGroup * kPanelDocs];

void MultiplyPortably(const CodedQuery* queries, int64_t num_queries, const uint8_t* panel,
                      int64_t steps, int32_t* sums) {
  for (int64_t i = 0; i < num_queries; ++i) {
    int32_t* const row = sums + i * kPanelDocs;
    std::fill(row, row + kPanelDocs, queries[i].offset);
    for (int64_t step = 0; step < steps; ++step) {
      const int8_t* const query = queries[i].codes + 4 * step;
      const uint8_t* const docs = panel + step * kPanelDocs * 4;
      for (int64_t doc = 0; doc < kPanelDocs; ++doc) {
        for (int64_t j = 0; j < 4; ++j) row[doc] += int{query[j]} * int{docs[4 * doc + j]};
      }
    }
  }
}

void StoreScoresPortably(const CodedQuery& query, const int32_t* sums, const float* doc_scales,
                         int64_t num_docs, float* scores) {
  for (int64_t doc = 0; doc < num_docs; ++doc) {
    scores[doc] =
        std::fma(query.scale * doc_scales[doc], static_cast<float>(sums[doc]), query.centre_dot);
  }
}

#if defined(__x86_64__)
#define TINY_KNN_VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

// sum += products of four unsigned bytes of `docs` and four signed ones of `query` in each lane.
// Not the intrinsic: GCC 12 then keeps half of the sums in memory.
TINY_KNN_VNNI inline void AddProducts(__m512i& sum, __m512i docs, __m512i query) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(docs), "v"(query));
}

template <int kQueries>
TINY_KNN_VNNI void ScorePanel(const CodedQuery* queries, const uint8_t* panel,
                              const float* doc_scales, int64_t num_docs, int64_t steps,
                              float* scores, int64_t stride) {
  __m512i sums[kQueries][4];
  const int8_t* codes[kQueries];
#pragma GCC unroll 6
  for (int i = 0; i < kQueries; ++i) {
    codes[i] = queries[i].codes;
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sums[i][v] = _mm512_set1_epi32(queries[i].offset);
  }
  for (int64_t step = 0; step < steps; ++step, panel += kPanelDocs * 4) {
    const __m512i docs0 = _mm512_load_si512(panel);
    const __m512i docs1 = _mm512_load_si512(panel + 64);
    const __m512i docs2 = _mm512_load_si512(panel + 128);
    const __m512i docs3 = _mm512_load_si512(panel + 192);
#pragma GCC unroll 6
    for (int i = 0; i < kQueries; ++i) {
      int32_t four;
      std::memcpy(&four, codes[i] + 4 * step, sizeof(four));
      const __m512i query = _mm512_set1_epi32(four);
      AddProducts(sums[i][0], docs0, query);
      AddProducts(sums[i][1], docs1, query);
      AddProducts(sums[i][2], docs2, query);
      AddProducts(sums[i][3], docs3, query);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const int64_t left = num_docs - 16 * v;
    if (left <= 0) break;
    const __mmask16 mask =
        left >= 16 ? __mmask16{0xFFFF} : static_cast<__mmask16>((1U << left) - 1);
    const __m512 scale = _mm512_maskz_loadu_ps(mask, doc_scales + 16 * v);
#pragma GCC unroll 6
    for (int i = 0; i < kQueries; ++i) {
      const __m512 score = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_set1_ps(queries[i].scale), scale),
                                           _mm512_maskz_cvtepi32_ps(mask, sums[i][v]),
                                           _mm512_set1_ps(queries[i].centre_dot));
      _mm512_mask_storeu_ps(scores + i * stride + 16 * v, mask, score);
    }
  }
}

using ScorePanelFunction = void (*)(const CodedQuery*, const uint8_t*, const float*, int64_t,
                                    int64_t, float*, int64_t);
constexpr ScorePanelFunction kScorePanel[kGroup] = {ScorePanel<1>, ScorePanel<2>, ScorePanel<3>,
                                                    ScorePanel<4>, ScorePanel<5>, ScorePanel<6>};
#endif

}  // namespace

HWY_EXPORT(CentreRowImpl);
HWY_EXPORT(EncodeRowImpl);

float CentreRow(const float* values, const float* centre, int64_t dim, float* out) {
  return HWY_DYNAMIC_DISPATCH(CentreRowImpl)(values, centre, dim, out);
}

CodedRow EncodeRow(const float* values, float scale, float inverse, int64_t dim, uint8_t* codes) {
  return HWY_DYNAMIC_DISPATCH(EncodeRowImpl)(values, scale, inverse, dim, codes);
}

void PutInPanel(const uint8_t* codes, int64_t dim, int64_t doc, uint8_t* panel) {
  uint8_t* out = panel + 4 * doc;
  int64_t j = 0;
  for (; j + 4 <= dim; j += 4, out += kPanelDocs * 4) std::memcpy(out, codes + j, 4);
  if (j == dim) return;
  for (int64_t i = 0; i < 4; ++i) out[i] = j + i < dim ? codes[j + i] : kZeroCode;
}

void ScoreCodes(const CodedQuery* queries, int64_t num_queries, const uint8_t* panels,
                const float* doc_scales, int64_t num_docs, int64_t dim, float* scores,
                int64_t stride) {
  const int64_t steps = CodeSteps(dim);
  const bool fast = HasInt8DotProducts();
  for (int64_t doc = 0; doc < num_docs; doc += kPanelDocs, panels += PanelBytes(dim)) {
    const int64_t docs = std::min(kPanelDocs, num_docs - doc);
    for (int64_t query = 0; query < num_queries; query += kGroup) {
      const int64_t group = std::min<int64_t>(kGroup, num_queries - query);
      float* const out = scores + query * stride + doc;
#if defined(__x86_64__)
      if (fast) {
        kScorePanel[group - 1](queries + query, panels, doc_scales + doc, docs, steps, out, stride);
        continue;
      }
#endif
      Sums sums;
      MultiplyPortably(queries + query, group, panels, steps, sums);
      for (int64_t i = 0; i < group; ++i) {
        StoreScoresPortably(queries[query + i], sums + i * kPanelDocs, doc_scales + doc, docs,
                            out + i * stride);
      }
    }
  }
}

}  // namespace tiny_knn
#endif  // HWY_ONCE
