// The int8 screen's bounds against exact arithmetic: what it drops and what it certifies must agree
// with every pair's correctly rounded score.
#include "core/cpu/int8_screen.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "core/cpu/score_tile_for_test.h"
#include "core/search/exact_score.h"
#include "core/search/float_environment.h"
#include "core/search/planner.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

constexpr int64_t kQueries = 13;  // two groups of the kernel and a rest
constexpr int64_t kDocs = 400;    // six panels and a rest

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
  // What codes leave of a query is what they leave of a doc: the errors of all dims add up.
  Rows same = all.front();
  for (size_t i = 0; i < same.docs.size(); ++i)
    same.docs[i] = same.queries[i % same.queries.size()];
  all.push_back(same);
  return all;
}

// For every pair: it survives a threshold made of its own score, so a tie would too, and its lower
// bound promises no more than the score; after it is refined, too. Returns the largest errors /
// bounds seen (ip).
struct WorstRatios {
  double coded = 0;
  double refined = 0;
};

WorstRatios CheckEveryPair(Metric metric, int64_t dim, int digits, const Rows& rows) {
  const std::vector<double> wide(rows.queries.begin(), rows.queries.end());
  std::vector<PreparedQuery<float>> queries;
  for (int64_t q = 0; q < kQueries; ++q) {
    queries.push_back(PrepareQuery(rows.queries.data() + q * dim, wide.data() + q * dim, dim));
  }
  Int8Screen screen({.k = 1, .metric = metric}, dim, kDocs, digits);
  screen.SetQueries(queries);
  const MatrixView docs{rows.docs.data(), DType::kFloat32, kDocs, dim,
                        dim * int64_t{sizeof(float)}};
  screen.StartChunk(docs, {});
  screen.SetBlock(docs, {});
  DocBoundArrays bounds(kDocs, ScreenKind::kInt8Codes, metric);
  PrepareCounts counts;
  EXPECT_TRUE(screen.PrepareDocs({0, kDocs}, 0, 0, bounds, counts).ok());
  std::vector<float> scores(static_cast<size_t>(kQueries * kDocs));
  ScoreWholeTile(screen, {0, kQueries}, {0, kDocs}, bounds, scores.data(), kDocs);
  const ChunkRows<float> chunk_rows(docs, DType::kFloat32);
  std::vector<int32_t> all_docs(static_cast<size_t>(kDocs));
  std::iota(all_docs.begin(), all_docs.end(), 0);
  std::vector<const void*> all_rows;
  for (const int32_t doc : all_docs) all_rows.push_back(chunk_rows.StoredRow(doc));
  std::vector<float> refined(all_docs.size());
  CandidateRefiner<float>::Scratch scratch;
  WorstRatios worst;
  const auto note = [&](double& ratio, float score, float exact, double bound) {
    if (metric != Metric::kInnerProduct || !std::isfinite(bound) || bound <= 0x1p-90) return;
    ratio =
        std::max(ratio, std::abs(static_cast<double>(score) - static_cast<double>(exact)) / bound);
  };
  for (int64_t q = 0; q < kQueries; ++q) {
    EXPECT_EQ(screen.candidates_are_coded(), digits == 2);
    EXPECT_EQ(screen.refiner() == nullptr, digits == 2);
    const float factor = screen.CandidateErrorFactor(q);
    if (digits == 1) {
      screen.refiner()->RefineScores(q, all_docs, all_rows.data(), chunk_rows, bounds, scratch,
                                     refined.data());
      // Many at once are as many one by one; a threshold in the middle keeps about half.
      QueryBounds query{0, factor, 0};
      std::vector<float> sorted = refined;
      std::nth_element(sorted.begin(), sorted.begin() + kDocs / 2, sorted.end());
      query.threshold = sorted[static_cast<size_t>(kDocs / 2)];
      std::vector<float> lowers(all_docs.size() + kCandidatePadding);
      std::vector<int32_t> kept_docs(lowers.size());
      const int64_t kept = FilterScoresOf(all_docs.data(), refined.data(), kDocs, query,
                                          bounds.CandidatesAt(0), lowers.data(), kept_docs.data());
      int64_t expected = 0;
      for (int32_t d = 0; d < kDocs; ++d) {
        float lower = 0;
        int32_t doc = 0;
        if (FilterScoresOf(&d, &refined[static_cast<size_t>(d)], 1, query, bounds.CandidatesAt(0),
                           &lower, &doc) == 0) {
          continue;
        }
        if (expected < kept) {
          EXPECT_EQ(kept_docs[static_cast<size_t>(expected)], d);
        }
        // Bounds in float32, no scores: vectors fuse the last operations, which one by one need not
        // be, so a few roundings of each of the two terms may differ.
        const float seen = lowers[static_cast<size_t>(expected)];
        if (std::isfinite(lower)) {
          const size_t at = static_cast<size_t>(d);
          const float terms = std::abs(refined[at]) + factor * bounds.norm[at];
          EXPECT_NEAR(seen, lower, (terms + std::abs(bounds.lower_offset[at])) * 0x1p-21F);
        }
        ++expected;
      }
      EXPECT_EQ(kept, expected);
    }
    for (int64_t d = 0; d < kDocs; ++d) {
      const float exact =
          ExactScore(metric, rows.queries.data() + q * dim, rows.docs.data() + d * dim, dim);
      QueryBounds query = screen.InitialBounds(q);
      query.threshold = screen.ThresholdFor(q, exact);
      const float* const score = scores.data() + q * kDocs + d;
      float lower[kCandidatePadding + 1];
      int32_t doc[kCandidatePadding + 1];
      const FilterResult kept = FilterAll(score, 1, query, bounds.At(d), lower, doc, 1);
      EXPECT_EQ(kept.kept, 1) << MetricName(metric) << " dim " << dim;
      if (kept.kept != 1) continue;
      EXPECT_LE(screen.CertainScore(q, lower[0]), exact) << MetricName(metric) << " dim " << dim;
      const bool bypasses = std::isinf(bounds.upper_offset[static_cast<size_t>(d)]);
      if (!bypasses) note(worst.coded, *score, exact, bounds.ErrorOf(d, query));
      if (digits == 2) continue;
      const float refined_score = refined[static_cast<size_t>(d)];
      const int32_t candidate = static_cast<int32_t>(d);
      EXPECT_EQ(FilterScoresOf(&candidate, &refined_score, 1, {query.threshold, factor, 0},
                               bounds.CandidatesAt(0), lower, doc),
                1)
          << "refined, " << MetricName(metric) << " dim " << dim;
      EXPECT_LE(screen.CertainScore(q, lower[0]), exact)
          << "refined, " << MetricName(metric) << " dim " << dim;
      const double norm = static_cast<double>(bounds.norm[static_cast<size_t>(d)]);
      if (!bypasses) note(worst.refined, refined_score, exact, static_cast<double>(factor) * norm);
    }
  }
  return worst;
}

