#include "core/job/evaluate.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;

struct Rows {
  int64_t num_queries;
  std::vector<int64_t> indices;
  std::vector<double> scores;
  Ranking View() const {
    return {num_queries, num_queries == 0 ? 3 : static_cast<int64_t>(indices.size()) / num_queries,
            indices, scores};
  }
};

Evaluation Evaluated(const Rows& result, const Rows& truth, int64_t k) {
  const auto evaluation = Evaluate(result.View(), truth.View(), k);
  EXPECT_TRUE(evaluation.ok()) << evaluation.status();
  return evaluation.value_or(Evaluation{});
}

TEST(EvaluateTest, TheSameRankingIsAllFound) {
  const Rows rows{2, {4, 7, 1, 0, 2, 3}, {9, 8, 7, 6, 5, 4}};
  const Evaluation e = Evaluated(rows, rows, 3);
  EXPECT_EQ(e.found, 6);
  EXPECT_EQ(e.found_by_tie, 0);
  EXPECT_EQ(e.complete_queries, 2);
  EXPECT_EQ(e.identical_queries, 2);
  EXPECT_EQ(e.recall(), 1);
  EXPECT_EQ(e.lowest_recall, 1);
}

TEST(EvaluateTest, OrderWithinTheFirstKDoesNotCount) {
  const Rows truth{1, {4, 7, 1}, {9, 8, 7}}, result{1, {1, 4, 7}, {7, 9, 8}};
  const Evaluation e = Evaluated(result, truth, 3);
  EXPECT_EQ(e.recall(), 1);
  EXPECT_EQ(e.identical_queries, 0);
  EXPECT_EQ(Evaluated(result, truth, 1).found, 0);
}

TEST(EvaluateTest, WhatIsNotThereIsMissed) {
  const Rows truth{2, {4, 7, 1, 0, 2, 3}, {9, 8, 7, 6, 5, 4}};
  const Rows result{2, {4, 7, 1, 0, 9, 8}, {9, 8, 7, 6, 3, 3}};
  const Evaluation e = Evaluated(result, truth, 3);
  EXPECT_EQ(e.found, 4);
  EXPECT_EQ(e.complete_queries, 1);
  EXPECT_EQ(e.identical_queries, 1);
  EXPECT_EQ(e.lowest_recall, 1.0 / 3);
  EXPECT_EQ(e.lowest_query, 1);
}

TEST(EvaluateTest, DocsTiedWithRankKAreAsRight) {
  // The truth says so itself, further down.
  const Rows long_truth{1, {4, 7, 1, 5, 6}, {9, 7, 7, 7, 3}};
  const Rows other{1, {4, 5, 6}, {9, 1, 1}};
  const Evaluation e = Evaluated(other, long_truth, 2);
  EXPECT_EQ(e.found, 2);
  EXPECT_EQ(e.found_by_tie, 1);
  EXPECT_EQ(Evaluated(other, long_truth, 3).found, 2);
  // The truth ends at rank k, and the result's own score says so.
  const Rows truth{1, {4, 7}, {9, 7}};
  EXPECT_EQ(Evaluated({1, {4, 8}, {9, 7}}, truth, 2).found_by_tie, 1);
  EXPECT_EQ(Evaluated({1, {4, 8}, {9, 6}}, truth, 2).found, 1);
  // A score that would have been before rank k is not believed.
  EXPECT_EQ(Evaluated({1, {4, 8}, {9, 8}}, truth, 2).found, 1);
  EXPECT_EQ(Evaluated({1, {8}, {NAN}}, {1, {3}, {NAN}}, 1).found_by_tie, 1);
}

TEST(EvaluateTest, RepeatedDocsAndFillersDoNotCount) {
  const Rows truth{1, {4, 7, 1}, {9, 8, 7}};
  EXPECT_EQ(Evaluated({1, {4, 4, 4}, {9, 9, 9}}, truth, 3).found, 1);
  EXPECT_EQ(Evaluated({1, {8, 8, 8}, {7, 7, 7}}, truth, 3).found, 1);
  const Evaluation filled = Evaluated({1, {4, -1, -1}, {9, 7, 7}}, truth, 3);
  EXPECT_EQ(filled.found, 1);
  EXPECT_EQ(filled.found_by_tie, 0);
}

TEST(EvaluateTest, NoQueriesAreAllFound) {
  const Rows none{0, {}, {}};
  EXPECT_EQ(Evaluated(none, none, 3).recall(), 1);
}

TEST(EvaluateTest, WhatDoesNotFitIsRefused) {
  const Rows one{1, {4, 7}, {9, 8}}, two{2, {4, 7}, {9, 8}};
  EXPECT_THAT(std::string(Evaluate(one.View(), two.View(), 1).status().message()),
              HasSubstr("1 queries and the truth 2"));
  for (const int64_t k : {-1, 0, 3}) {
    EXPECT_THAT(std::string(Evaluate(one.View(), one.View(), k).status().message()),
                HasSubstr("expected 1 to 2"));
  }
}

}  // namespace
}  // namespace tiny_knn
