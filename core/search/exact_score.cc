#include "core/search/exact_score.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include "core/matrix/finite.h"
#include "core/search/exact_sum.h"

namespace tiny_knn {
namespace {

// An unsigned integer of any size: limbs, least significant first, no zero limb on top.
using BigUint = std::vector<uint64_t>;

void Trim(BigUint& value) {
  while (!value.empty() && value.back() == 0) value.pop_back();
}

int64_t BitLength(std::span<const uint64_t> value) {
  for (size_t i = value.size(); i > 0; --i) {
    if (value[i - 1] != 0) return static_cast<int64_t>(i) * 64 - std::countl_zero(value[i - 1]);
  }
  return 0;
}

BigUint Multiply(const BigUint& a, const BigUint& b) {
  BigUint product(a.size() + b.size(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    uint64_t carry = 0;
    for (size_t j = 0; j < b.size(); ++j) {
      const unsigned __int128 sum =
          static_cast<unsigned __int128>(a[i]) * b[j] + product[i + j] + carry;
      product[i + j] = static_cast<uint64_t>(sum);
      carry = static_cast<uint64_t>(sum >> 64);
    }
    product[i + b.size()] = carry;
  }
  Trim(product);
  return product;
}

BigUint ShiftLeft(const BigUint& value, int64_t bits) {
  const size_t limbs = static_cast<size_t>(bits / 64);
  const int rest = static_cast<int>(bits % 64);
  BigUint shifted(limbs + value.size() + 1, 0);
  for (size_t i = 0; i < value.size(); ++i) {
    shifted[limbs + i] |= value[i] << rest;
    if (rest != 0) shifted[limbs + i + 1] |= value[i] >> (64 - rest);
  }
  Trim(shifted);
  return shifted;
}

// -1, 0 or 1 as a < b, a == b, a > b.
int Compare(const BigUint& a, const BigUint& b) {
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  for (size_t i = a.size(); i > 0; --i) {
    if (a[i - 1] != b[i - 1]) return a[i - 1] < b[i - 1] ? -1 : 1;
  }
  return 0;
}

template <typename T>
struct Format {
  static constexpr int kDigits = std::numeric_limits<T>::digits;  // 24 or 53
  static constexpr int kMinExponent = std::is_same_v<T, double> ? -1074 : -149;
};

// The T nearest to |value| * 2^exponent, ties to even, overflow to infinity.
template <typename T>
T RoundMagnitude(std::span<const uint64_t> value, int64_t exponent) {
  const int64_t length = BitLength(value);
  if (length == 0) return T{0};
  // Drop the low bits that the format cannot hold: all below its last digit or its least subnormal.
  const int64_t drop = std::max<int64_t>(
      {length - Format<T>::kDigits, Format<T>::kMinExponent - exponent, int64_t{0}});
  uint64_t kept = 0;  // value >> drop; at most kDigits bits
  for (int64_t bit = std::min(length, drop + 64) - 1; bit >= drop; --bit) {
    kept = kept << 1 | (value[static_cast<size_t>(bit / 64)] >> (bit % 64) & 1);
  }
  if (drop > 0 && drop <= length) {
    const int64_t half = drop - 1;
    const bool half_set = (value[static_cast<size_t>(half / 64)] >> (half % 64) & 1) != 0;
    bool rest_set =
        (value[static_cast<size_t>(half / 64)] & ((uint64_t{1} << (half % 64)) - 1)) != 0;
    for (int64_t i = 0; i < half / 64; ++i) {
      rest_set = rest_set || value[static_cast<size_t>(i)] != 0;
    }
    if (half_set && (rest_set || (kept & 1) != 0)) ++kept;
  }
  // Exact: `kept` has at most kDigits bits (or is a power of two) and the exponent is in range;
  // ldexp overflows to infinity as rounding should.
  return std::ldexp(static_cast<T>(kept), static_cast<int>(exponent + drop));
}

// The real |dot| / sqrt(qq * dd) as a fraction of integers, compared with midpoints of floats.
class CosineMagnitude {
 public:
  // All three of one weight; qq and dd positive.
  CosineMagnitude(const BigUint& dot, const BigUint& qq, const BigUint& dd)
      : dot_squared_(Multiply(dot, dot)), norms_(Multiply(qq, dd)) {
    // An estimate good to about 2^-50: leading 64 bits of each.
    const auto leading = [](const BigUint& value, int64_t& exponent) {
      const int64_t length = BitLength(value);
      exponent = length - 64;
      const BigUint top = exponent < 0 ? ShiftLeft(value, -exponent) : ShiftRight(value, exponent);
      return static_cast<double>(top.empty() ? 0 : top[0]);
    };
    int64_t dot_exponent = 0;
    int64_t norm_exponent = 0;
    const double dot_lead = leading(dot_squared_, dot_exponent);
    const double norm_lead = leading(norms_, norm_exponent);
    double ratio = dot_lead / norm_lead;
    int64_t exponent = dot_exponent - norm_exponent;
    if (exponent % 2 != 0) {
      ratio *= 2;
      exponent -= 1;
    }
    estimate_ = std::ldexp(std::sqrt(ratio), static_cast<int>(exponent / 2));
  }

  double estimate() const { return estimate_; }

  // -1, 0, 1 as the real value is below, at, above mantissa * 2^exponent (mantissa below 2^63).
  int CompareWith(uint64_t mantissa, int exponent) const {
    const BigUint m = {mantissa};
    BigUint right = Multiply(Multiply(m, m), norms_);
    if (exponent < 0) return Compare(ShiftLeft(dot_squared_, -2 * int64_t{exponent}), right);
    return Compare(dot_squared_, ShiftLeft(right, 2 * int64_t{exponent}));
  }

 private:
  static BigUint ShiftRight(const BigUint& value, int64_t bits) {
    const size_t limbs = static_cast<size_t>(bits / 64);
    const int rest = static_cast<int>(bits % 64);
    BigUint shifted;
    for (size_t i = limbs; i < value.size(); ++i) {
      const uint64_t above = i + 1 < value.size() ? value[i + 1] : 0;
      shifted.push_back(rest == 0 ? value[i] : value[i] >> rest | above << (64 - rest));
    }
    Trim(shifted);
    return shifted;
  }

  BigUint dot_squared_;
  BigUint norms_;
  double estimate_ = 0;
};

// The T nearest to the real value, ties to even, starting from its estimate.
template <typename T>
T RoundCosine(const CosineMagnitude& real) {
  T result = static_cast<T>(real.estimate());
  while (true) {
    const FloatParts parts = TakeApart(result);
    // The midpoint to the next float up is (2 m + 1) * 2^(e - 1), in every binade.
    const int above = real.CompareWith(2 * parts.mantissa + 1, parts.exponent - 1);
    const bool odd = (parts.mantissa & 1) != 0;
    if (above > 0 || (above == 0 && odd)) {
      result = std::nextafter(result, std::numeric_limits<T>::infinity());
      continue;
    }
    if (result == 0) return result;
    const FloatParts below_parts = TakeApart(std::nextafter(result, T{0}));
    const int below = real.CompareWith(2 * below_parts.mantissa + 1, below_parts.exponent - 1);
    if (below < 0 || (below == 0 && odd)) {
      result = std::nextafter(result, T{0});
      continue;
    }
    return result;
  }
}

template <typename T>
BigUint ToBigUint(const ExactSum<T>& sum) {
  const auto limbs = sum.Magnitude();
  BigUint value(limbs.begin(), limbs.end());
  Trim(value);
  return value;
}

template <typename T>
ExactSum<T> ExactDot(const T* a, const T* b, int64_t dim) {
  ExactSum<T> sum;
  for (int64_t j = 0; j < dim; ++j) sum.AddProduct(a[j], b[j]);
  return sum;
}

template <typename T>
T RoundSum(const ExactSum<T>& sum, bool negate) {
  const auto magnitude = sum.Magnitude();
  const T rounded = RoundMagnitude<T>(magnitude, ExactSum<T>::kLowestExponent);
  if (rounded == 0) return T{0};
  return sum.IsNegative() != negate ? -rounded : rounded;
}

template <typename T>
T ExactCosine(const T* q, const T* d, int64_t dim) {
  if (!IsFiniteRow(q, dim) || !IsFiniteRow(d, dim)) return CanonicalNan<T>();
  const ExactSum<T> dot = ExactDot(q, d, dim);
  const BigUint dot_magnitude = ToBigUint(dot);
  const BigUint qq = ToBigUint(ExactDot(q, q, dim));
  const BigUint dd = ToBigUint(ExactDot(d, d, dim));
  if (qq.empty() || dd.empty() || dot_magnitude.empty()) return T{0};
  const T magnitude = RoundCosine<T>(CosineMagnitude(dot_magnitude, qq, dd));
  if (magnitude == 0) return T{0};
  return dot.IsNegative() ? -magnitude : magnitude;
}

// What IEEE arithmetic makes of the terms when some are not finite: it does not depend on their
// order as long as no finite sum overflows, so only the infinite and NaN terms are summed.
template <typename T>
T SumOfNonFiniteTerms(Metric metric, const T* q, const T* d, int64_t dim) {
  T sum = 0;
  for (int64_t j = 0; j < dim; ++j) {
    if (std::isfinite(q[j]) && std::isfinite(d[j])) continue;
    const T difference = q[j] - d[j];
    sum += metric == Metric::kL2 ? -(difference * difference) : q[j] * d[j];
  }
  return std::isnan(sum) ? CanonicalNan<T>() : sum;
}

}  // namespace

template <typename T>
T ExactScore(Metric metric, const T* q, const T* d, int64_t dim) {
  if (metric == Metric::kCosine) return ExactCosine(q, d, dim);
  if (!IsFiniteRow(q, dim) || !IsFiniteRow(d, dim)) return SumOfNonFiniteTerms(metric, q, d, dim);
  if (metric == Metric::kInnerProduct) return RoundSum(ExactDot(q, d, dim), false);
  // (q - d)^2 = q^2 - 2 q d + d^2, every term an exact product.
  ExactSum<T> sum;
  for (int64_t j = 0; j < dim; ++j) {
    sum.AddProduct(q[j], q[j]);
    sum.AddProduct(d[j], d[j]);
    sum.AddProduct(q[j], d[j], /*subtract=*/true, /*doublings=*/1);
  }
  return RoundSum(sum, /*negate=*/true);
}

template float ExactScore<float>(Metric, const float*, const float*, int64_t);
template double ExactScore<double>(Metric, const double*, const double*, int64_t);

}  // namespace tiny_knn
