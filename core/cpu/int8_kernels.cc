#include "core/cpu/int8_kernels.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "core/cpu/int8_tiles.h"
#include "core/search/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/int8_kernels.cc"
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
using Bits = hn::RebindToUnsigned<Floats>;
using Bytes = hn::Rebind<uint8_t, Floats>;

// The first `count` of a vector, fewer than that, and zeros. Memory behind them is not touched.
HWY_INLINE FloatVec LoadRest(const float* values, int64_t count) {
  const Floats tag;
#if HWY_CAP_GE256
  return hn::MaskedLoad(hn::FirstN(tag, static_cast<size_t>(count)), tag, values);
#else
  HWY_ALIGN float rest[hn::MaxLanes(tag)] = {};
  std::copy_n(values, count, rest);
  return hn::Load(tag, rest);
#endif
}

HWY_INLINE void StoreRest(FloatVec values, int64_t count, float* out) {
  const Floats tag;
#if HWY_CAP_GE256
  hn::BlendedStore(values, hn::FirstN(tag, static_cast<size_t>(count)), tag, out);
#else
  HWY_ALIGN float rest[hn::MaxLanes(tag)];
  hn::Store(values, tag, rest);
  std::copy_n(rest, count, out);
#endif
}

CentredRow CentreRowImpl(const float* HWY_RESTRICT values, const float* HWY_RESTRICT centre,
                         int64_t dim, float* HWY_RESTRICT out) {
  const Floats tag;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(tag));
  FloatVec greatest = hn::Zero(tag);
  auto squares = hn::Zero(Wide());
  int64_t j = 0;
  for (const int64_t whole = dim / lanes * lanes; j < whole;) {
    FloatVec chain = hn::Zero(tag);
    for (const int64_t end = std::min(whole, j + kSquareChain * lanes); j < end; j += lanes) {
      const FloatVec value = hn::LoadU(tag, values + j);
      const FloatVec centred = hn::Sub(value, hn::LoadU(tag, centre + j));
      chain = hn::MulAdd(value, value, chain);
      greatest = hn::Max(greatest, hn::Abs(centred));
      hn::StoreU(centred, tag, out + j);
    }
    squares = AddWidened(chain, squares);
  }
  if (j < dim) {
    const FloatVec value = LoadRest(values + j, dim - j);
    const FloatVec centred = hn::Sub(value, LoadRest(centre + j, dim - j));
    squares = AddWidened(hn::Mul(value, value), squares);
    greatest = hn::Max(greatest, hn::Abs(centred));
    StoreRest(centred, dim - j, out + j);
  }
  return {hn::GetLane(hn::MaxOfLanes(tag, greatest)), hn::GetLane(hn::SumOfLanes(Wide(), squares))};
}

// What a number of at most 2^21 is added to for the nearest integer: the low bits of the sum are
// it, and `zero`, below 2^8, more.
FloatVec RounderTo(uint8_t zero) { return hn::Set(Floats(), 0x1.8p23F + static_cast<float>(zero)); }

