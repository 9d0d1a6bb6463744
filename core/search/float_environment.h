// The floating-point environment that exactness needs: round to nearest, subnormals kept, no traps.
#pragma once

#include <cstdint>

#ifdef __FAST_MATH__
#error \
    "tiny-knn must not be built with -ffast-math: its scores would no longer be correctly rounded"
#endif

namespace tiny_knn {

// Sets MXCSR (and the x87 / fenv rounding mode) to the default for the calling thread, and restores
// what was there. Every thread that converts, screens or rescores holds one: a host process
// (Python, a numerics library) may have set DAZ, FTZ or another rounding mode.
class ScopedFloatEnvironment {
 public:
  ScopedFloatEnvironment();
  ~ScopedFloatEnvironment();
  ScopedFloatEnvironment(const ScopedFloatEnvironment&) = delete;
  ScopedFloatEnvironment& operator=(const ScopedFloatEnvironment&) = delete;

 private:
  uint32_t saved_mxcsr_ = 0;
  int saved_rounding_ = 0;
};

}  // namespace tiny_knn
