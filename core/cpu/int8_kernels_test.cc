#include "core/cpu/int8_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "core/matrix/aligned_vector.h"
#include "core/search/isa.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

struct Problem {
  int64_t num_queries = 0;
  int64_t num_docs = 0;
  int64_t dim = 0;
  std::vector<int8_t> query_codes;
  std::vector<int> doc_codes;  // [num_docs, dim], signed
  AlignedVector<uint8_t> panels;
  std::vector<float> scales;
  std::vector<CodedQuery> queries;
};

Problem MakeProblem(int64_t num_queries, int64_t num_docs, int64_t dim, bool extreme) {
  std::mt19937_64 random(static_cast<uint64_t>(num_queries * 31 + num_docs * 7 + dim));
  const auto code = [&] {
    if (extreme) return random() % 2 == 0 ? kGreatestCode : -kGreatestCode;
    return static_cast<int>(random() % 255) - kGreatestCode;
  };
  Problem p;
  p.num_queries = num_queries;
  p.num_docs = num_docs;
  p.dim = dim;
  const int64_t stride = 4 * CodeSteps(dim);
  p.query_codes.assign(static_cast<size_t>(num_queries * stride), 0);
  p.panels.resize(static_cast<size_t>(CodeBytes(num_docs, dim)), 77);
  std::vector<uint8_t> row(static_cast<size_t>(dim));
  for (int64_t d = 0; d < num_docs; ++d) {
    for (int64_t j = 0; j < dim; ++j) {
      p.doc_codes.push_back(code());
      row[static_cast<size_t>(j)] = static_cast<uint8_t>(p.doc_codes.back() + kZeroCode);
    }
    PutInPanel(row.data(), dim, d % kPanelDocs, p.panels.data() + d / kPanelDocs * PanelBytes(dim));
    p.scales.push_back(std::ldexp(1.F, static_cast<int>(random() % 9) - 4));
  }
  for (int64_t q = 0; q < num_queries; ++q) {
    int8_t* const codes = p.query_codes.data() + q * stride;
    int sum = 0;
    for (int64_t j = 0; j < dim; ++j) {
      codes[j] = static_cast<int8_t>(code());
      sum += codes[j];
    }
    p.queries.push_back({codes, -int32_t{kZeroCode} * sum, 0.25F, static_cast<float>(q) + 0.5F});
  }
  return p;
}

void ExpectAllScoresRight(const Problem& p) {
  const int64_t stride = p.num_docs + 3;
  constexpr float kUntouched = 12345;
  std::vector<float> scores(static_cast<size_t>(p.num_queries * stride), kUntouched);
  ScoreCodes(p.queries.data(), p.num_queries, p.panels.data(), p.scales.data(), p.num_docs, p.dim,
             scores.data(), stride);
  for (int64_t q = 0; q < p.num_queries; ++q) {
    const CodedQuery& query = p.queries[static_cast<size_t>(q)];
    for (int64_t d = 0; d < p.num_docs; ++d) {
      int32_t sum = 0;
      for (int64_t j = 0; j < p.dim; ++j) {
        sum += query.codes[j] * p.doc_codes[static_cast<size_t>(d * p.dim + j)];
      }
      const float expected = std::fma(query.scale * p.scales[static_cast<size_t>(d)],
                                      static_cast<float>(sum), query.centre_dot);
      ASSERT_EQ(scores[static_cast<size_t>(q * stride + d)], expected)
          << p.num_queries << " x " << p.num_docs << " x " << p.dim << ": " << q << ", " << d;
    }
    for (int64_t d = p.num_docs; d < stride; ++d) {
      ASSERT_EQ(scores[static_cast<size_t>(q * stride + d)], kUntouched)
          << "written beyond the docs";
    }
  }
}

// Levels only fall within a process, so the best one comes first.
TEST(Int8KernelsTest, MultipliesEveryShapeAtEveryInstructionSetLevel) {
  for (const IsaLevel level : {IsaLevel::kAvx512, IsaLevel::kAvx2, IsaLevel::kPortable}) {
    if (!ForceIsaLevelForTest(level).ok()) continue;
    for (int64_t num_queries = 1; num_queries <= 13; ++num_queries) {
      ExpectAllScoresRight(MakeProblem(num_queries, 70, 9, false));
    }
    for (const int64_t num_docs : {1, 15, 16, 17, 63, 64, 65, 128, 130}) {
      ExpectAllScoresRight(MakeProblem(7, num_docs, 13, false));
    }
    for (const int64_t dim : {1, 2, 3, 4, 5, 63, 64, 100, 768}) {
      ExpectAllScoresRight(MakeProblem(6, 64, dim, false));
    }
    // The greatest sums that there are, where 16 bits or a signed mistake would show.
    ExpectAllScoresRight(MakeProblem(6, 64, 65536, true));
  }
}

TEST(Int8KernelsTest, CodesAreTheNearestAndTheirSumsAreRight) {
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal;
  for (const int64_t dim : {1, 7, 16, 33, 100, 768}) {
    std::vector<float> values;
    for (int64_t j = 0; j < dim; ++j) values.push_back(normal(random));
    const std::vector<float> centre(static_cast<size_t>(dim), 0.25F);
    std::vector<float> centred(static_cast<size_t>(dim));
    const float greatest = CentreRow(values.data(), centre.data(), dim, centred.data());
    float expected_greatest = 0;
    for (int64_t j = 0; j < dim; ++j) {
      const size_t i = static_cast<size_t>(j);
      EXPECT_EQ(centred[i], values[i] - 0.25F);
      expected_greatest = std::max(expected_greatest, std::abs(centred[i]));
    }
    EXPECT_EQ(greatest, expected_greatest);
    // A scale that is too small clips.
    for (const float scale : {greatest / kGreatestCode, greatest / 300}) {
      std::vector<uint8_t> codes(static_cast<size_t>(dim));
      const CodedRow coded = EncodeRow(centred.data(), scale, 1 / scale, dim, codes.data());
      int64_t squared_codes = 0;
      double squared_residual = 0;
      for (int64_t j = 0; j < dim; ++j) {
        const size_t i = static_cast<size_t>(j);
        const int code = int{codes[i]} - kZeroCode;
        EXPECT_LE(std::abs(code), kGreatestCode);
        squared_codes += code * code;
        const double residual = static_cast<double>(centred[i]) - static_cast<double>(scale) * code;
        squared_residual += residual * residual;
        if (std::abs(centred[i]) < scale * kGreatestCode) {
          EXPECT_LE(std::abs(residual), 0.501 * static_cast<double>(scale));
        }
      }
      EXPECT_EQ(coded.squared_codes, squared_codes);
      // A sum in float32 in any order: the screen's bound, not a score, is made of it, and allows
      // for its roundings (docs/exactness.md). 1e-12 is the rounding of single residuals.
      EXPECT_NEAR(static_cast<double>(coded.squared_residual), squared_residual,
                  1e-4 * squared_residual + 1e-12);
    }
  }
}

}  // namespace
}  // namespace tiny_knn
