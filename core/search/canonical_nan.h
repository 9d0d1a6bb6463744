// The one NaN that results contain.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace tiny_knn {

// T is float or double.
template <typename T>
constexpr T CanonicalNan() {
  if constexpr (std::is_same_v<T, double>) {
    return std::bit_cast<double>(uint64_t{0x7FF8000000000000});
  } else {
    return std::bit_cast<float>(uint32_t{0x7FC00000});
  }
}

}  // namespace tiny_knn