WorstRatios CheckHardRows(int digits) {
  const ScopedFloatEnvironment environment;
  WorstRatios worst;
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    for (const int64_t dim : {1, 2, 3, 4, 17, 100, 768}) {
      for (const Rows& rows : HardRows(dim)) {
        const WorstRatios found = CheckEveryPair(metric, dim, digits, rows);
        worst.coded = std::max(worst.coded, found.coded);
        worst.refined = std::max(worst.refined, found.refined);
      }
    }
  }
  return worst;
}

TEST(Int8ScreenTest, TwoDigitsHoldForEveryPairOfHardRows) {
  const WorstRatios worst = CheckHardRows(2);
  fmt::print("two digits, largest error / bound: {:.4f}\n", worst.coded);
  EXPECT_GT(worst.coded, 0.5) << "the test's data no longer strain the bound";
  EXPECT_LT(worst.coded, 1);
}

TEST(Int8ScreenTest, HoldsForEveryPairOfHardRows) {
  const WorstRatios worst = CheckHardRows(1);
  fmt::print("largest error / bound: {:.4f}, refined {:.4f}\n", worst.coded, worst.refined);
  EXPECT_GT(worst.coded, 0.5) << "the test's data no longer strain the bound";
  EXPECT_LT(worst.coded, 1);
  EXPECT_GT(worst.refined, 0.05) << "the test's data no longer strain the bound of float32";
  EXPECT_LT(worst.refined, 1);
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
  Int8Screen screen({.k = 1}, dim, 2, 1);
  screen.SetQueries(queries);
  const MatrixView view{docs.data(), DType::kFloat32, 2, dim, dim * 4};
  screen.StartChunk(view, {});
  screen.SetBlock(view, {});
  DocBoundArrays bounds(2, ScreenKind::kInt8Codes, Metric::kInnerProduct);
  PrepareCounts counts;
  ASSERT_TRUE(screen.PrepareDocs({0, 2}, 0, 0, bounds, counts).ok());
  float scores[2];
  ScoreWholeTile(screen, {0, 1}, {0, 2}, bounds, scores, 2);
  EXPECT_EQ(scores[0], ExactScore(Metric::kInnerProduct, query.data(), docs.data(), dim));
  EXPECT_LT(bounds.ErrorOf(0, screen.InitialBounds(0)), 1e-4 * std::abs(scores[0]));
}

