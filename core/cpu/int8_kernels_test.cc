#include "core/cpu/int8_kernels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/cpu/float32_squares.h"
#include "core/matrix/aligned_vector.h"
#include "core/search/isa.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

struct Problem {
  int64_t num_queries = 0;
  int64_t num_docs = 0;
  int64_t dim = 0;
  int digits = 1;
  AlignedVector<int8_t> query_codes;
  std::vector<int> doc_codes;  // [num_docs, digits, dim], signed
  AlignedVector<uint8_t> panels;
  std::vector<float> scales;
  std::vector<CodedQuery> queries;
  std::vector<QueryBounds> query_bounds;
  std::vector<float> norm, residual, upper_offset, lower_offset;
};

struct Shape {
  int64_t num_queries;
  int64_t num_docs;
  int64_t dim;
  int digits;
};

Problem MakeProblem(const Shape& shape, bool extreme) {
  const auto [num_queries, num_docs, dim, digits] = shape;
  std::mt19937_64 random(static_cast<uint64_t>(num_queries * 31 + num_docs * 7 + dim + digits));
  const auto code = [&] {
    if (extreme) return random() % 2 == 0 ? kGreatestCode : -kGreatestCode;
    return static_cast<int>(random() % 255) - kGreatestCode;
  };
  Problem p;
  p.num_queries = num_queries;
  p.num_docs = num_docs;
  p.dim = dim;
  p.digits = digits;
  const int64_t stride = QueryCodeBytes(dim, digits);
  p.query_codes.resize(static_cast<size_t>(num_queries * stride), 99);
  p.panels.resize(static_cast<size_t>(CodeBytes(num_docs, dim, digits)), 77);
  std::vector<uint8_t> rows;
  int64_t first_row = 0;
  for (int64_t d = 0; d < num_docs; ++d) {
    for (int digit = 0; digit < digits; ++digit) {
      for (int64_t j = 0; j < dim; ++j) {
        p.doc_codes.push_back(code());
        rows.push_back(static_cast<uint8_t>(p.doc_codes.back()) ^ StoredZero());
      }
      for (int64_t j = dim; j < RowCodeBytes(dim); ++j) {
        rows.push_back(j < 4 * CodeSteps(dim) ? StoredZero() : 55);
      }
    }
    // All that share lanes, or some, or each alone.
    const int64_t lane = d / kLaneDocs % 3;
    if (d % kLaneDocs == kLaneDocs - 1 || d == num_docs - 1 || lane == 2 ||
        (lane == 1 && d % kLaneDocs == 4)) {
      PutInPanel(rows.data(), dim, digits, first_row % kPanelDocs, d + 1 - first_row,
                 p.panels.data() + d / kPanelDocs * PanelBytes(dim, digits));
      rows.clear();
      first_row = d + 1;
    }
    p.scales.push_back(std::ldexp(1.F, static_cast<int>(random() % 9) - 4));
    p.norm.push_back(static_cast<float>(random() % 100));
    p.residual.push_back(static_cast<float>(random() % 100));
    p.upper_offset.push_back(static_cast<float>(random() % 100));
    p.lower_offset.push_back(0);
  }
  for (int64_t q = 0; q < num_queries; ++q) {
    int8_t* const codes = p.query_codes.data() + q * stride;
    int sums[2] = {0, 0};
    for (int digit = 0; digit < digits; ++digit) {
      int8_t* const of_digit = codes + digit * QueryDigitBytes(dim);
      for (int64_t j = 0; j < dim; ++j) {
        of_digit[j] = static_cast<int8_t>(code());
        sums[digit] += of_digit[j];
      }
      FillQueryDigits(dim, of_digit);
    }
    p.queries.push_back(
        {codes, -128 * sums[0], -128 * (sums[0] + sums[1]), 0.25F, static_cast<float>(q) + 0.5F});
    p.query_bounds.push_back({0, 3, 5});
  }
  return p;
}

int32_t SumOfProducts(const Problem& p, int64_t q, int query_digit, int64_t d, int doc_digit) {
  const int8_t* const codes =
      p.queries[static_cast<size_t>(q)].codes + query_digit * QueryDigitBytes(p.dim);
  int32_t sum = 0;
  for (int64_t j = 0; j < p.dim; ++j) {
    sum += codes[j] * p.doc_codes[static_cast<size_t>((d * p.digits + doc_digit) * p.dim + j)];
  }
  return sum;
}

