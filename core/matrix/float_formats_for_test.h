// The 16-bit formats from their definition, independent of convert.cc. For tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace tiny_knn {

// The value of a pattern with a sign bit, `exponent_bits` of exponent and the rest mantissa.
inline double SmallFloatValue(uint16_t bits, int exponent_bits) {
  const int mantissa_bits = 15 - exponent_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits & 0x7FFF) >> mantissa_bits;
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

inline double Float16Value(uint16_t bits) { return SmallFloatValue(bits, 5); }
inline double BFloat16Value(uint16_t bits) { return SmallFloatValue(bits, 8); }

}  // namespace tiny_knn
