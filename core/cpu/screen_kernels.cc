#include "core/cpu/screen_kernels.h"

#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/screen_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tiny_knn::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;
using Ints = hn::RebindToSigned<Floats>;
using FloatVec = hn::Vec<Floats>;
using FloatMask = hn::Mask<Floats>;

// Scores of one query against a tile, with what the comparison needs.
struct Row {
  const float* HWY_RESTRICT scores;
  const float* HWY_RESTRICT norm;
  const float* HWY_RESTRICT upper_offset;
  const float* HWY_RESTRICT lower_offset;
  const float* HWY_RESTRICT residual;
  FloatVec threshold;
  FloatVec error_factor;
  FloatVec residual_factor;
  hn::Vec<Ints> lane_docs;  // the docs of score 0 and its neighbours
};

// `from` less the error of the scores from j on.
template <bool kResidual>
HWY_INLINE FloatVec LessError(const Row& row, int64_t j, FloatVec from) {
  const Floats tag;
  const FloatVec less = hn::NegMulAdd(row.error_factor, hn::LoadU(tag, row.norm + j), from);
  if constexpr (!kResidual) return less;
  return hn::NegMulAdd(row.residual_factor, hn::LoadU(tag, row.residual + j), less);
}

template <bool kResidual>
HWY_INLINE FloatMask Survives(const Row& row, int64_t j) {
  const Floats tag;
  const FloatVec bound =
      hn::Sub(LessError<kResidual>(row, j, row.threshold), hn::LoadU(tag, row.upper_offset + j));
  // Not "score >= bound": a NaN on either side must survive.
  return hn::Not(hn::Lt(hn::LoadU(tag, row.scores + j), bound));
}

template <bool kResidual>
HWY_INLINE size_t Keep(const Row& row, int64_t j, FloatMask mask, float* HWY_RESTRICT lower,
                       int32_t* HWY_RESTRICT doc) {
  const Floats tag;
  const Ints int_tag;
  const FloatVec offset = LessError<kResidual>(row, j, hn::LoadU(tag, row.lower_offset + j));
  const FloatVec sum = hn::Add(hn::LoadU(tag, row.scores + j), offset);
  const FloatVec bound =
      hn::IfThenElse(hn::Eq(sum, sum), sum, hn::Set(tag, -std::numeric_limits<float>::infinity()));
  // Compress in a register and store it whole: the lists are padded for that, and compressing
  // stores to memory are microcoded on AMD's cores.
  hn::StoreU(hn::Compress(bound, mask), tag, lower);
  const auto docs = hn::Add(row.lane_docs, hn::Set(int_tag, static_cast<int32_t>(j)));
  hn::StoreU(hn::Compress(docs, hn::RebindMask(int_tag, mask)), int_tag, doc);
  return hn::CountTrue(tag, mask);
}

// The same of one score of doc j.
template <bool kResidual>
HWY_INLINE bool KeepOne(float score, int64_t j, const QueryBounds& query, const DocBounds& docs,
                        float* lower) {
  float error = query.error_factor * docs.norm[j];
  if constexpr (kResidual) error += query.residual_factor * docs.residual[j];
  if (score < (query.threshold - error) - docs.upper_offset[j]) return false;
  const float sum = score + (docs.lower_offset[j] - error);
  *lower = sum == sum ? sum : -std::numeric_limits<float>::infinity();
  return true;
}

template <bool kResidual>
FilterResult FilterScoresWith(const ScoreRow& scored, int64_t first, const QueryBounds& query,
                              const DocBounds& docs, int32_t first_doc, float* HWY_RESTRICT lower,
                              int32_t* HWY_RESTRICT doc, int64_t room) {
  const Floats tag;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(tag));
  const int64_t n = scored.count;
  const Row row{scored.scores,
                docs.norm,
                docs.upper_offset,
                docs.lower_offset,
                docs.residual,
                hn::Set(tag, query.threshold),
                hn::Set(tag, query.error_factor),
                hn::Set(tag, query.residual_factor),
                hn::Iota(Ints(), first_doc)};
  int64_t kept = 0;
  const auto keep = [&](int64_t j, FloatMask mask) HWY_ATTR {
    kept += static_cast<int64_t>(Keep<kResidual>(row, j, mask, lower + kept, doc + kept));
  };
  int64_t j = first;
  while (j < n) {
    if (j % kGroupDocs == 0) {
      const uint64_t left = scored.groups >> (j / kGroupDocs);
      if (left == 0) return {n, kept};
      j += __builtin_ctzll(left) * kGroupDocs;
      // Four vectors at a time: often none survives, and one branch says so.
      for (; j + 4 * lanes <= n && kept + 4 * lanes <= room &&
             (scored.groups >> (j / kGroupDocs) & 0xF) == 0xF;
           j += 4 * lanes) {
        const FloatMask mask0 = Survives<kResidual>(row, j);
        const FloatMask mask1 = Survives<kResidual>(row, j + lanes);
        const FloatMask mask2 = Survives<kResidual>(row, j + 2 * lanes);
        const FloatMask mask3 = Survives<kResidual>(row, j + 3 * lanes);
        if (HWY_LIKELY(hn::AllFalse(tag, hn::Or(hn::Or(mask0, mask1), hn::Or(mask2, mask3))))) {
          continue;
        }
        keep(j, mask0);
        keep(j + lanes, mask1);
        keep(j + 2 * lanes, mask2);
        keep(j + 3 * lanes, mask3);
      }
      if (j >= n || j % kGroupDocs != 0) continue;
      if ((scored.groups >> (j / kGroupDocs) & 1) == 0) continue;
      if (j + kGroupDocs <= n && kept + kGroupDocs <= room && lanes <= kGroupDocs) {
        for (const int64_t end = j + kGroupDocs; j < end; j += lanes) {
          keep(j, Survives<kResidual>(row, j));
        }
        continue;
      }
    }
    if (kept == room) return {j, kept};
    if (KeepOne<kResidual>(row.scores[j], j, query, docs, lower + kept)) {
      doc[kept] = first_doc + static_cast<int32_t>(j);
      ++kept;
    }
    ++j;
  }
  return {n, kept};
}