// Docs of an int8 file and a query of integers: nothing is left out, so what remains of the bound
// is the slack for rounding; a row outside the codes' range is coded as any other.
TEST(Int8ScreenTest, IntegersAreTheirOwnCodes) {
  const ScopedFloatEnvironment environment;
  constexpr int64_t kDim = 100;
  constexpr int64_t kIntegerDocs = 64;
  std::mt19937 random(11);
  std::vector<float> query(kDim);
  std::vector<int8_t> docs(kIntegerDocs * kDim);
  for (float& value : query) value = static_cast<float>(static_cast<int>(random() % 255) - 127);
  for (int8_t& value : docs) value = static_cast<int8_t>(static_cast<int>(random() % 201) - 100);
  docs[0] = -128;
  const std::vector<double> wide(query.begin(), query.end());
  const std::vector<PreparedQuery<float>> queries = {PrepareQuery(query.data(), wide.data(), kDim)};
  for (const Metric metric : {Metric::kInnerProduct, Metric::kL2, Metric::kCosine}) {
    Int8Screen screen({.k = 1, .metric = metric}, kDim, kIntegerDocs, 1);
    screen.SetQueries(queries);
    const MatrixView view{docs.data(), DType::kInt8, kIntegerDocs, kDim, kDim};
    screen.StartChunk(view, {});
    screen.SetBlock(view, {});
    DocBoundArrays bounds(kIntegerDocs, ScreenKind::kInt8Codes, metric);
    PrepareCounts counts;
    ASSERT_TRUE(screen.PrepareDocs({0, kIntegerDocs}, 0, 0, bounds, counts).ok());
    float scores[kIntegerDocs];
    ScoreWholeTile(screen, {0, 1}, {0, kIntegerDocs}, bounds, scores, kIntegerDocs);
    for (int64_t d = 1; d < kIntegerDocs; ++d) {
      const double error = bounds.ErrorOf(d, screen.InitialBounds(0));
      const double norms =
          queries[0].norm * static_cast<double>(bounds.norm[static_cast<size_t>(d)]);
      if (metric == Metric::kCosine) {  // rows of unit length are no integers
        EXPECT_GT(error, 0x1p-10);
        continue;
      }
      std::vector<float> doc(docs.begin() + d * kDim, docs.begin() + (d + 1) * kDim);
      EXPECT_EQ(scores[d], ExactScore(Metric::kInnerProduct, query.data(), doc.data(), kDim));
      EXPECT_LT(error, 0x1p-17 * norms + 1) << d;
    }
    // -128 less a centre near 0 may be no code.
    const double first = bounds.ErrorOf(0, screen.InitialBounds(0));
    EXPECT_TRUE(std::isfinite(first));
  }
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
  Int8Screen screen({.k = 1}, 2, 6, 1);
  screen.SetQueries(queries);
  const MatrixView view{docs.data(), DType::kFloat32, 6, 2, 8};
  screen.StartChunk(view.Slice(5, 6), {});  // its centre: (1, 1)
  screen.SetBlock(view, {});
  DocBoundArrays bounds(6, ScreenKind::kInt8Codes, Metric::kInnerProduct);
  PrepareCounts counts;
  ASSERT_TRUE(screen.PrepareDocs({0, 6}, 0, 0, bounds, counts).ok());
  EXPECT_EQ(counts.nonfinite_rows, 2);
  float scores[6];
  ScoreWholeTile(screen, {0, 1}, {0, 6}, bounds, scores, 6);
  float lower[kCandidatePadding + 64];
  int32_t doc[kCandidatePadding + 64];
  QueryBounds query = screen.InitialBounds(0);
  query.threshold = screen.ThresholdFor(0, 1e30F);
  const FilterResult kept = FilterAll(scores, 6, query, bounds.At(0), lower, doc, 64);
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
