#include "core/cpu/rescore.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "core/search/ranking.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

template <typename T>
bool Same(const std::vector<Ranked<T>>& a, const std::vector<Ranked<T>>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.key == y.key && x.index == y.index;
  });
}

template <typename T>
class RescoreTest : public testing::Test {
 protected:
  // Docs in ascending order of index, scores in [low, high] with many ties, and some NaN.
  std::vector<Ranked<T>> Docs(size_t size, T low, T high, bool with_nan) {
    std::uniform_int_distribution<int> step(0, 4000);
    std::vector<Ranked<T>> docs;
    for (size_t i = 0; i < size; ++i) {
      T score = low + (high - low) * static_cast<T>(step(random_)) / T{4000};
      if (with_nan && random_() % 10 == 0) score = std::numeric_limits<T>::quiet_NaN();
      docs.push_back({KeyOfScore(score), static_cast<int64_t>(3 * i)});
    }
    return docs;
  }

  std::mt19937 random_{5};
};

using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(RescoreTest, Types);

TYPED_TEST(RescoreTest, SortRankedEqualsSortingByTheOrderOfResults) {
  using T = TypeParam;
  std::vector<Ranked<T>> scratch;
  for (const size_t size : {0, 1, 255, 256, 257, 5000}) {
    for (const bool with_nan : {false, true}) {
      for (const bool shuffled : {false, true}) {
        for (const T width : {T{0}, std::numeric_limits<T>::epsilon(), static_cast<T>(0.001),
                              static_cast<T>(1e30)}) {
          std::vector<Ranked<T>> docs = this->Docs(size, T{1}, T{1} + width, with_nan);
          if (shuffled) std::shuffle(docs.begin(), docs.end(), this->random_);
          std::vector<Ranked<T>> expected = docs;
          std::sort(expected.begin(), expected.end());
          SortRanked(docs, scratch);
          EXPECT_TRUE(Same(docs, expected)) << size << " docs of width " << width;
        }
      }
    }
  }
}

TYPED_TEST(RescoreTest, ExactTopKeepsTheBestOfAllThatWereMergedAndSeesTiesAtK) {
  using T = TypeParam;
  for (const int64_t k : {1, 7, 300}) {
    ExactTop<T> top(k);
    std::vector<Ranked<T>> all;
    std::vector<Ranked<T>> scratch;
    for (int round = 0; round < 5; ++round) {
      std::vector<Ranked<T>> found = this->Docs(400, T{-1}, T{1}, round == 2);
      for (Ranked<T>& doc : found) doc.index += 10'000 * ((round * 3) % 5);
      all.insert(all.end(), found.begin(), found.end());
      top.Merge(found, scratch);
    }
    std::sort(all.begin(), all.end());
    const size_t last = static_cast<size_t>(k - 1);
    ASSERT_TRUE(top.full());
    EXPECT_EQ(KeyOfScore(top.kth_score()), all[last].key);
    std::vector<T> scores(static_cast<size_t>(k));
    std::vector<int64_t> indices(static_cast<size_t>(k));
    EXPECT_EQ(top.Write(scores.data(), indices.data()), all[last].key == all[last + 1].key);
    for (size_t rank = 0; rank <= last; ++rank) {
      EXPECT_EQ(KeyOfScore(scores[rank]), all[rank].key);
      EXPECT_EQ(indices[rank], all[rank].index);
    }
  }
}

}  // namespace
}  // namespace tiny_knn
