// The screen's bounds against exact arithmetic: what it drops and what it certifies must agree with
// every pair's correctly rounded score.
#include "core/cpu/float32_screen.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "core/cpu/few_queries_gemm.h"
#include "core/cpu/score_tile_for_test.h"
#include "core/search/exact_score.h"
#include "core/search/float_environment.h"
#include "core/search/planner.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

constexpr int64_t kQueries = 36;
constexpr int64_t kDocs = 100;
static_assert(kQueries > kFewQueries);

template <typename T>
struct Rows {
  std::vector<T> queries;
  std::vector<T> docs;
};

// Data that strains a bound: ordinary, of wild exponents, cancelling, with one huge dim, tiny.
template <typename T>
std::vector<Rows<T>> HardRows(int64_t dim) {
  std::mt19937_64 random(11);
  std::normal_distribution<T> normal;
  std::vector<Rows<T>> all;
  const auto add = [&](auto value) {
    Rows<T> rows;
    for (int64_t i = 0; i < kQueries * dim; ++i) rows.queries.push_back(value(i % dim));
    for (int64_t i = 0; i < kDocs * dim; ++i) rows.docs.push_back(value(i % dim));
    all.push_back(rows);
  };
  add([&](int64_t) { return normal(random); });
  add([&](int64_t) { return 1 + normal(random) * T{0x1p-20}; });
  add([&](int64_t j) { return (j % 2 == 0 ? T{1} : T{-1}) + normal(random) * T{0x1p-22}; });
  add([&](int64_t j) { return j == 0 ? 1'000'000 * normal(random) : normal(random); });
  add([&](int64_t) { return std::ldexp(normal(random), static_cast<int>(random() % 120) - 60); });
  add([&](int64_t) { return std::ldexp(normal(random), -70); });
  add([&](int64_t) { return std::ldexp(normal(random), -140); });
  add([&](int64_t) { return std::ldexp(normal(random), 61); });
  add([&](int64_t) { return std::ldexp(normal(random), 70); });
  return all;
}

// For every pair: it survives a threshold made of its own score, so a tie would too, and its lower
// bound promises no more than the score. Returns the largest error / bound seen (ip).
template <typename T>
double CheckEveryPair(Metric metric, int64_t dim, const Rows<T>& rows) {
  const DType dtype = std::is_same_v<T, double> ? DType::kFloat64 : DType::kFloat32;
  const std::vector<double> wide(rows.queries.begin(), rows.queries.end());
  std::vector<PreparedQuery<T>> queries;
  for (int64_t q = 0; q < kQueries; ++q) {
    queries.push_back(PrepareQuery(rows.queries.data() + q * dim, wide.data() + q * dim, dim));
  }
  Float32Screen<T> screen({.k = 1, .metric = metric, .compute_dtype = dtype}, dim, kDocs);
  screen.SetQueries(queries);
  screen.SetBlock({rows.docs.data(), dtype, kDocs, dim, dim * int64_t{sizeof(T)}}, {});
  DocBoundArrays bounds(kDocs, ScreenKind::kFloat32Gemm, Metric::kInnerProduct);
  PrepareCounts counts;
  EXPECT_TRUE(screen.PrepareDocs({0, kDocs}, 0, 0, bounds, counts).ok());
  // All at once, and few at a time: each is a kernel of its own.
  std::vector<float> scores(static_cast<size_t>(kQueries * kDocs));
  ScoreWholeTile(screen, {0, kQueries}, {0, kDocs}, bounds, scores.data(), kDocs);
  std::vector<float> scores_of_few(scores.size());
  for (int64_t q = 0; q < kQueries; q += kFewQueries) {
    ScoreWholeTile(screen, {q, std::min(q + kFewQueries, kQueries)}, {0, kDocs}, bounds,
                   scores_of_few.data() + q * kDocs, kDocs);
  }
  // And as few are scored in one pass with preparing the docs, which come from their own place.
  std::vector<float> scores_in_one_pass(scores.size());
  DocBoundArrays one_pass_bounds(kDocs + 1, ScreenKind::kFloat32Gemm, Metric::kInnerProduct);
  for (int64_t q = 0; q < kQueries; q += kFewQueries) {
    Float32Screen<T> few({.k = 1, .metric = metric, .compute_dtype = dtype}, dim, kDocs);
    const int64_t count = std::min(kFewQueries, kQueries - q);
    few.SetQueries({queries.data() + q, static_cast<size_t>(count)});
    EXPECT_TRUE(few.scores_in_one_pass());
    EXPECT_TRUE(few.PrepareAndScore({rows.docs.data(), dtype, kDocs, dim, dim * int64_t{sizeof(T)}},
                                    0, {}, 1, one_pass_bounds, counts,
                                    scores_in_one_pass.data() + q * kDocs, kDocs)
                    .ok());
  }
  EXPECT_FALSE(screen.scores_in_one_pass());
  double worst_ratio = 0;
  for (int64_t q = 0; q < kQueries; ++q) {
    for (int64_t d = 0; d < kDocs; ++d) {
      const T exact =
          ExactScore(metric, rows.queries.data() + q * dim, rows.docs.data() + d * dim, dim);
      QueryBounds query = screen.InitialBounds(q);
      query.threshold = screen.ThresholdFor(q, exact);
      const double bound = static_cast<double>(query.error_factor) *
                           static_cast<double>(bounds.norm[static_cast<size_t>(d)]);
      for (const std::vector<float>* all : {&scores, &scores_of_few, &scores_in_one_pass}) {
        const float* const score = all->data() + q * kDocs + d;
        const DocBounds doc_bounds =
            all == &scores_in_one_pass ? one_pass_bounds.At(1 + d) : bounds.At(d);
        float lower[kCandidatePadding + 1];
        int32_t doc[kCandidatePadding + 1];
        const FilterResult kept = FilterAll(score, 1, query, doc_bounds, lower, doc, 1);
        EXPECT_EQ(kept.kept, 1) << MetricName(metric) << " dim " << dim;
        if (kept.kept != 1) continue;
        EXPECT_LE(screen.CertainScore(q, lower[0]), exact) << MetricName(metric) << " dim " << dim;
        if (metric == Metric::kInnerProduct && std::isfinite(bound) && bound > 0x1p-100) {
          const double error = std::abs(static_cast<double>(*score) - static_cast<double>(exact));
          worst_ratio = std::max(worst_ratio, error / bound);
        }
      }
    }
  }
  return worst_ratio;
}

