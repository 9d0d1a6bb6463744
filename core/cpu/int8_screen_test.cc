// The int8 screen's bounds against exact arithmetic: what it drops and what it certifies must agree
// with every pair's correctly rounded score.
#include "core/cpu/int8_screen.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "core/search/exact_score.h"
#include "core/search/float_environment.h"
#include "core/search/planner.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

constexpr int64_t kQueries = 13;  // two groups of the kernel and a rest
constexpr int64_t kDocs = 200;    // three panels and a rest

struct Rows {
  std::vector<float> queries;
  std::vector<float> docs;
};

// Data that strains a bound: ordinary, far from the origin, of wild exponents, with one huge dim,
// sparse, at the edge of what has codes, and beyond.
std::vector<Rows> HardRows(int64_t dim) {
  std::mt19937_64 random(11);
  std::normal_distribution<float> normal;
  std::vector<Rows> all;
  const auto add = [&](const std::function<float(int64_t)>& value) {
    Rows rows;
    for (int64_t i = 0; i < kQueries * dim; ++i) rows.queries.push_back(value(i % dim));
    for (int64_t i = 0; i < kDocs * dim; ++i) rows.docs.push_back(value(i % dim));
    all.push_back(rows);
  };
  add([&](int64_t) { return normal(random); });
  add([&](int64_t) { return 1 + normal(random) * 0x1p-20F; });
  add([&](int64_t) { return 1e6F + normal(random); });
  add([&](int64_t j) { return (j % 2 == 0 ? 1.F : -1.F) + normal(random) * 0x1p-22F; });
  add([&](int64_t j) { return j == 0 ? 1e6F * normal(random) : normal(random); });
  add([&](int64_t) { return random() % 16 == 0 ? normal(random) : 0.F; });
  add([&](int64_t) { return static_cast<float>(random() % 255) - 127.F; });
  add([&](int64_t) { return std::ldexp(normal(random), static_cast<int>(random() % 60) - 30); });
  add([&](int64_t) { return std::ldexp(normal(random), -33); });
  add([&](int64_t) { return std::ldexp(normal(random), 33 + static_cast<int>(random() % 20)); });
  add([&](int64_t) { return std::ldexp(normal(random), -140); });
  return all;
}

// For every pair: it survives a threshold made of its own score, so a tie would too, and its lower
// bound promises no more than the score. Returns the largest error / bound seen (ip).
double CheckEveryPair(Metric metric, int64_t dim, const Rows& rows) {
  const std::vector<double> wide(rows.queries.begin(), rows.queries.end());
  std::vector<PreparedQuery<float>> queries;
  for (int64_t q = 0; q < kQueries; ++q) {
    queries.push_back(PrepareQuery(rows.queries.data() + q * dim, wide.data() + q * dim, dim));
  }
  Int8Screen screen({.k = 1, .metric = metric}, dim, kDocs);
  screen.SetQueries(queries);
  const MatrixView docs{rows.docs.data(), DType::kFloat32, kDocs, dim,
                        dim * int64_t{sizeof(float)}};
  EXPECT_TRUE(screen.StartChunk(docs, 0, {}).ok());
  screen.SetBlock(docs, {});
  DocBoundArrays bounds(kDocs, ScreenKind::kInt8Codes, metric);
  PrepareCounts counts;
  EXPECT_TRUE(screen.PrepareDocs({0, kDocs}, 0, 0, bounds, counts).ok());
  std::vector<float> scores(static_cast<size_t>(kQueries * kDocs));
  screen.ScoreTile({0, kQueries}, {0, kDocs}, scores.data(), kDocs);
  double worst_ratio = 0;
  for (int64_t q = 0; q < kQueries; ++q) {
    for (int64_t d = 0; d < kDocs; ++d) {
      const float exact =
          ExactScore(metric, rows.queries.data() + q * dim, rows.docs.data() + d * dim, dim);
      QueryBounds query = screen.InitialBounds(q);
      query.threshold = screen.ThresholdFor(q, exact);
      const float* const score = scores.data() + q * kDocs + d;
      float lower[kCandidatePadding + 1];
      int32_t doc[kCandidatePadding + 1];
      const FilterResult kept = FilterScores(score, 1, query, bounds.At(d), 0, lower, doc, 1);
      EXPECT_EQ(kept.kept, 1) << MetricName(metric) << " dim " << dim;
      if (kept.kept != 1) continue;
      EXPECT_LE(screen.CertainScore(q, lower[0]), exact) << MetricName(metric) << " dim " << dim;
      const double bound = bounds.ErrorOf(d, query);
      if (metric == Metric::kInnerProduct && std::isfinite(bound) && bound > 0x1p-90 &&
          std::isfinite(bounds.upper_offset[static_cast<size_t>(d)])) {
        const double error = std::abs(static_cast<double>(*score) - static_cast<double>(exact));
        worst_ratio = std::max(worst_ratio, error / bound);
      }
    }
  }
  return worst_ratio;
}

