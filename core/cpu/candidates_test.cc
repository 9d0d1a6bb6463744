#include "core/cpu/candidates.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

void ExpectSorted(const std::vector<float>& values) {
  std::vector<float> sorted = values;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  std::vector<uint32_t> scratch;
  const size_t step = std::max<size_t>(1, values.size() / 37);
  for (size_t k = 1; k <= values.size(); k += step) {
    EXPECT_EQ(KthLargest(values, static_cast<int64_t>(k), scratch), sorted[k - 1]) << k;
  }
  EXPECT_EQ(KthLargest(values, static_cast<int64_t>(values.size()), scratch), sorted.back());
}

TEST(KthLargestTest, EqualsSortingOnRandomValuesOfEverySize) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const size_t size : {1, 2, 63, 64, 65, 1000, 5000}) {
    std::vector<float> values(size);
    for (float& value : values) value = normal(random);
    ExpectSorted(values);
  }
}

TEST(KthLargestTest, EqualsSortingOnTiesInfinitiesAndNarrowRanges) {
  std::mt19937 random(2);
  std::vector<float> values(3000);
  for (float& value : values) value = static_cast<float>(random() % 5) - 2;
  ExpectSorted(values);
  for (size_t i = 0; i < values.size(); i += 3) {
    values[i] = -std::numeric_limits<float>::infinity();
  }
  ExpectSorted(values);
  std::fill(values.begin(), values.end(), 0.25F);
  ExpectSorted(values);
  for (float& value : values) {
    value = random() % 2 == 0 ? 0.25F : std::nextafter(0.25F, 1.0F);
  }
  ExpectSorted(values);
}

}  // namespace
}  // namespace tiny_knn