template <typename T>
class Float32ScreenBoundTest : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Float32ScreenBoundTest, Types);

TYPED_TEST(Float32ScreenBoundTest, HoldsForEveryPairOfHardRows) {
  const ScopedFloatEnvironment environment;
  double worst_ratio = 0;
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    for (const int64_t dim : {1, 3, 17, 100, 768}) {
      for (const Rows<TypeParam>& rows : HardRows<TypeParam>(dim)) {
        worst_ratio = std::max(worst_ratio, CheckEveryPair(metric, dim, rows));
      }
    }
  }
  fmt::print("largest error / bound: {:.4f}\n", worst_ratio);
  EXPECT_GT(worst_ratio, 0.05) << "the test's data no longer strain the bound";
  EXPECT_LT(worst_ratio, 1);
}

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
  screen.SetBlock({docs.data(), DType::kFloat32, 5, 2, 8}, {});
  DocBoundArrays bounds(5, ScreenKind::kFloat32Gemm, Metric::kInnerProduct);
  PrepareCounts counts;
  ASSERT_TRUE(screen.PrepareDocs({0, 5}, 0, 0, bounds, counts).ok());
  EXPECT_EQ(counts.nonfinite_rows, 2);
  std::vector<float> scores(5);
  ScoreWholeTile(screen, {0, 1}, {0, 5}, bounds, scores.data(), 5);
  QueryBounds query = screen.InitialBounds(0);
  query.threshold = screen.ThresholdFor(0, 1e30F);
  for (const bool one_pass : {false, true}) {
    if (one_pass) {
      bounds = DocBoundArrays(5, ScreenKind::kFloat32Gemm, Metric::kInnerProduct);
      ASSERT_TRUE(screen
                      .PrepareAndScore({docs.data(), DType::kFloat32, 5, 2, 8}, 0, {}, 0, bounds,
                                       counts, scores.data(), 5)
                      .ok());
      EXPECT_EQ(counts.nonfinite_rows, 4);
    }
    float lower[kCandidatePadding + 64];
    int32_t doc[kCandidatePadding + 64];
    const FilterResult kept = FilterAll(scores.data(), 5, query, bounds.At(0), lower, doc, 64);
    // All but the ordinary row, none of them certain of anything.
    ASSERT_EQ(kept.kept, 4);
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(doc[i], i);
      EXPECT_EQ(lower[i], -inf);
    }
  }
}