// Two digits where kLow.
template <bool kLow>
CodedRow EncodeRowWith(const float* HWY_RESTRICT values, float scale, float inverse, int64_t dim,
                       uint8_t zero, uint8_t* HWY_RESTRICT codes, RowAhead ahead) {
  const Floats tag;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(tag));
  const int64_t row_bytes = RowCodeBytes(dim);
  const FloatVec rounder = RounderTo(zero);
  const FloatVec greatest = hn::Add(rounder, hn::Set(tag, kGreatestCode));
  const FloatVec least = hn::Sub(rounder, hn::Set(tag, kGreatestCode));
  const FloatVec unit = hn::Set(tag, scale);
  const FloatVec inverse_unit = hn::Set(tag, inverse);
  const FloatVec low_unit = hn::Set(tag, scale * kLowDigit);
  const FloatVec inverse_low_unit = hn::Set(tag, inverse / kLowDigit);
  FloatVec squared_high = hn::Zero(tag);
  FloatVec squared_low = hn::Zero(tag);
  FloatVec squared_residual = hn::Zero(tag);
  const auto store = [&](FloatVec rounded, int64_t at) HWY_ATTR {
    hn::StoreU(hn::TruncateTo(Bytes(), hn::BitCast(Bits(), rounded)), Bytes(), codes + at);
  };
  const auto encode = [&](FloatVec value, int64_t j) HWY_ATTR {
    const FloatVec high = hn::MulAdd(value, inverse_unit, rounder);
    store(high, j);
    const FloatVec digit = hn::Sub(high, rounder);
    FloatVec residual = hn::NegMulAdd(unit, digit, value);
    squared_high = hn::MulAdd(digit, digit, squared_high);
    if constexpr (kLow) {
      // Half a unit is 128 low ones.
      const FloatVec wanted = hn::MulAdd(residual, inverse_low_unit, rounder);
      const FloatVec low = hn::Min(hn::Max(wanted, least), greatest);
      store(low, row_bytes + j);
      const FloatVec low_digit = hn::Sub(low, rounder);
      residual = hn::NegMulAdd(low_unit, low_digit, residual);
      squared_low = hn::MulAdd(low_digit, low_digit, squared_low);
    }
    squared_residual = hn::MulAdd(residual, residual, squared_residual);
  };
  const char* next = static_cast<const char*>(ahead.row == nullptr ? values : ahead.row);
  int64_t j = 0;
  for (; j + lanes <= dim; j += lanes) {
    // One line at a time: all at once, they would keep other loads waiting.
    hwy::Prefetch(next);
    next += lanes * ahead.item_bytes;
    encode(hn::LoadU(tag, values + j), j);
  }
  if (j < dim) encode(LoadRest(values + j, dim - j), j);
  // Of vectors shorter than a step.
  for (j = std::max(dim, j + (j < dim ? lanes : 0)); j < 4 * CodeSteps(dim); ++j) {
    codes[j] = zero;
    if constexpr (kLow) codes[row_bytes + j] = zero;
  }
  return {hn::GetLane(hn::SumOfLanes(tag, squared_high)),
          hn::GetLane(hn::SumOfLanes(tag, squared_low)),
          hn::GetLane(hn::SumOfLanes(tag, squared_residual))};
}

