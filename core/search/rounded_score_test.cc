// The fast path against exact arithmetic, bit for bit, on inputs chosen to reach every step.
#include "core/search/rounded_score.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

#include "core/matrix/dtype.h"
#include "core/matrix/stored_elements.h"
#include "core/search/exact_score.h"
#include "core/search/float_environment.h"
#include "core/search/isa.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

constexpr Metric kMetrics[] = {Metric::kInnerProduct, Metric::kCosine, Metric::kL2};

template <typename T>
void CheckPair(const std::vector<T>& q, const std::vector<T>& d) {
  using Bits = std::conditional_t<std::is_same_v<T, double>, uint64_t, uint32_t>;
  const int64_t dim = static_cast<int64_t>(q.size());
  const std::vector<double> wide(q.begin(), q.end());
  const PreparedQuery<T> query = PrepareQuery(q.data(), wide.data(), dim);
  const std::vector<double> doc_wide(d.begin(), d.end());
  const double doc_norm = PrepareQuery(d.data(), doc_wide.data(), dim).norm;
  for (const Metric metric : kMetrics) {
    const T fast = RoundedScore(metric, query, d.data(), doc_norm, dim);
    const T exact = ExactScore(metric, q.data(), d.data(), dim);
    EXPECT_EQ(std::bit_cast<Bits>(fast), std::bit_cast<Bits>(exact))
        << MetricName(metric) << " dim " << dim << ": " << fast << " is not " << exact;
  }
}

// Every test runs at every level of instruction set that the machine has.
template <typename T>
class RoundedScoreTest : public testing::Test {
 protected:
  template <typename Make>
  void CheckRandom(int rounds, Make make) {
    const ScopedFloatEnvironment environment;
    for (const IsaLevel level : kIsaLevels) {
      if (static_cast<int>(level) > static_cast<int>(BestIsaLevel())) continue;
      ASSERT_TRUE(ForceIsaLevelForTest(level).ok());
      std::mt19937_64 random(7);
      for (int round = 0; round < rounds; ++round) {
        std::vector<T> q(1 + random() % 200);
        std::vector<T> d(q.size());
        make(random, q, d);
        CheckPair(q, d);
      }
    }
  }
};

using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(RoundedScoreTest, Types);

TYPED_TEST(RoundedScoreTest, EqualsExactArithmeticOnGaussianRows) {
  this->CheckRandom(1000, [](auto& random, auto& q, auto& d) {
    std::normal_distribution<TypeParam> normal;
    for (auto& value : q) value = normal(random);
    for (auto& value : d) value = normal(random);
  });
}

TYPED_TEST(RoundedScoreTest, EqualsExactArithmeticOnIntegersWhoseSumsLieBetweenFloats) {
  this->CheckRandom(1000, [](auto& random, auto& q, auto& d) {
    for (auto& value : q) value = static_cast<TypeParam>(random() % 65536);
    for (auto& value : d) value = static_cast<TypeParam>(random() % 65536);
  });
}

TYPED_TEST(RoundedScoreTest, EqualsExactArithmeticUnderCancellation) {
  this->CheckRandom(1000, [](auto& random, auto& q, auto& d) {
    std::normal_distribution<TypeParam> normal;
    for (auto& value : q) value = normal(random);
    d = q;
    const size_t half = d.size() / 2;
    for (size_t j = 0; j < half; ++j) {
      q[half + j] = q[j];
      d[half + j] = -d[j];
    }
    d[0] = std::nextafter(d[0], TypeParam{100});
  });
}

TYPED_TEST(RoundedScoreTest, EqualsExactArithmeticAcrossTheExponentRange) {
  this->CheckRandom(1000, [](auto& random, auto& q, auto& d) {
    std::normal_distribution<TypeParam> normal;
    using Limits = std::numeric_limits<TypeParam>;
    const int span = Limits::max_exponent - Limits::min_exponent + Limits::digits;
    const auto wild = [&] {
      return std::ldexp(normal(random), static_cast<int>(random() % static_cast<unsigned>(span)) +
                                            Limits::min_exponent - Limits::digits);
    };
    for (auto& value : q) value = wild();
    for (auto& value : d) value = wild();
  });
}