// What one pass writes, and where: docs of 16-bit floats, rows that are all the same one, and rows
// that are kept.
TEST(Float32ScreenTest, ScoresAndKeepsInOnePassWhatItPreparesAndScoresInTwo) {
  const ScopedFloatEnvironment environment;
  constexpr int64_t kDim = 5000;  // a few rows are converted at a time
  constexpr int64_t kNumDocs = 9;
  std::mt19937_64 random(5);
  std::vector<int8_t> docs(kNumDocs * kDim);
  for (int8_t& value : docs) value = static_cast<int8_t>(random() % 9) - 4;
  const std::vector<float> query_rows(2 * kDim, 3);
  const std::vector<double> wide(query_rows.begin(), query_rows.end());
  std::vector<PreparedQuery<float>> queries;
  for (int64_t q = 0; q < 2; ++q) {
    queries.push_back(PrepareQuery(query_rows.data() + q * kDim, wide.data() + q * kDim, kDim));
  }
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    for (const int64_t stride : {kDim, int64_t{0}}) {
      for (const bool keeps : {false, true}) {
        const MatrixView rows{docs.data(), DType::kInt8, kNumDocs, kDim, stride};
        Float32Screen<float> screen({.k = 1, .metric = metric}, kDim, kNumDocs);
        screen.SetQueries(queries);
        std::vector<float> kept_rows[2];
        KeptDocs kept[2];
        for (int i = 0; i < 2; ++i) {
          kept_rows[i].resize(kNumDocs * kDim);
          if (keeps) kept[i].rows = kept_rows[i].data();
        }
        DocBoundArrays bounds(kNumDocs, ScreenKind::kFloat32Gemm, metric);
        DocBoundArrays bounds_of_one(kNumDocs + 2, ScreenKind::kFloat32Gemm, metric);
        std::vector<float> scores(2 * kNumDocs);
        std::vector<float> scores_of_one(2 * (kNumDocs + 3), -12345.F);
        PrepareCounts counts;
        screen.SetBlock(rows, kept[0]);
        ASSERT_TRUE(screen.PrepareDocs({0, kNumDocs}, 0, 0, bounds, counts).ok());
        ScoreWholeTile(screen, {0, 2}, {0, kNumDocs}, bounds, scores.data(), kNumDocs);
        ASSERT_TRUE(screen
                        .PrepareAndScore(rows, 0, kept[1], 2, bounds_of_one, counts,
                                         scores_of_one.data(), kNumDocs + 3)
                        .ok());
        EXPECT_EQ(kept_rows[0], kept_rows[1]);
        for (int64_t doc = 0; doc < kNumDocs; ++doc) {
          const DocBounds expected = bounds.At(doc);
          const DocBounds found = bounds_of_one.At(doc + 2);
          EXPECT_EQ(*found.norm, *expected.norm);
          EXPECT_EQ(*found.upper_offset, *expected.upper_offset);
          EXPECT_EQ(*found.lower_offset, *expected.lower_offset);
          for (int64_t q = 0; q < 2; ++q) {
            EXPECT_EQ(scores_of_one[static_cast<size_t>(q * (kNumDocs + 3) + doc)],
                      scores[static_cast<size_t>(q * kNumDocs + doc)]);
          }
        }
        EXPECT_EQ(scores_of_one[kNumDocs], -12345.F);
      }
    }
  }
}

TEST(Float32ScreenTest, SaysInOnePassWhichRowCannotBeConverted) {
  const ScopedFloatEnvironment environment;
  const std::vector<float> query_row = {1, 1};
  const std::vector<double> wide = {1, 1};
  const std::vector<int16_t> docs = {1, 2, 3, 400, 5, 6};
  Float32Screen<float> screen({.k = 1, .compute_dtype = DType::kInt8}, 2, 3);
  const std::vector<PreparedQuery<float>> queries = {
      PrepareQuery(query_row.data(), wide.data(), 2)};
  screen.SetQueries(queries);
  DocBoundArrays bounds(3, ScreenKind::kFloat32Gemm, Metric::kInnerProduct);
  PrepareCounts counts;
  std::vector<float> scores(3);
  const absl::Status status = screen.PrepareAndScore({docs.data(), DType::kInt16, 3, 2, 4}, 70, {},
                                                     0, bounds, counts, scores.data(), 3);
  EXPECT_NE(status.message().find("71"), std::string::npos) << status;
}

}  // namespace
}  // namespace tiny_knn
