// Vectors of floats from elements as files hold them: what reads rows of 16-bit floats and of 8-bit
// integers without a copy. Included by sources that Highway compiles once for every instruction
// set; everything here is exact.
#include <cstdint>
#include <cstring>

#include "core/matrix/stored_elements.h"

#if defined(TINY_KNN_CORE_MATRIX_LOAD_FLOATS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TINY_KNN_CORE_MATRIX_LOAD_FLOATS_INL_H_
#undef TINY_KNN_CORE_MATRIX_LOAD_FLOATS_INL_H_
#else
#define TINY_KNN_CORE_MATRIX_LOAD_FLOATS_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tiny_knn::load_floats::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// `tag`: of floats. The values at `elements`, which need not be aligned, and behind.
#if HWY_TARGET == HWY_SCALAR
template <typename D, typename Element>
HWY_INLINE hn::Vec<D> LoadFloats(D tag, const Element* elements) {
  return hn::Set(tag, WidenElementAt(elements, 0));
}
#else
template <typename D>
HWY_INLINE hn::Vec<D> LoadFloats(D tag, const float* elements) {
  return hn::LoadU(tag, elements);
}

template <typename D>
HWY_INLINE hn::Vec<D> LoadFloats(D tag, const StoredBFloat16* elements) {
  const hn::Rebind<uint16_t, D> narrow;
  const hn::Rebind<uint32_t, D> wide;
  const auto bits = hn::LoadU(narrow, reinterpret_cast<const uint16_t*>(elements));
  return hn::BitCast(tag, hn::ShiftLeft<16>(hn::PromoteTo(wide, bits)));
}

template <typename D>
HWY_INLINE hn::Vec<D> LoadFloats(D tag, const StoredFloat16* elements) {
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
  const hn::Rebind<hwy::float16_t, D> narrow;
  return hn::PromoteTo(tag, hn::LoadU(narrow, reinterpret_cast<const hwy::float16_t*>(elements)));
#else
  // Highway's own emulation knows no infinities and no NaN.
  HWY_ALIGN float values[hn::MaxLanes(tag)];
  for (size_t i = 0; i < hn::Lanes(tag); ++i) {
    values[i] = WidenElementAt(elements, static_cast<int64_t>(i));
  }
  return hn::Load(tag, values);
#endif
}

template <typename D>
HWY_INLINE hn::Vec<D> LoadFloats(D tag, const int8_t* elements) {
  const hn::Rebind<int8_t, D> narrow;
  const hn::Rebind<int32_t, D> wide;
  return hn::ConvertTo(tag, hn::PromoteTo(wide, hn::LoadU(narrow, elements)));
}

template <typename D>
HWY_INLINE hn::Vec<D> LoadFloats(D tag, const uint8_t* elements) {
  const hn::Rebind<uint8_t, D> narrow;
  const hn::Rebind<int32_t, D> wide;
  return hn::ConvertTo(tag, hn::PromoteTo(wide, hn::LoadU(narrow, elements)));
}
#endif

}  // namespace tiny_knn::load_floats::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
