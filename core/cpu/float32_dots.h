// Float32 dot products of one row with a few others, wherever those lie. Every instruction set
// through Highway's dynamic dispatch. Thread-safe.
#pragma once

#include <cstdint>

namespace tiny_knn {

// Rows that are multiplied at once.
inline constexpr int64_t kMostDots = 4;

// dots[i] ~ sum over j of row[j] * others[i][j], for i < count <= kMostDots, with the GEMM's bound
// on the error: docs/exactness.md says why. All rows are [dim].
void Float32Dots(const float* row, const float* const* others, int64_t count, int64_t dim,
                 float* dots);

}  // namespace tiny_knn