TYPED_TEST(RoundedScoreTest, EqualsExactArithmeticOnSparseAndNonFiniteRows) {
  this->CheckRandom(2000, [](auto& random, auto& q, auto& d) {
    const TypeParam specials[] = {0,
                                  -TypeParam{0},
                                  1,
                                  std::numeric_limits<TypeParam>::denorm_min(),
                                  std::numeric_limits<TypeParam>::max(),
                                  -std::numeric_limits<TypeParam>::max(),
                                  std::numeric_limits<TypeParam>::infinity(),
                                  -std::numeric_limits<TypeParam>::infinity(),
                                  std::numeric_limits<TypeParam>::quiet_NaN()};
    const size_t kinds = 1 + random() % 9;
    for (auto& value : q) value = random() % 3 == 0 ? specials[random() % kinds] : TypeParam{0};
    for (auto& value : d) value = random() % 3 == 0 ? specials[random() % kinds] : TypeParam{0};
  });
}

TYPED_TEST(RoundedScoreTest, EqualsExactArithmeticOneUlpApart) {
  this->CheckRandom(1000, [](auto& random, auto& q, auto& d) {
    using T = TypeParam;
    // Sums just above, at and below the midpoint of two neighbours.
    const T ulp = std::numeric_limits<T>::epsilon();
    for (auto& value : q) value = 1;
    for (auto& value : d) value = 0;
    d[0] = 1 + ulp * static_cast<T>(random() % 4);
    if (d.size() > 1) d[1] = ulp / 2;
    if (d.size() > 2) d[2] = (static_cast<T>(random() % 3) - 1) * ulp * ulp;
  });
}

// Rows as files store them, several at a time, against one row of float32 at a time.
TEST(RoundedScoresTest, EqualOneScoreAtATimeForEveryStoredDType) {
  const ScopedFloatEnvironment environment;
  constexpr DType kStored[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kInt8,
                               DType::kUInt8};
  for (const IsaLevel level : kIsaLevels) {
    if (static_cast<int>(level) > static_cast<int>(BestIsaLevel())) continue;
    ASSERT_TRUE(ForceIsaLevelForTest(level).ok());
    std::mt19937_64 random(3);
    for (int round = 0; round < 300; ++round) {
      const DType stored = kStored[random() % std::size(kStored)];
      const size_t dim = 1 + random() % 90;
      const int64_t count = 1 + static_cast<int64_t>(random() % kMostRoundedScores);
      std::vector<float> q(dim);
      // Bytes of any kind but for float32, where most would be of wild exponents.
      for (float& value : q) value = static_cast<float>(random() % 4096) - 2048.F;
      const std::vector<double> wide(q.begin(), q.end());
      const PreparedQuery<float> query =
          PrepareQuery(q.data(), wide.data(), static_cast<int64_t>(dim));
      const size_t row_bytes = dim * static_cast<size_t>(ItemSize(stored));
      std::vector<std::vector<char>> rows(static_cast<size_t>(count));
      std::vector<const void*> pointers;
      std::vector<double> norms;
      std::vector<std::vector<float>> values(rows.size(), std::vector<float>(dim));
      for (size_t i = 0; i < rows.size(); ++i) {
        rows[i].resize(row_bytes);
        for (char& byte : rows[i]) byte = static_cast<char>(random());
        if (stored == DType::kFloat32) {
          for (size_t j = 0; j < dim; ++j) values[i][j] = q[j] * static_cast<float>(random() % 3);
          std::memcpy(rows[i].data(), values[i].data(), row_bytes);
        }
        WidenRow(rows[i].data(), stored, static_cast<int64_t>(dim), values[i].data());
        pointers.push_back(rows[i].data());
        const std::vector<double> doc_wide(values[i].begin(), values[i].end());
        norms.push_back(
            PrepareQuery(values[i].data(), doc_wide.data(), static_cast<int64_t>(dim)).norm);
      }
      for (const Metric metric : kMetrics) {
        std::vector<float> scratch;
        std::vector<float> scores(rows.size());
        RoundedScores(metric, query, pointers.data(), stored, norms.data(), count,
                      static_cast<int64_t>(dim), scratch, scores.data());
        for (size_t i = 0; i < rows.size(); ++i) {
          const float expected =
              RoundedScore(metric, query, values[i].data(), norms[i], static_cast<int64_t>(dim));
          EXPECT_EQ(std::bit_cast<uint32_t>(scores[i]), std::bit_cast<uint32_t>(expected))
              << MetricName(metric) << ", " << DTypeName(stored) << ", dim " << dim << ", row "
              << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace tiny_knn