CodedRow EncodeRowImpl(const float* values, float scale, float inverse, int64_t dim, int digits,
                       uint8_t zero, uint8_t* codes, RowAhead ahead) {
  return digits == 2 ? EncodeRowWith<true>(values, scale, inverse, dim, zero, codes, ahead)
                     : EncodeRowWith<false>(values, scale, inverse, dim, zero, codes, ahead);
}

}  // namespace tiny_knn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tiny_knn {
namespace {

// Queries whose sums with a panel stay in registers.
constexpr int64_t kGroup = 6;

// Adds the products of a row of a query's digits and a panel's to sums, [kPanelDocs].
void AddProductsPortably(const int8_t* query, const uint8_t* panel, int64_t steps, uint32_t* sums) {
  for (int64_t first = 0; first < kPanelDocs; first += kLaneDocs, sums += kLaneDocs) {
    for (int64_t step = 0; step < steps; ++step, panel += kStepBytes) {
      for (int64_t doc = 0; doc < kLaneDocs; ++doc) {
        for (int64_t j = 0; j < 4; ++j) {
          // Unsigned, since sums of bytes as they are stored may wrap on the way to theirs.
          sums[doc] += static_cast<uint32_t>(int{query[4 * step + j]} * int{panel[4 * doc + j]});
        }
      }
    }
  }
}

// `num_docs` of a panel and one query.
void ScorePanelPortably(const CodedQuery& query, const uint8_t* panel, const float* doc_scales,
                        int64_t num_docs, int digits, int64_t dim, float* scores) {
  const int64_t steps = CodeSteps(dim);
  uint32_t high[kPanelDocs];
  std::fill(high, high + kPanelDocs, static_cast<uint32_t>(query.offset));
  AddProductsPortably(query.codes, panel, steps, high);
  float products[kPanelDocs];
  const auto as_float = [](uint32_t sum) { return static_cast<float>(static_cast<int32_t>(sum)); };
  std::transform(high, high + kPanelDocs, products, as_float);
  if (digits == 2) {
    uint32_t low[kPanelDocs];
    std::fill(low, low + kPanelDocs, static_cast<uint32_t>(query.low_offset));
    AddProductsPortably(query.codes, panel + DigitBytes(dim), steps, low);
    AddProductsPortably(query.codes + QueryDigitBytes(dim), panel, steps, low);
    for (int64_t doc = 0; doc < kPanelDocs; ++doc) {
      products[doc] = std::fma(as_float(low[doc]), kLowDigit, products[doc]);
    }
  }
  for (int64_t doc = 0; doc < num_docs; ++doc) {
    scores[doc] = std::fma(query.scale * doc_scales[doc], products[doc], query.centre_dot);
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
  const int64_t lane_bytes = steps * kStepBytes;
  for (int64_t step = 0; step < steps; ++step, panel += kStepBytes) {
    const __m512i docs0 = _mm512_load_si512(panel);
    const __m512i docs1 = _mm512_load_si512(panel + lane_bytes);
    const __m512i docs2 = _mm512_load_si512(panel + 2 * lane_bytes);
    const __m512i docs3 = _mm512_load_si512(panel + 3 * lane_bytes);
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

// Codes of kLaneDocs docs, which lie `doc_bytes` apart, to their lanes.
TINY_KNN_VNNI void TransposeLanes(const uint8_t* codes, int64_t doc_bytes, int64_t dim,
                                  uint8_t* lanes) {
  constexpr int64_t kSteps = 16;  // of a line
  static_assert(kLaneDocs == kSteps);
  // GCC 12 warns of what the intrinsics without a mask leave undefined.
  constexpr __mmask16 kAll16 = 0xFFFF;
  constexpr __mmask8 kAll8 = 0xFF;
  const int64_t whole = CodeSteps(dim) / kSteps * kSteps;
  alignas(64) uint8_t last[kSteps * kStepBytes];
  for (int64_t step = 0; step < CodeSteps(dim); step += kSteps) {
    const uint8_t* const line = codes + 4 * step;
    __m512i rows[kLaneDocs];
    __m512i pairs[kLaneDocs];
#pragma GCC unroll 16
    for (int i = 0; i < kLaneDocs; ++i) rows[i] = _mm512_loadu_si512(line + i * doc_bytes);
      // Steps 4 b to 4 b + 3 of two docs, then of four, in each quarter b of a vector.
#pragma GCC unroll 8
    for (int i = 0; i < kLaneDocs; i += 2) {
      pairs[i] = _mm512_maskz_unpacklo_epi32(kAll16, rows[i], rows[i + 1]);
      pairs[i + 1] = _mm512_maskz_unpackhi_epi32(kAll16, rows[i], rows[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kLaneDocs; i += 4) {
      rows[i] = _mm512_maskz_unpacklo_epi64(kAll8, pairs[i], pairs[i + 2]);
      rows[i + 1] = _mm512_maskz_unpackhi_epi64(kAll8, pairs[i], pairs[i + 2]);
      rows[i + 2] = _mm512_maskz_unpacklo_epi64(kAll8, pairs[i + 1], pairs[i + 3]);
      rows[i + 3] = _mm512_maskz_unpackhi_epi64(kAll8, pairs[i + 1], pairs[i + 3]);
    }
    // rows[4 a + s], quarter b: step 4 b + s of docs 4 a to 4 a + 3. Quarters are transposed.
    uint8_t* const to = step < whole ? lanes + step * kStepBytes : last;
#pragma GCC unroll 4
    for (int s = 0; s < 4; ++s) {
      const __m512i low01 = _mm512_maskz_shuffle_i32x4(kAll16, rows[s], rows[4 + s], 0x44);
      const __m512i high01 = _mm512_maskz_shuffle_i32x4(kAll16, rows[s], rows[4 + s], 0xEE);
      const __m512i low23 = _mm512_maskz_shuffle_i32x4(kAll16, rows[8 + s], rows[12 + s], 0x44);
      const __m512i high23 = _mm512_maskz_shuffle_i32x4(kAll16, rows[8 + s], rows[12 + s], 0xEE);
      // Of steps s, 4 + s, 8 + s and 12 + s.
      __m512i* const out = reinterpret_cast<__m512i*>(to + s * kStepBytes);
      _mm512_storeu_si512(out, _mm512_maskz_shuffle_i32x4(kAll16, low01, low23, 0x88));
      _mm512_storeu_si512(out + 4, _mm512_maskz_shuffle_i32x4(kAll16, low01, low23, 0xDD));
      _mm512_storeu_si512(out + 8, _mm512_maskz_shuffle_i32x4(kAll16, high01, high23, 0x88));
      _mm512_storeu_si512(out + 12, _mm512_maskz_shuffle_i32x4(kAll16, high01, high23, 0xDD));
    }
  }
  std::copy_n(last, (CodeSteps(dim) - whole) * kStepBytes, lanes + whole * kStepBytes);
}

using ScorePanelFunction = void (*)(const CodedQuery*, const uint8_t*, const float*, int64_t,
                                    int64_t, float*, int64_t);
constexpr ScorePanelFunction kScorePanel[kGroup] = {ScorePanel<1>, ScorePanel<2>, ScorePanel<3>,
                                                    ScorePanel<4>, ScorePanel<5>, ScorePanel<6>};
#endif

}  // namespace

HWY_EXPORT(CentreRowImpl);
HWY_EXPORT(EncodeRowImpl);

CentredRow CentreRow(const float* values, const float* centre, int64_t dim, float* out) {
  return HWY_DYNAMIC_DISPATCH(CentreRowImpl)(values, centre, dim, out);
}

CodedRow EncodeRow(const float* values, float scale, float inverse, int64_t dim, int digits,
                   uint8_t* codes, RowAhead ahead) {
  return HWY_DYNAMIC_DISPATCH(EncodeRowImpl)(values, scale, inverse, dim, digits, StoredZero(),
                                             codes, ahead);
}

void FillQueryDigits(int64_t dim, int8_t* codes) {
  const int64_t bytes = 4 * CodeSteps(dim);
  const int64_t whole = bytes / kQueryCodeLine * kQueryCodeLine;
  std::fill(codes + dim, codes + QueryDigitBytes(dim), int8_t{0});
  if (whole == bytes || whole == 0) return;
  int8_t* const tail = codes + whole + kQueryCodeLine;
  std::copy(codes + whole, codes + bytes, tail + kQueryCodeLine - (bytes - whole));
}

void PutInPanel(const uint8_t* codes, int64_t dim, int digits, int64_t first, int64_t count,
                uint8_t* panel) {
  assert(first % kLaneDocs + count <= kLaneDocs);
  const int64_t row_bytes = RowCodeBytes(dim);
  const int64_t doc_bytes = digits * row_bytes;
  for (int digit = 0; digit < digits; ++digit, codes += row_bytes, panel += DigitBytes(dim)) {
    uint8_t* const lanes = panel + first / kLaneDocs * LaneBytes(dim);
#if defined(__x86_64__)
    if (count == kLaneDocs && HasInt8DotProducts()) {
      TransposeLanes(codes, doc_bytes, dim, lanes);
      continue;
    }
#endif
    for (int64_t i = 0; i < count; ++i) {
      const uint8_t* const row = codes + i * doc_bytes;
      uint8_t* out = lanes + (first + i) % kLaneDocs * 4;
      for (int64_t step = 0; step < CodeSteps(dim); ++step, out += kStepBytes) {
        std::memcpy(out, row + 4 * step, 4);
      }
    }
  }
}

void ScoreCodes(const CodedQuery* queries, int64_t num_queries, const CodedDocs& docs, int64_t dim,
                const TileBounds& bounds, const TileScores& out) {
#if defined(__x86_64__)
  if (HasInt8Tiles()) return ScoreCodesByTiles(queries, num_queries, docs, dim, bounds, out);
  const bool fast = HasInt8DotProducts() && docs.digits == 1;
#endif
  std::fill(out.groups, out.groups + num_queries, AllGroups(docs.count));
  for (int64_t doc = 0; doc < docs.count; doc += kPanelDocs) {
    const uint8_t* const panel = docs.panels + doc / kPanelDocs * PanelBytes(dim, docs.digits);
    const int64_t count = std::min(kPanelDocs, docs.count - doc);
    for (int64_t query = 0; query < num_queries; query += kGroup) {
      const int64_t group = std::min(kGroup, num_queries - query);
      float* const scores = out.scores + query * out.stride + doc;
#if defined(__x86_64__)
      if (fast) {
        kScorePanel[group - 1](queries + query, panel, docs.scales + doc, count, CodeSteps(dim),
                               scores, out.stride);
        continue;
      }
#endif
      for (int64_t i = 0; i < group; ++i) {
        ScorePanelPortably(queries[query + i], panel, docs.scales + doc, count, docs.digits, dim,
                           scores + i * out.stride);
      }
    }
  }
}

}  // namespace tiny_knn
#endif  // HWY_ONCE
