// The oracle's arithmetic against an independent one: rationals of Boost.Multiprecision.
#include "core/search/exact_score.h"

#include <bit>
#include <boost/multiprecision/cpp_int.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using Rational = boost::multiprecision::cpp_rational;
using Integer = boost::multiprecision::cpp_int;

template <typename T>
Rational Exactly(T value) {
  int exponent = 0;
  const double fraction = std::frexp(static_cast<double>(value), &exponent);
  const Rational mantissa = static_cast<int64_t>(std::ldexp(fraction, 53));
  exponent -= 53;
  const Integer power = Integer(1) << std::abs(exponent);
  return exponent < 0 ? Rational(mantissa / power) : Rational(mantissa * power);
}

template <typename T>
using Bits = std::conditional_t<std::is_same_v<T, double>, uint64_t, uint32_t>;

template <typename T>
Bits<T> BitsOf(T value) {
  return std::bit_cast<Bits<T>>(value);
}

// Whether `rounded` is the T nearest to `real`, ties to even, by the definition: the real lies
// between the midpoints to both neighbours, and on one of them only if `rounded` is even.
template <typename T>
testing::AssertionResult IsNearest(T rounded, const Rational& real) {
  const T infinity = std::numeric_limits<T>::infinity();
  if (rounded == 0 && BitsOf(rounded) != 0) return testing::AssertionFailure() << "minus zero";
  const auto with_neighbour = [&](T neighbour) {
    // Past the largest finite number, rounding behaves as if the next power of two were one.
    const Rational limit = Exactly(std::numeric_limits<T>::max()) +
                           Exactly(std::numeric_limits<T>::max()) -
                           Exactly(std::nextafter(std::numeric_limits<T>::max(), T{0}));
    const auto value = [&](T x) {
      if (std::isinf(x)) return x > 0 ? limit : Rational(-limit);
      return Exactly(x);
    };
    return Rational((value(rounded) + value(neighbour)) / 2);
  };
  const bool odd = (BitsOf(rounded) & 1) != 0;
  if (rounded != infinity) {
    const Rational above = with_neighbour(std::nextafter(rounded, infinity));
    if (real > above || (real == above && odd)) {
      return testing::AssertionFailure() << rounded << " is too small";
    }
  }
  if (rounded != -infinity) {
    const Rational below = with_neighbour(std::nextafter(rounded, -infinity));
    if (real < below || (real == below && odd)) {
      return testing::AssertionFailure() << rounded << " is too great";
    }
  }
  return testing::AssertionSuccess();
}

template <typename T>
Rational RealDot(const std::vector<T>& a, const std::vector<T>& b) {
  Rational sum = 0;
  for (size_t j = 0; j < a.size(); ++j) sum += Exactly(a[j]) * Exactly(b[j]);
  return sum;
}

template <typename T>
void CheckPair(const std::vector<T>& q, const std::vector<T>& d) {
  const int64_t dim = static_cast<int64_t>(q.size());
  const Rational dot = RealDot(q, d);
  const Rational qq = RealDot(q, q);
  const Rational dd = RealDot(d, d);
  EXPECT_TRUE(IsNearest(ExactScore(Metric::kInnerProduct, q.data(), d.data(), dim), dot));
  const Rational distance = qq - 2 * dot + dd;
  EXPECT_TRUE(IsNearest(ExactScore(Metric::kL2, q.data(), d.data(), dim), Rational(-distance)));
  const T cosine = ExactScore(Metric::kCosine, q.data(), d.data(), dim);
  if (qq == 0 || dd == 0) {
    EXPECT_EQ(BitsOf(cosine), 0U);
    return;
  }
  // cosine^2 against the squared midpoints around |cosine|.
  const Rational square = dot * dot / (qq * dd);
  EXPECT_EQ(cosine < 0, cosine != 0 && dot < 0);
  const T magnitude = std::abs(cosine);
  const T up = std::nextafter(magnitude, T{2});
  const Rational above = (Exactly(magnitude) + Exactly(up)) / 2;
  const bool odd = (BitsOf(magnitude) & 1) != 0;
  EXPECT_TRUE(odd ? square < above * above : square <= above * above) << cosine;
  if (magnitude != 0) {
    const Rational below = (Exactly(magnitude) + Exactly(std::nextafter(magnitude, T{0}))) / 2;
    EXPECT_TRUE(odd ? square > below * below : square >= below * below) << cosine;
  }
}

template <typename T>
class ExactScoreTest : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(ExactScoreTest, Types);

TYPED_TEST(ExactScoreTest, EqualsRationalArithmeticOnRandomBitPatterns) {
  using T = TypeParam;
  std::mt19937_64 random(1);
  for (int round = 0; round < 300; ++round) {
    const size_t dim = 1 + random() % 9;
    std::vector<T> q(dim);
    std::vector<T> d(dim);
    for (std::vector<T>* row : {&q, &d}) {
      for (T& value : *row) {
        do {
          value = std::bit_cast<T>(static_cast<Bits<T>>(random()));
        } while (!std::isfinite(value));
      }
    }
    CheckPair(q, d);
  }
}

