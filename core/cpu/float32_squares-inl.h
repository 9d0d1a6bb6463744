// How loops sum the squares of a row for core/cpu/float32_squares.h: in float32 over kSquareChain
// vectors, then in float64. Included by sources that Highway compiles once for every instruction
// set.
#include <cstdint>

#if defined(TINY_KNN_CORE_CPU_FLOAT32_SQUARES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TINY_KNN_CORE_CPU_FLOAT32_SQUARES_INL_H_
#undef TINY_KNN_CORE_CPU_FLOAT32_SQUARES_INL_H_
#else
#define TINY_KNN_CORE_CPU_FLOAT32_SQUARES_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tiny_knn::float32_squares::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

inline constexpr int64_t kSquareChain = 8;

// Adds all lanes in double: the lower half and the upper one.
HWY_INLINE hn::Vec<hn::ScalableTag<double>> AddWidened(hn::Vec<hn::ScalableTag<float>> values,
                                                       hn::Vec<hn::ScalableTag<double>> sum) {
  const hn::ScalableTag<double> wide;
#if HWY_TARGET == HWY_SCALAR
  return hn::Add(sum, hn::PromoteTo(wide, values));
#else
  const hn::Rebind<float, hn::ScalableTag<double>> half;
  return hn::Add(sum, hn::Add(hn::PromoteTo(wide, hn::LowerHalf(half, values)),
                              hn::PromoteTo(wide, hn::UpperHalf(half, values))));
#endif
}

}  // namespace tiny_knn::float32_squares::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TINY_KNN_CORE_CPU_FLOAT32_SQUARES_INL_H_
