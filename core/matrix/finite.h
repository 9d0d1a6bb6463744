// Whether a row is finite.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace tiny_knn {

// Whether no element of row [dim] is NaN or infinite.
template <typename T>
bool IsFiniteRow(const T* row, int64_t dim) {
  return std::all_of(row, row + dim, [](T value) { return std::isfinite(value); });
}

}  // namespace tiny_knn