TYPED_TEST(ExactScoreTest, EqualsRationalArithmeticOnOrdinaryValues) {
  using T = TypeParam;
  std::mt19937_64 random(2);
  std::normal_distribution<double> normal;
  for (int round = 0; round < 200; ++round) {
    std::vector<T> q(1 + random() % 40);
    std::vector<T> d(q.size());
    for (T& value : q) value = static_cast<T>(normal(random));
    for (T& value : d) value = static_cast<T>(normal(random));
    CheckPair(q, d);
  }
}

TYPED_TEST(ExactScoreTest, BreaksTiesToEven) {
  using T = TypeParam;
  // 1 + half an ulp and 1 + one and a half ulps lie midway between two numbers.
  const T ulp = std::numeric_limits<T>::epsilon();
  const std::vector<T> ones = {1, 1};
  CheckPair<T>(ones, {1, ulp / 2});
  CheckPair<T>(ones, {1 + ulp, ulp / 2});
  const std::vector<T> first = {1, ulp / 2};
  EXPECT_EQ(ExactScore(Metric::kInnerProduct, ones.data(), first.data(), 2), T{1});
  const std::vector<T> second = {1 + ulp, ulp / 2};
  EXPECT_EQ(ExactScore(Metric::kInnerProduct, ones.data(), second.data(), 2), 1 + 2 * ulp);
}

TYPED_TEST(ExactScoreTest, KeepsWhatIsLeftAfterCancellation) {
  using T = TypeParam;
  const T huge = std::ldexp(T{1}, std::numeric_limits<T>::max_exponent - 1);
  const T tiny = std::numeric_limits<T>::denorm_min();
  const std::vector<T> q = {huge, huge, 1};
  const std::vector<T> d = {1, -1, tiny};
  EXPECT_EQ(ExactScore(Metric::kInnerProduct, q.data(), d.data(), 3), tiny);
  CheckPair(q, d);
}

TYPED_TEST(ExactScoreTest, OverflowsToInfinityAndUnderflowsToPlusZero) {
  using T = TypeParam;
  const T huge = std::numeric_limits<T>::max();
  const T tiny = std::numeric_limits<T>::denorm_min();
  const std::vector<T> q = {huge};
  const std::vector<T> minus = {-huge};
  EXPECT_EQ(ExactScore(Metric::kInnerProduct, q.data(), minus.data(), 1),
            -std::numeric_limits<T>::infinity());
  EXPECT_EQ(ExactScore(Metric::kCosine, q.data(), minus.data(), 1), T{-1});
  const std::vector<T> small = {tiny};
  const std::vector<T> minus_small = {-tiny};
  EXPECT_EQ(BitsOf(ExactScore(Metric::kInnerProduct, small.data(), minus_small.data(), 1)), 0U);
  EXPECT_EQ(BitsOf(ExactScore(Metric::kL2, small.data(), small.data(), 1)), 0U);
}

TYPED_TEST(ExactScoreTest, FollowsTheContractForNonFiniteRows) {
  using T = TypeParam;
  const T inf = std::numeric_limits<T>::infinity();
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const Bits<T> canonical = BitsOf(CanonicalNan<T>());
  const auto bits = [](Metric metric, std::vector<T> q, std::vector<T> d) {
    return BitsOf(ExactScore(metric, q.data(), d.data(), static_cast<int64_t>(q.size())));
  };
  EXPECT_EQ(bits(Metric::kInnerProduct, {inf, 1}, {2, 1}), BitsOf(inf));
  EXPECT_EQ(bits(Metric::kInnerProduct, {inf, 1}, {-2, 1}), BitsOf(-inf));
  EXPECT_EQ(bits(Metric::kInnerProduct, {inf, 1}, {0, 1}), canonical);
  EXPECT_EQ(bits(Metric::kInnerProduct, {inf, inf}, {1, -1}), canonical);
  EXPECT_EQ(bits(Metric::kInnerProduct, {nan, 1}, {1, 1}), canonical);
  EXPECT_EQ(bits(Metric::kInnerProduct, {std::copysign(nan, T{-1}), 1}, {1, 1}), canonical);
  EXPECT_EQ(bits(Metric::kL2, {inf, 1}, {1, 1}), BitsOf(-inf));
  EXPECT_EQ(bits(Metric::kL2, {inf, 1}, {inf, 1}), canonical);
  EXPECT_EQ(bits(Metric::kCosine, {inf, 1}, {1, 1}), canonical);
  EXPECT_EQ(bits(Metric::kCosine, {0, 0}, {1, nan}), canonical);
  EXPECT_EQ(bits(Metric::kCosine, {0, 0}, {1, 1}), 0U);
}

}  // namespace
}  // namespace tiny_knn