float ExpectedScore(const Problem& p, int64_t q, int64_t d) {
  const CodedQuery& query = p.queries[static_cast<size_t>(q)];
  float products = static_cast<float>(SumOfProducts(p, q, 0, d, 0));
  if (p.digits == 2) {
    const int32_t low = SumOfProducts(p, q, 0, d, 1) + SumOfProducts(p, q, 1, d, 0);
    products = std::fma(static_cast<float>(low), kLowDigit, products);
  }
  return std::fma(query.scale * p.scales[static_cast<size_t>(d)], products, query.centre_dot);
}

// With thresholds that about `share` of the docs reach: scores of groups that are said to survive
// are right, no survivor is in another group, and nothing is written beyond the docs.
void ExpectScoresRight(Problem p, double share) {
  const int64_t stride = p.num_docs + 3;
  constexpr float kUntouched = 12345;
  std::vector<float> scores(static_cast<size_t>(p.num_queries * stride), kUntouched);
  std::vector<uint64_t> groups(static_cast<size_t>(p.num_queries), ~uint64_t{0});
  std::vector<float> expected(static_cast<size_t>(p.num_queries * p.num_docs));
  const auto error_of = [&p](size_t doc) {
    return 3 * p.norm[doc] + 5 * p.residual[doc] + p.upper_offset[doc];
  };
  for (int64_t q = 0; q < p.num_queries; ++q) {
    std::vector<float> uppers;
    for (int64_t d = 0; d < p.num_docs; ++d) {
      const float score = ExpectedScore(p, q, d);
      expected[static_cast<size_t>(q * p.num_docs + d)] = score;
      uppers.push_back(score + error_of(static_cast<size_t>(d)));
    }
    std::sort(uppers.begin(), uppers.end(), std::greater<>());
    const double last = share * static_cast<double>(p.num_docs - 1);
    p.query_bounds[static_cast<size_t>(q)].threshold = uppers[static_cast<size_t>(last)];
  }
  const TileBounds bounds{
      p.query_bounds.data(),
      {p.norm.data(), p.upper_offset.data(), p.lower_offset.data(), p.residual.data()}};
  ScoreCodes(p.queries.data(), p.num_queries,
             {p.panels.data(), p.scales.data(), p.num_docs, p.digits}, p.dim, bounds,
             {scores.data(), stride, groups.data()});
  for (int64_t q = 0; q < p.num_queries; ++q) {
    const std::string where = fmt::format("{} x {} x {}, {} digits, query {}", p.num_queries,
                                          p.num_docs, p.dim, p.digits, q);
    const uint64_t some = groups[static_cast<size_t>(q)];
    ASSERT_EQ(some & ~AllGroups(p.num_docs), 0U) << where;
    for (int64_t d = 0; d < p.num_docs; ++d) {
      const float score = expected[static_cast<size_t>(q * p.num_docs + d)];
      if ((some >> (d / kGroupDocs) & 1) != 0) {
        ASSERT_EQ(scores[static_cast<size_t>(q * stride + d)], score) << where << ", doc " << d;
        continue;
      }
      // The sum's order may differ by some roundings.
      ASSERT_LT(
          score + error_of(static_cast<size_t>(d)),
          p.query_bounds[static_cast<size_t>(q)].threshold + 0x1p-20F * (std::abs(score) + 1000))
          << where << ", doc " << d;
    }
    for (int64_t d = p.num_docs; d < stride; ++d) {
      ASSERT_EQ(scores[static_cast<size_t>(q * stride + d)], kUntouched)
          << "written beyond the docs: " << where;
    }
  }
  if (share == 1) {
    EXPECT_EQ(groups.front(), AllGroups(p.num_docs));
  }
}

void ExpectAllScoresRight(const Shape& shape, bool extreme = false) {
  const Problem problem = MakeProblem(shape, extreme);
  for (const double share : {0.0, 0.05, 1.0}) ExpectScoresRight(problem, share);
}

