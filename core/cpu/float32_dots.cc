#include "core/cpu/float32_dots.h"

#include <cstdint>
#include <type_traits>

#include "core/matrix/stored_elements.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/float32_dots.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "core/matrix/load_floats-inl.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tiny_knn::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using load_floats::HWY_NAMESPACE::LoadFloats;
using Floats = hn::ScalableTag<float>;
using FloatVec = hn::Vec<Floats>;

// The sums of the lanes of four vectors, as dots[0] to dots[3].
HWY_INLINE void SumFour(FloatVec a, FloatVec b, FloatVec c, FloatVec d, float* dots) {
#if HWY_TARGET == HWY_SCALAR
  const FloatVec sums[4] = {a, b, c, d};
  for (int i = 0; i < 4; ++i) dots[i] = hn::GetLane(sums[i]);
#else
  const Floats tag;
  const hn::Repartition<double, Floats> pairs;
  const auto in_pairs = [&](FloatVec v) HWY_ATTR { return hn::BitCast(pairs, v); };
  // Of each block of four lanes: {a0 + a2, b0 + b2, a1 + a3, b1 + b3}, and the same of c and d.
  const FloatVec ab = hn::Add(hn::InterleaveLower(tag, a, b), hn::InterleaveUpper(tag, a, b));
  const FloatVec cd = hn::Add(hn::InterleaveLower(tag, c, d), hn::InterleaveUpper(tag, c, d));
  const FloatVec low = hn::BitCast(tag, hn::InterleaveLower(pairs, in_pairs(ab), in_pairs(cd)));
  const FloatVec high = hn::BitCast(tag, hn::InterleaveUpper(pairs, in_pairs(ab), in_pairs(cd)));
  HWY_ALIGN float blocks[hn::MaxLanes(tag)];
  hn::Store(hn::Add(low, high), tag, blocks);
  const hn::FixedTag<float, 4> four;
  auto sums = hn::Load(four, blocks);
  for (size_t i = 4; i < hn::Lanes(tag); i += 4) sums = hn::Add(sums, hn::Load(four, blocks + i));
  hn::StoreU(sums, four, dots);
#endif
}

// As many chains of additions as hide the latency of a multiply-add. `next`: the rows that come
// after these, `num_next` of them.
template <int kRows, typename Element>
HWY_INLINE void Dots(const float* HWY_RESTRICT row, const void* const* others, int64_t dim,
                     const void* const* next, int64_t num_next, float* dots) {
  constexpr int kChains = kRows > 2 ? 2 : 4;
  const Floats tag;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(tag));
  FloatVec sums[kRows][kChains];
  const Element* HWY_RESTRICT at[kRows];
  for (int i = 0; i < kRows; ++i) {
    for (FloatVec& sum : sums[i]) sum = hn::Zero(tag);
    at[i] = static_cast<const Element*>(others[i]);
  }
  // Where there are fewer than four, the first are fetched more than once.
  const Element* ahead[kMostDots];
  for (int64_t i = 0; i < kMostDots; ++i) {
    ahead[i] = num_next > 0 ? static_cast<const Element*>(next[i % num_next]) : at[0];
  }
  int64_t j = 0;
  for (; j + kChains * lanes <= dim; j += kChains * lanes) {
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      const int64_t column = j + c * lanes;
#pragma GCC unroll 4
      for (const Element* next_row : ahead) hwy::Prefetch(next_row + column);
      const FloatVec values = hn::LoadU(tag, row + column);
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) {
        sums[i][c] = hn::MulAdd(values, LoadFloats(tag, at[i] + column), sums[i][c]);
      }
    }
  }
  for (; j + lanes <= dim; j += lanes) {
    const FloatVec values = hn::LoadU(tag, row + j);
    for (int i = 0; i < kRows; ++i) {
      sums[i][0] = hn::MulAdd(values, LoadFloats(tag, at[i] + j), sums[i][0]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int c = 1; c < kChains; ++c) sums[i][0] = hn::Add(sums[i][0], sums[i][c]);
  }
  if constexpr (kRows == 4) {
    SumFour(sums[0][0], sums[1][0], sums[2][0], sums[3][0], dots);
  } else {
    for (int i = 0; i < kRows; ++i) dots[i] = hn::GetLane(hn::SumOfLanes(tag, sums[i][0]));
  }
  for (; j < dim; ++j) {
    for (int i = 0; i < kRows; ++i) dots[i] += row[j] * WidenElementAt(at[i], j);
  }
}

template <typename Element>
void DotsOf(const float* row, const void* const* others, int64_t count, int64_t dim, float* dots) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    Dots<4, Element>(row, others + i, dim, others + i + 4, count - i - 4, dots + i);
  }
  switch (count - i) {
    case 3:
      return Dots<3, Element>(row, others + i, dim, nullptr, 0, dots + i);
    case 2:
      return Dots<2, Element>(row, others + i, dim, nullptr, 0, dots + i);
    case 1:
      return Dots<1, Element>(row, others + i, dim, nullptr, 0, dots + i);
    default:
      return;
  }
}

void Float32DotsImpl(const float* row, const void* const* others, DType stored, int64_t count,
                     int64_t dim, float* dots) {
  VisitStoredElement(stored, [&](auto* type) {
    DotsOf<std::remove_const_t<std::remove_pointer_t<decltype(type)>>>(row, others, count, dim,
                                                                       dots);
  });
}

}  // namespace tiny_knn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tiny_knn {

HWY_EXPORT(Float32DotsImpl);

void Float32Dots(const float* row, const void* const* others, DType stored, int64_t count,
                 int64_t dim, float* dots) {
  HWY_DYNAMIC_DISPATCH(Float32DotsImpl)(row, others, stored, count, dim, dots);
}

}  // namespace tiny_knn
#endif  // HWY_ONCE
