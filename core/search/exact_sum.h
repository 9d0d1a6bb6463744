// Exact sums of products of floating-point numbers, as one wide fixed-point integer.
//
// Every finite float is an integer times 2^-149, so every product is an integer times 2^-298 below
// 2^256, and a sum of fewer than 2^63 of them fits 618 bits. For double: 2^-2148, 2^2048, 4,260
// bits. (The idea is Kulisch's long accumulator: U. Kulisch, "Computer Arithmetic and Validity",
// 2008.) Nothing here is fast; everything is exact. Thread-compatible.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <type_traits>

namespace tiny_knn {

// A finite float or double taken apart: value = (negative ? -1 : 1) * mantissa * 2^exponent.
struct FloatParts {
  uint64_t mantissa;
  int exponent;
  bool negative;
};

// REQUIRES: value is finite.
template <typename T>
FloatParts TakeApart(T value) {
  constexpr bool kIsDouble = std::is_same_v<T, double>;
  using Bits = std::conditional_t<kIsDouble, uint64_t, uint32_t>;
  constexpr int kMantissaBits = kIsDouble ? 52 : 23;
  constexpr int kExponentMask = kIsDouble ? 0x7FF : 0xFF;
  constexpr int kMinExponent = kIsDouble ? -1074 : -149;
  const Bits bits = std::bit_cast<Bits>(value);
  const Bits fraction = bits & ((Bits{1} << kMantissaBits) - 1);
  const int biased = static_cast<int>(bits >> kMantissaBits) & kExponentMask;
  const bool negative = (bits >> (sizeof(Bits) * 8 - 1)) != 0;
  if (biased == 0) return {fraction, kMinExponent, negative};
  return {fraction | (Bits{1} << kMantissaBits), kMinExponent + biased - 1, negative};
}

// The sum of products of pairs of `T` (float or double), exact.
template <typename T>
class ExactSum {
 public:
  static constexpr bool kIsDouble = std::is_same_v<T, double>;
  // Weight of bit 0, and room for the largest sum and its sign.
  static constexpr int kLowestExponent = kIsDouble ? -2148 : -298;
  static constexpr int kLimbs = kIsDouble ? 67 : 10;

  // Adds a * b * 2^doublings, or subtracts it. REQUIRES: a and b finite, doublings 0 or 1.
  void AddProduct(T a, T b, bool subtract = false, int doublings = 0) {
    const FloatParts x = TakeApart(a);
    const FloatParts y = TakeApart(b);
    const unsigned __int128 magnitude = static_cast<unsigned __int128>(x.mantissa) * y.mantissa;
    if (magnitude == 0) return;
    const int shift = x.exponent + y.exponent + doublings - kLowestExponent;
    AddShifted(magnitude, shift, (x.negative != y.negative) != subtract);
  }

  bool IsNegative() const { return static_cast<int64_t>(limbs_[kLimbs - 1]) < 0; }

  // |sum| as limbs, least significant first, of weight 2^kLowestExponent.
  std::array<uint64_t, kLimbs> Magnitude() const {
    std::array<uint64_t, kLimbs> result = limbs_;
    if (IsNegative()) {
      uint64_t carry = 1;
      for (uint64_t& limb : result) {
        limb = ~limb + carry;
        carry = (carry != 0 && limb == 0) ? 1 : 0;
      }
    }
    return result;
  }

 private:
  // Adds or subtracts magnitude * 2^shift (of weight 2^kLowestExponent); two's complement limbs.
  void AddShifted(unsigned __int128 magnitude, int shift, bool subtract) {
    const int limb = shift / 64;
    const int bit = shift % 64;
    const uint64_t low = static_cast<uint64_t>(magnitude);
    const uint64_t high = static_cast<uint64_t>(magnitude >> 64);
    std::array<uint64_t, 3> parts = {low << bit, high << bit, 0};
    if (bit != 0) {
      parts[1] |= low >> (64 - bit);
      parts[2] = high >> (64 - bit);
    }
    uint64_t carry = 0;
    for (int i = 0; limb + i < kLimbs && (i < 3 || carry != 0); ++i) {
      const uint64_t part = i < 3 ? parts[static_cast<size_t>(i)] : 0;
      uint64_t& target = limbs_[static_cast<size_t>(limb + i)];
      if (subtract) {
        const unsigned __int128 take = static_cast<unsigned __int128>(part) + carry;
        carry = take > target ? 1 : 0;
        target = static_cast<uint64_t>(target - static_cast<uint64_t>(take));
      } else {
        const unsigned __int128 sum = static_cast<unsigned __int128>(target) + part + carry;
        target = static_cast<uint64_t>(sum);
        carry = static_cast<uint64_t>(sum >> 64);
      }
    }
  }

  std::array<uint64_t, kLimbs> limbs_{};
};

}  // namespace tiny_knn