TEST(Int8KernelsTest, MultipliesEveryShapeAtEveryInstructionSetLevel) {
  for (const IsaLevel level : kIsaLevels) {
    if (!ForceIsaLevelForTest(level).ok()) continue;
    for (const int digits : {1, 2}) {
      for (int64_t num_queries = 1; num_queries <= 35; ++num_queries) {
        ExpectAllScoresRight({num_queries, 70, 9, digits});
      }
      for (const int64_t num_docs : {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 128, 130, 1024}) {
        ExpectAllScoresRight({7, num_docs, 13, digits});
      }
      for (const int64_t dim : {1, 2, 3, 4, 5, 61, 63, 64, 65, 68, 100, 127, 128, 129, 768}) {
        ExpectAllScoresRight({37, 70, dim, digits});
      }
      // Whole blocks of queries and every rest, where queries are loaded as what is not wanted
      // again.
      for (const int64_t num_queries : {17, 52, 64, 83}) {
        ExpectAllScoresRight({num_queries, 70, 768, digits});
      }
      // The greatest sums that there are, where 16 bits or a signed mistake would show.
      ExpectAllScoresRight({6, 64, 65536, digits}, /*extreme=*/true);
    }
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
    const CentredRow row = CentreRow(values.data(), centre.data(), dim, centred.data());
    float expected_greatest = 0;
    double squared_norm = 0;
    for (int64_t j = 0; j < dim; ++j) {
      const size_t i = static_cast<size_t>(j);
      EXPECT_EQ(centred[i], values[i] - 0.25F);
      expected_greatest = std::max(expected_greatest, std::abs(centred[i]));
      squared_norm += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    }
    EXPECT_EQ(row.greatest, expected_greatest);
    ASSERT_TRUE(IsSquaredNorm(row.squared_norm));
    EXPECT_LE(std::abs(row.squared_norm - squared_norm), kSquaredNormError * squared_norm);
    for (const auto& [scale, digits] :
         {std::pair(row.greatest / kGreatestCode, 1), std::pair(row.greatest / kGreatestCode, 2),
          std::pair(row.greatest / 100, 1), std::pair(row.greatest / 100, 2)}) {
      const int64_t row_bytes = RowCodeBytes(dim);
      std::vector<uint8_t> codes(static_cast<size_t>(digits * row_bytes), 55);
      const CodedRow coded = EncodeRow(centred.data(), scale, 1 / scale, dim, digits, codes.data());
      int64_t squared_digits[2] = {0, 0};
      double squared_residual = 0;
      for (int64_t j = 0; j < dim; ++j) {
        const size_t i = static_cast<size_t>(j);
        double residual = static_cast<double>(centred[i]);
        double unit = static_cast<double>(scale);
        for (int digit = 0; digit < digits; ++digit, unit /= 256) {
          const int8_t code =
              static_cast<int8_t>(codes[static_cast<size_t>(digit * row_bytes + j)] ^ StoredZero());
          EXPECT_LE(std::abs(int{code}), kGreatestCode);
          squared_digits[digit] += code * code;
          residual -= unit * code;
          if (std::abs(centred[i]) >= scale * kGreatestCode) continue;
          // A low digit goes from -127 to 127, which leaves up to a whole one at the ends.
          EXPECT_LE(std::abs(residual), (digit == 0 ? 0.501 : 1.01) * unit);
        }
        squared_residual += residual * residual;
      }
      for (int64_t j = dim; j < 4 * CodeSteps(dim); ++j) {
        EXPECT_EQ(codes[static_cast<size_t>((digits - 1) * row_bytes + j)], StoredZero());
      }
      // Sums of so few integers are exact.
      EXPECT_EQ(coded.squared_high, static_cast<float>(squared_digits[0]));
      EXPECT_EQ(coded.squared_low, static_cast<float>(squared_digits[1]));
      // A sum in float32 in any order: the screen's bound, not a score, is made of it, and allows
      // for its roundings (docs/exactness.md). 1e-12 is the rounding of single residuals.
      EXPECT_NEAR(static_cast<double>(coded.squared_residual), squared_residual,
                  1e-4 * squared_residual + 1e-12);
    }
  }
}

}  // namespace
}  // namespace tiny_knn
