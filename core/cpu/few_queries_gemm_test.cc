#include "core/cpu/few_queries_gemm.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/cpu/float32_squares.h"
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
      for (const int64_t dim : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65, 100, 300}) {
        shapes.push_back({num_queries, num_docs, dim});
      }
    }
  }
  return shapes;
}

// Multiplies rows that lie apart, and checks that nothing is written between and after the scores,
// and the squared norms.
std::vector<float> Multiply(const Shape& shape, const std::vector<float>& queries,
                            const std::vector<float>& docs, int64_t stride) {
  constexpr float kUntouched = -12345;
  const int64_t score_stride = shape.num_docs + 3;
  std::vector<float> padded(static_cast<size_t>(shape.num_queries * score_stride), kUntouched);
  MultiplyFewQueries(queries.data(), stride, shape.num_queries, docs.data(), stride, shape.num_docs,
                     shape.dim, padded.data(), score_stride);
  FewQueries packed;
  packed.Set(queries.data(), stride, shape.num_queries, shape.dim);
  std::vector<float> of_packed(padded.size(), kUntouched);
  std::vector<double> norms(static_cast<size_t>(shape.num_docs + 1), -1.0);
  packed.Multiply(docs.data(), stride, shape.num_docs, of_packed.data(), score_stride,
                  norms.data());
  EXPECT_EQ(of_packed, padded);
  for (int64_t doc = 0; doc < shape.num_docs; ++doc) {
    double expected = 0;
    for (int64_t j = 0; j < shape.dim; ++j) {
      const double value = static_cast<double>(docs[static_cast<size_t>(doc * stride + j)]);
      expected += value * value;
    }
    EXPECT_EQ(norms[static_cast<size_t>(doc)], expected);
  }
  EXPECT_EQ(norms.back(), -1);
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

// How far squared norms are off, as a share of what is promised.
double WorstSquaredNorm() {
  constexpr int64_t kDocs = 64;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  double worst = 0;
  for (const int64_t dim : {1, 3, 16, 100, 768, 3000}) {
    // Ordinary, of wild exponents, too small and too great for squares in float32.
    for (const int exponents : {0, 1, 2, 3}) {
      std::vector<float> docs;
      for (int64_t i = 0; i < kDocs * dim; ++i) {
        const int wild = static_cast<int>(random() % 50) - 25;
        const int exponent[] = {0, wild, -70, 70};
        docs.push_back(std::ldexp(normal(random), exponent[exponents]));
      }
      FewQueries packed;
      packed.Set(docs.data(), dim, 1, dim);
      std::vector<float> scores(kDocs);
      std::vector<double> norms(kDocs);
      packed.Multiply(docs.data(), dim, kDocs, scores.data(), kDocs, norms.data());
      for (int64_t doc = 0; doc < kDocs; ++doc) {
        const double norm = norms[static_cast<size_t>(doc)];
        if (dim >= 100) {
          EXPECT_EQ(IsSquaredNorm(norm), exponents < 2) << "dim " << dim;
        }
        if (!IsSquaredNorm(norm)) continue;
        double expected = 0;
        for (int64_t j = 0; j < dim; ++j) {
          const double value = static_cast<double>(docs[static_cast<size_t>(doc * dim + j)]);
          expected += value * value;
        }
        worst = std::max(worst, std::abs(norm - expected) / (expected * kSquaredNormError));
      }
    }
  }
  return worst;
}

TEST(FewQueriesGemmTest, SumsSquaresAsCloseAsPromisedOrSaysNot) {
  for (const IsaLevel level : {IsaLevel::kAvx512, IsaLevel::kAvx2, IsaLevel::kPortable}) {
    if (level > BestIsaLevel()) continue;
    SCOPED_TRACE(std::string(IsaLevelName(level)));
    ASSERT_TRUE(ForceIsaLevelForTest(level).ok());
    const double worst = WorstSquaredNorm();
    EXPECT_LT(worst, 1);
    EXPECT_GT(worst, 0.05) << "the test's data no longer strain the bound";
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