int64_t FilterScoresOfImpl(const int32_t* docs, const float* scores, int64_t count,
                           const QueryBounds& query, const DocBounds& bounds, float* lower,
                           int32_t* doc) {
  const Floats tag;
  const Ints int_tag;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(tag));
  const FloatVec threshold = hn::Set(tag, query.threshold);
  const FloatVec error_factor = hn::Set(tag, query.error_factor);
  int64_t kept = 0;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto at = hn::LoadU(int_tag, docs + i);
    const FloatVec score = hn::LoadU(tag, scores + i);
    const FloatVec norm = hn::GatherIndex(tag, bounds.norm, at);
    const FloatVec bound = hn::Sub(hn::NegMulAdd(error_factor, norm, threshold),
                                   hn::GatherIndex(tag, bounds.upper_offset, at));
    const FloatMask mask = hn::Not(hn::Lt(score, bound));
    const FloatVec sum = hn::Add(
        score, hn::NegMulAdd(error_factor, norm, hn::GatherIndex(tag, bounds.lower_offset, at)));
    const FloatVec certain = hn::IfThenElse(hn::Eq(sum, sum), sum,
                                            hn::Set(tag, -std::numeric_limits<float>::infinity()));
    hn::StoreU(hn::Compress(certain, mask), tag, lower + kept);
    hn::StoreU(hn::Compress(at, hn::RebindMask(int_tag, mask)), int_tag, doc + kept);
    kept += static_cast<int64_t>(hn::CountTrue(tag, mask));
  }
  for (; i < count; ++i) {
    const int32_t at = docs[i];
    doc[kept] = at;
    kept += KeepOne<false>(scores[i], at, query, bounds, lower + kept) ? 1 : 0;
  }
  return kept;
}

FilterResult FilterScoresImpl(const ScoreRow& row, int64_t first, const QueryBounds& query,
                              const DocBounds& docs, int32_t first_doc, float* lower, int32_t* doc,
                              int64_t room) {
  return docs.residual == nullptr
             ? FilterScoresWith<false>(row, first, query, docs, first_doc, lower, doc, room)
             : FilterScoresWith<true>(row, first, query, docs, first_doc, lower, doc, room);
}

}  // namespace tiny_knn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tiny_knn {

HWY_EXPORT(FilterScoresImpl);
HWY_EXPORT(FilterScoresOfImpl);

FilterResult FilterScores(const ScoreRow& row, int64_t first, const QueryBounds& query,
                          const DocBounds& docs, int32_t first_doc, float* lower, int32_t* doc,
                          int64_t room) {
  return HWY_DYNAMIC_DISPATCH(FilterScoresImpl)(row, first, query, docs, first_doc, lower, doc,
                                                room);
}

int64_t FilterScoresOf(const int32_t* docs, const float* scores, int64_t count,
                       const QueryBounds& query, const DocBounds& bounds, float* lower,
                       int32_t* doc) {
  return HWY_DYNAMIC_DISPATCH(FilterScoresOfImpl)(docs, scores, count, query, bounds, lower, doc);
}

void ScaleRow(const float* values, double factor, int64_t dim, float* out) {
  for (int64_t j = 0; j < dim; ++j) {
    out[j] = static_cast<float>(static_cast<double>(values[j]) * factor);
  }
}

void ScaleRow(const double* values, double factor, int64_t dim, float* out) {
  for (int64_t j = 0; j < dim; ++j) out[j] = static_cast<float>(values[j] * factor);
}

}  // namespace tiny_knn
#endif  // HWY_ONCE
