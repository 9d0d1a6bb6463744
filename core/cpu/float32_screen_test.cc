// The screen's interval against exact arithmetic: it must hold the real value for every pair, and
// what it says of thresholds must agree with the rounded scores.
#include "core/cpu/float32_screen.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/search/exact_score.h"
#include "core/search/float_environment.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

constexpr int64_t kQueries = 7;
constexpr int64_t kDocs = 200;

struct Rows {
  std::vector<float> queries;
  std::vector<float> docs;
};

// Data that strains a bound: ordinary, of wild exponents, cancelling, with one huge dim, tiny.
std::vector<Rows> HardRows(int64_t dim) {
  std::mt19937_64 random(11);
  std::normal_distribution<float> normal;
  std::vector<Rows> all;
  const auto add = [&](auto value) {
    Rows rows;
    for (int64_t i = 0; i < kQueries * dim; ++i) rows.queries.push_back(value(i % dim));
    for (int64_t i = 0; i < kDocs * dim; ++i) rows.docs.push_back(value(i % dim));
    all.push_back(rows);
  };
  add([&](int64_t) { return normal(random); });
  add([&](int64_t) { return 1.0F + normal(random) * 0x1p-20F; });
  add([&](int64_t j) { return (j % 2 == 0 ? 1.0F : -1.0F) + normal(random) * 0x1p-22F; });
  add([&](int64_t j) { return j == 0 ? 1e6F * normal(random) : normal(random); });
  add([&](int64_t) { return std::ldexp(normal(random), static_cast<int>(random() % 120) - 60); });
  add([&](int64_t) { return std::ldexp(normal(random), -70); });
  add([&](int64_t) { return std::ldexp(normal(random), -140); });
  return all;
}

class Float32ScreenTest : public testing::TestWithParam<Metric> {};

TEST_P(Float32ScreenTest, ItsIntervalHoldsTheScoreOfEveryPair) {
  const ScopedFloatEnvironment environment;
  const Metric metric = GetParam();
  double worst_ratio = 0;
  for (const int64_t dim : {1, 3, 17, 100, 768}) {
    for (const Rows& rows : HardRows(dim)) {
      const std::vector<double> wide(rows.queries.begin(), rows.queries.end());
      std::vector<PreparedQuery<float>> queries;
      for (int64_t q = 0; q < kQueries; ++q) {
        queries.push_back(PrepareQuery(rows.queries.data() + q * dim, wide.data() + q * dim, dim));
      }
      Float32Screen<float> screen({.k = 1, .metric = metric}, dim, kDocs);
      screen.SetQueries(queries);
      screen.SetBlock({rows.docs.data(), DType::kFloat32, kDocs, dim, dim * 4});
      DocBoundArrays bounds(kDocs);
      PrepareCounts counts;
      ASSERT_TRUE(screen.PrepareDocs({0, kDocs}, 0, 0, bounds, counts).ok());
      std::vector<float> scores(static_cast<size_t>(kQueries * kDocs));
      screen.ScoreTile({0, kQueries}, {0, kDocs}, scores.data(), kDocs);
      for (int64_t q = 0; q < kQueries; ++q) {
        for (int64_t d = 0; d < kDocs; ++d) {
          const float exact =
              ExactScore(metric, rows.queries.data() + q * dim, rows.docs.data() + d * dim, dim);
          // The doc's own score as threshold: it must survive, and so must its tie.
          const QueryBounds query{screen.ThresholdFor(q, exact), screen.ErrorFactor(q)};
          float lower[128];
          int32_t doc[128];
          const FilterResult kept =
              FilterScores(scores.data() + q * kDocs + d, 1, query, bounds.At(d), 0, lower, doc, 1);
          ASSERT_EQ(kept.kept, 1) << MetricName(metric) << " dim " << dim;
          // And its lower bound may not promise more than it has.
          ASSERT_LE(screen.CertainScore(q, lower[0]), exact)
              << MetricName(metric) << " dim " << dim;
          const double width = 2 * static_cast<double>(query.error_factor) *
                               static_cast<double>(bounds.norm[static_cast<size_t>(d)]);
          if (metric == Metric::kInnerProduct && std::isfinite(width) && width > 0x1p-100) {
            const double error =
                std::abs(static_cast<double>(scores[static_cast<size_t>(q * kDocs + d)]) -
                         static_cast<double>(exact));
            worst_ratio = std::max(worst_ratio, error / (width / 2));
          }
        }
      }
    }
  }
  if (metric == Metric::kInnerProduct) {
    fmt::print("largest error / bound: {:.4f}\n", worst_ratio);
    EXPECT_GT(worst_ratio, 0.001) << "the test's data no longer strain the bound";
  }
}

INSTANTIATE_TEST_SUITE_P(Metrics, Float32ScreenTest,
                         testing::Values(Metric::kInnerProduct, Metric::kCosine, Metric::kL2),
                         [](const auto& test) { return std::string(MetricName(test.param)); });

TEST(Float32ScreenTest, KeepsRowsThatItCannotBound) {
  const ScopedFloatEnvironment environment;
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> query_row = {1, 1};
  const std::vector<double> wide = {1, 1};
  const std::vector<float> docs = {inf, 0, std::nanf(""), 0, 3e38F, 3e38F, 1e25F, 0, 1, 1};
  const std::vector<PreparedQuery<float>> queries = {
      PrepareQuery(query_row.data(), wide.data(), 2)};
  Float32Screen<float> screen({.k = 1}, 2, 5);
  screen.SetQueries(queries);
  screen.SetBlock({docs.data(), DType::kFloat32, 5, 2, 8});
  DocBoundArrays bounds(5);
  PrepareCounts counts;
  ASSERT_TRUE(screen.PrepareDocs({0, 5}, 0, 0, bounds, counts).ok());
  EXPECT_EQ(counts.nonfinite_rows, 2);
  std::vector<float> scores(5);
  screen.ScoreTile({0, 1}, {0, 5}, scores.data(), 5);
  float lower[128];
  int32_t doc[128];
  const QueryBounds query{screen.ThresholdFor(0, 1e30F), screen.ErrorFactor(0)};
  const FilterResult kept = FilterScores(scores.data(), 5, query, bounds.At(0), 0, lower, doc, 64);
  // All but the ordinary row, none of them certain of anything.
  ASSERT_EQ(kept.kept, 4);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(doc[i], i);
    EXPECT_EQ(lower[i], -inf);
  }
}

}  // namespace
}  // namespace tiny_knn
