#include "core/cpu/float32_dots.h"

#include <cstdint>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/float32_dots.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tiny_knn::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;
using FloatVec = hn::Vec<Floats>;

// Two chains of additions a row: with four rows, what hides the latency of a multiply-add.
template <int kRows>
HWY_INLINE void Dots(const float* HWY_RESTRICT row, const float* const* others, int64_t dim,
                     float* dots) {
  const Floats tag;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(tag));
  FloatVec even[kRows];
  FloatVec odd[kRows];
  const float* HWY_RESTRICT at[kRows];
  for (int i = 0; i < kRows; ++i) {
    even[i] = hn::Zero(tag);
    odd[i] = hn::Zero(tag);
    at[i] = others[i];
  }
  int64_t j = 0;
  for (; j + 2 * lanes <= dim; j += 2 * lanes) {
    const FloatVec first = hn::LoadU(tag, row + j);
    const FloatVec second = hn::LoadU(tag, row + j + lanes);
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      even[i] = hn::MulAdd(first, hn::LoadU(tag, at[i] + j), even[i]);
      odd[i] = hn::MulAdd(second, hn::LoadU(tag, at[i] + j + lanes), odd[i]);
    }
  }
  for (; j + lanes <= dim; j += lanes) {
    const FloatVec values = hn::LoadU(tag, row + j);
    for (int i = 0; i < kRows; ++i) {
      even[i] = hn::MulAdd(values, hn::LoadU(tag, at[i] + j), even[i]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    float sum = hn::GetLane(hn::SumOfLanes(tag, hn::Add(even[i], odd[i])));
    for (int64_t rest = j; rest < dim; ++rest) sum += row[rest] * at[i][rest];
    dots[i] = sum;
  }
}

void Float32DotsImpl(const float* row, const float* const* others, int64_t count, int64_t dim,
                     float* dots) {
  if (count == kMostDots) return Dots<kMostDots>(row, others, dim, dots);
  for (int64_t i = 0; i < count; ++i) Dots<1>(row, others + i, dim, dots + i);
}

}  // namespace tiny_knn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tiny_knn {

HWY_EXPORT(Float32DotsImpl);

void Float32Dots(const float* row, const float* const* others, int64_t count, int64_t dim,
                 float* dots) {
  HWY_DYNAMIC_DISPATCH(Float32DotsImpl)(row, others, count, dim, dots);
}

}  // namespace tiny_knn
#endif  // HWY_ONCE
