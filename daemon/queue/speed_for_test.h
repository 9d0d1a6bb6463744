#pragma once

#include <ctime>

namespace tiny_knn {

// Whether the build has a sanitizer in it: what it measures says nothing about the program.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// CPU seconds of this process so far, which other processes lengthen less than they do wall time.
inline double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

}  // namespace tiny_knn
