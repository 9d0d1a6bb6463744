// Float32 dot products of one row with a few others, wherever those lie. Every instruction set
// through Highway's dynamic dispatch. Thread-safe.
#pragma once

#include <cstdint>

#include "core/matrix/dtype.h"

namespace tiny_knn {

// Rows that are multiplied at once.
inline constexpr int64_t kMostDots = 4;

// dots[i] ~ sum over j of row[j] * others[i][j], for i < count, with the GEMM's bound on the error:
// docs/exactness.md says why. All rows are [dim]; the others hold elements of `stored`, which
// IsWidenedExactly to float32. From the first kMostDots on, they are fetched into cache while the
// ones before are multiplied; those should be there.
void Float32Dots(const float* row, const void* const* others, DType stored, int64_t count,
                 int64_t dim, float* dots);

}  // namespace tiny_knn