TEST(Int8ScreenTest, HoldsForEveryPairOfHardRows) {
  const ScopedFloatEnvironment environment;
  double worst_ratio = 0;
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    for (const int64_t dim : {1, 2, 3, 4, 17, 100, 768}) {
      for (const Rows& rows : HardRows(dim)) {
        worst_ratio = std::max(worst_ratio, CheckEveryPair(metric, dim, rows));
      }
    }
  }
  fmt::print("largest error / bound: {:.4f}\n", worst_ratio);
  EXPECT_GT(worst_ratio, 0.5) << "the test's data no longer strain the bound";
}

TEST(Int8ScreenTest, IntegersWithinItsRangeHaveNoErrorToSpeakOf) {
  const ScopedFloatEnvironment environment;
  const int64_t dim = 64;
  std::vector<float> query(static_cast<size_t>(dim), 1.F);
  std::vector<float> docs(static_cast<size_t>(2 * dim));
  for (int64_t j = 0; j < dim; ++j) {
    query[static_cast<size_t>(j)] = static_cast<float>(j % 2 == 0 ? 127 : -j);
    docs[static_cast<size_t>(j)] = static_cast<float>(j % 3 == 0 ? 127 : j);
    docs[static_cast<size_t>(dim + j)] = -docs[static_cast<size_t>(j)];  // so that the centre is 0
  }
  const std::vector<double> wide(query.begin(), query.end());
  const std::vector<PreparedQuery<float>> queries = {PrepareQuery(query.data(), wide.data(), dim)};
  Int8Screen screen({.k = 1}, dim, 2);
  screen.SetQueries(queries);
  const MatrixView view{docs.data(), DType::kFloat32, 2, dim, dim * 4};
  ASSERT_TRUE(screen.StartChunk(view, 0, {}).ok());
  screen.SetBlock(view, {});
  DocBoundArrays bounds(2, ScreenKind::kInt8Codes, Metric::kInnerProduct);
  PrepareCounts counts;
  ASSERT_TRUE(screen.PrepareDocs({0, 2}, 0, 0, bounds, counts).ok());
  float scores[2];
  screen.ScoreTile({0, 1}, {0, 2}, scores, 2);
  EXPECT_EQ(scores[0], ExactScore(Metric::kInnerProduct, query.data(), docs.data(), dim));
  EXPECT_LT(bounds.ErrorOf(0, screen.InitialBounds(0)), 1e-4 * std::abs(scores[0]));
}

TEST(Int8ScreenTest, KeepsRowsThatItCannotBound) {
  const ScopedFloatEnvironment environment;
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> query_row = {1, 1};
  const std::vector<double> wide = {1, 1};
  const std::vector<float> docs = {inf,    0, std::nanf(""), 0, 3e38F, 3e38F,
                                   1e-30F, 0, 1e20F,         0, 1,     1};
  const std::vector<PreparedQuery<float>> queries = {
      PrepareQuery(query_row.data(), wide.data(), 2)};
  Int8Screen screen({.k = 1}, 2, 6);
  screen.SetQueries(queries);
  const MatrixView view{docs.data(), DType::kFloat32, 6, 2, 8};
  ASSERT_TRUE(screen.StartChunk(view.Slice(5, 6), 0, {}).ok());  // its centre: (1, 1)
  screen.SetBlock(view, {});
  DocBoundArrays bounds(6, ScreenKind::kInt8Codes, Metric::kInnerProduct);
  PrepareCounts counts;
  ASSERT_TRUE(screen.PrepareDocs({0, 6}, 0, 0, bounds, counts).ok());
  EXPECT_EQ(counts.nonfinite_rows, 2);
  float scores[6];
  screen.ScoreTile({0, 1}, {0, 6}, scores, 6);
  float lower[kCandidatePadding + 64];
  int32_t doc[kCandidatePadding + 64];
  QueryBounds query = screen.InitialBounds(0);
  query.threshold = screen.ThresholdFor(0, 1e30F);
  const FilterResult kept = FilterScores(scores, 6, query, bounds.At(0), 0, lower, doc, 64);
  // Infinite, NaN, beyond the norms that are screened, and a scale beyond those of codes: kept, and
  // certain of nothing. The others are far below.
  ASSERT_EQ(kept.kept, 4);
  const int32_t expected[] = {0, 1, 2, 4};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(doc[i], expected[i]);
    EXPECT_EQ(lower[i], -inf);
  }
}

}  // namespace
}  // namespace tiny_knn
