#include "core/matrix/stored_elements.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/matrix/stored_elements.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "core/matrix/load_floats-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tiny_knn::HWY_NAMESPACE {

void WidenRowImpl(const void* row, DType stored, int64_t dim, float* HWY_RESTRICT out) {
  namespace hn = hwy::HWY_NAMESPACE;
  using load_floats::HWY_NAMESPACE::LoadFloats;
  VisitStoredElement(stored, [&](auto* type) HWY_ATTR {
    const auto* const elements = static_cast<decltype(type)>(row);
    const hn::ScalableTag<float> tag;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(tag));
    int64_t j = 0;
    for (; j + lanes <= dim; j += lanes) hn::StoreU(LoadFloats(tag, elements + j), tag, out + j);
    for (; j < dim; ++j) out[j] = WidenElementAt(elements, j);
  });
}

}  // namespace tiny_knn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tiny_knn {

HWY_EXPORT(WidenRowImpl);

bool IsWidenedExactly(DType stored, DType compute_dtype) {
  switch (stored) {
    case DType::kFloat32:
      return compute_dtype == DType::kFloat32;
    case DType::kFloat16:
    case DType::kBFloat16:
      return compute_dtype == stored || compute_dtype == DType::kFloat32;
    case DType::kInt8:
    case DType::kUInt8:
      return compute_dtype == stored || compute_dtype == DType::kFloat32 ||
             compute_dtype == DType::kFloat16 || compute_dtype == DType::kBFloat16;
    default:
      return false;
  }
}

void WidenRow(const void* row, DType stored, int64_t dim, float* out) {
  HWY_DYNAMIC_DISPATCH(WidenRowImpl)(row, stored, dim, out);
}

}  // namespace tiny_knn
#endif  // HWY_ONCE
