#include "core/cpu/few_queries_gemm.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/search/isa.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

struct Shape {
  int64_t num_queries;
  int64_t num_docs;
  int64_t dim;
};

// Every number of queries up to what the engine asks for and beyond, even and odd numbers of docs,
// dims on both sides of whole vectors.
std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  for (int64_t num_queries = 1; num_queries <= kFewQueries + 8; ++num_queries) {
    for (const int64_t num_docs : {1, 2, 3, 8, 33}) {
      for (const int64_t dim : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65, 100}) {
        shapes.push_back({num_queries, num_docs, dim});
      }
    }
  }
  return shapes;
}

// Multiplies rows that lie apart, and checks that nothing is written between and after the scores.
std::vector<float> Multiply(const Shape& shape, const std::vector<float>& queries,
                            const std::vector<float>& docs, int64_t stride) {
  constexpr float kUntouched = -12345;
  const int64_t score_stride = shape.num_docs + 3;
  std::vector<float> padded(static_cast<size_t>(shape.num_queries * score_stride), kUntouched);
  MultiplyFewQueries(queries.data(), stride, shape.num_queries, docs.data(), stride, shape.num_docs,
                     shape.dim, padded.data(), score_stride);
  std::vector<float> scores;
  for (size_t i = 0; i < padded.size(); ++i) {
    if (static_cast<int64_t>(i) % score_stride < shape.num_docs) {
      scores.push_back(padded[i]);
    } else {
      EXPECT_EQ(padded[i], kUntouched);
    }
  }
  return scores;
}

void CheckAllShapes() {
  std::mt19937 random(7);
  for (const Shape& shape : Shapes()) {
    const int64_t stride = shape.dim + 2;
    // Small integers: every order of summation gives the same sum. What lies between rows must not
    // get into one.
    const auto make_rows = [&](int64_t rows) {
      std::vector<float> values(static_cast<size_t>(rows * stride), std::nanf(""));
      for (int64_t i = 0; i < rows * stride; ++i) {
        if (i % stride < shape.dim) {
          values[static_cast<size_t>(i)] = static_cast<float>(random() % 201) - 100;
        }
      }
      return values;
    };
    const std::vector<float> queries = make_rows(shape.num_queries);
    const std::vector<float> docs = make_rows(shape.num_docs);
    std::vector<float> expected;
    for (int64_t q = 0; q < shape.num_queries; ++q) {
      for (int64_t d = 0; d < shape.num_docs; ++d) {
        float sum = 0;
        for (int64_t j = 0; j < shape.dim; ++j) {
          sum += queries[static_cast<size_t>(q * stride + j)] *
                 docs[static_cast<size_t>(d * stride + j)];
        }
        expected.push_back(sum);
      }
    }
    ASSERT_EQ(Multiply(shape, queries, docs, stride), expected)
        << fmt::format("{} queries, {} docs, dim {}", shape.num_queries, shape.num_docs, shape.dim);
  }
}

TEST(FewQueriesGemmTest, MultipliesEveryShapeAtEveryInstructionSetLevel) {
  // Downwards: levels are only ever taken away.
  for (const IsaLevel level : kIsaLevels) {
    if (level > BestIsaLevel()) continue;
    SCOPED_TRACE(std::string(IsaLevelName(level)));
    ASSERT_TRUE(ForceIsaLevelForTest(level).ok());
    CheckAllShapes();
  }
}

}  // namespace
}  // namespace tiny_knn
