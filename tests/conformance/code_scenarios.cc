// Rows that codes of eight bits hold exactly on one side: then the bound rests on the other side's
// residual, or on roundings, alone.
#include "tests/conformance/float_scenarios.h"
#include "tests/conformance/generator.h"

namespace tiny_knn::conformance {
namespace {

constexpr int64_t kGreatest = 127;

Value Code(Random& r) { return r.Below(2 * kGreatest + 1) - kGreatest; }

// Integers within [-127, 127], the greatest of them in every row; the docs in pairs of opposites,
// so that their mean is exactly zero.
void FillCodableDocs(Problem& p, Random& r) {
  for (int64_t i = 0; i + 1 < p.num_docs; i += 2) {  // a last one without a partner stays zero
    for (int64_t j = 0; j < p.dim; ++j) {
      p.d(i, j) = j == i / 2 % p.dim ? kGreatest : Code(r);
      p.d(i + 1, j) = -p.d(i, j);
    }
  }
}

void FillCodableQueries(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t i, int64_t j) { return j == i % p.dim ? kGreatest : Code(r); });
}

// Queries are greatest where docs are zero: their codes say next to nothing about the scores.
void CodableDocs(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t, int64_t j) { return r.Bell() * (j % 2 != 0 ? 128 : 1); });
  FillCodableDocs(p, r);
  for (int64_t i = 0; i < p.num_docs; ++i) {
    for (int64_t j = 1; j < p.dim; j += 2) p.d(i, j) = 0;
    if (p.d(i, 0) != 0) p.d(i, 0) = p.d(i, 0) < 0 ? -kGreatest : kGreatest;
  }
}

// Docs so small that the squares of their residuals are below float32, and greatest where queries
// are zero: codes say next to nothing about the scores.
void CodableQueriesTinyDocs(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t, int64_t j) { return j % 2 != 0 ? 0 : j == 0 ? kGreatest : Code(r); });
  FillDocs(p, [&](int64_t, int64_t j) { return r.Bell() * PowerOfTwo(j % 2 != 0 ? -70 : -76); });
}

// Codes of two digits are exact on both sides, and low digits, whose products with each other they
// leave out, decide: the high ones are zero but for one dim's.
void TwoDigits(Problem& p, Random& r) {
  const auto value = [&r](int64_t j) { return j == 0 ? Value{256} * kGreatest : Code(r); };
  FillQueries(p, [&](int64_t, int64_t j) { return value(j); });
  for (int64_t i = 0; i + 1 < p.num_docs; i += 2) {
    for (int64_t j = 0; j < p.dim; ++j) {
      p.d(i, j) = value(j);
      p.d(i + 1, j) = -p.d(i, j);
    }
  }
}

// Codes are exact on both sides, and what they are added to is so large that adding rounds.
void CodableFarFromZero(Problem& p, Random& r) {
  FillCodableQueries(p, r);
  FillCodableDocs(p, r);
  const Value far = p.doc_dtype == DType::kFloat16 ? 1024 : 1 << 20;
  for (int64_t i = 0; i < p.num_docs; ++i) {
    for (int64_t j = 0; j < p.dim; ++j) p.d(i, j) += far;
  }
}

}  // namespace

std::vector<Scenario> CodeScenarios() {
  return {
      {"codable_docs", CodableDocs},
      {"codable_queries_tiny_docs", CodableQueriesTinyDocs},
      {"codable_far_from_zero", CodableFarFromZero},
      {"two_digits", TwoDigits},
  };
}

}  // namespace tiny_knn::conformance
