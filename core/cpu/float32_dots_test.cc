// Float32 dot products of rows that lie apart, at every instruction-set level, within the bound
// that the screen relies on.
#include "core/cpu/float32_dots.h"

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "core/search/isa.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

TEST(Float32DotsTest, StaysWithinTheBoundAtEveryLevel) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (const IsaLevel level : kIsaLevels) {
    if (!ForceIsaLevelForTest(level).ok()) continue;
    for (const int64_t dim : {1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 100, 768, 1000}) {
      for (int64_t count = 1; count <= 2 * kMostDots + 3; ++count) {
        std::vector<float> row(static_cast<size_t>(dim));
        for (float& value : row) value = normal(random);
        std::vector<std::vector<float>> others(static_cast<size_t>(count), row);
        std::vector<const void*> pointers;
        for (auto& other : others) {
          for (float& value : other) value = normal(random);
          pointers.push_back(other.data());
        }
        std::vector<float> dots(static_cast<size_t>(count), -1.F);
        Float32Dots(row.data(), pointers.data(), DType::kFloat32, count, dim, dots.data());
        for (size_t i = 0; i < dots.size(); ++i) {
          double exact = 0;
          double magnitude = 0;
          for (size_t j = 0; j < row.size(); ++j) {
            const double product = static_cast<double>(row[j]) * static_cast<double>(others[i][j]);
            exact += product;
            magnitude += std::abs(product);
          }
          EXPECT_LE(std::abs(static_cast<double>(dots[i]) - exact),
                    static_cast<double>(dim + 8) * 0x1p-24 * magnitude)
              << "dim " << dim << ", row " << i << " of " << count;
        }
      }
    }
  }
}

}  // namespace
}  // namespace tiny_knn
