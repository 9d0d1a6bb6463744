#include "core/search/float_environment.h"

#include <cfenv>
#include <cfloat>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace tiny_knn {

static_assert(FLT_EVAL_METHOD == 0,
              "float and double expressions must be evaluated in their own type");

#if defined(__SSE__)
namespace {
// Round to nearest, all exceptions masked, no flag set, DAZ and FTZ off.
constexpr uint32_t kDefaultMxcsr = 0x1F80;
}  // namespace
#endif

ScopedFloatEnvironment::ScopedFloatEnvironment() : saved_rounding_(std::fegetround()) {
#if defined(__SSE__)
  saved_mxcsr_ = _mm_getcsr();
#endif
  std::fesetround(FE_TONEAREST);
#if defined(__SSE__)
  _mm_setcsr(kDefaultMxcsr);
#endif
}

ScopedFloatEnvironment::~ScopedFloatEnvironment() {
  std::fesetround(saved_rounding_);
#if defined(__SSE__)
  _mm_setcsr(saved_mxcsr_);
#endif
}

}  // namespace tiny_knn
