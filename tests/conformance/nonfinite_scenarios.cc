// NaN and infinities.
#include <limits>

#include "tests/conformance/float_scenarios.h"
#include "tests/conformance/generator.h"

namespace tiny_knn::conformance {
namespace {

constexpr Value kInf = std::numeric_limits<Value>::infinity();
constexpr Value kNaN = std::numeric_limits<Value>::quiet_NaN();

void InfInDocs(Problem& p, Random& r) {
  FillUniform(p, r);
  for (int64_t i = 1; i < p.num_docs; i += 4) p.d(i, r.Below(p.dim)) = r.OneIn(2) ? kInf : -kInf;
}

void InfInQueries(Problem& p, Random& r) {
  FillUniform(p, r);
  for (int64_t i = 0; i < p.num_queries; i += 2) p.q(i, r.Below(p.dim)) = kInf;
}

// Infinite products of both signs, zero times infinity, infinity less infinity.
void InfEverywhere(Problem& p, Random& r) {
  FillUniform(p, r);
  for (int64_t i = 0; i < p.num_docs; ++i) {
    for (int64_t n = r.Below(3); n > 0; --n) p.d(i, r.Below(p.dim)) = r.OneIn(2) ? kInf : -kInf;
  }
  for (int64_t i = 0; i < p.num_queries; ++i) {
    if (r.OneIn(2)) p.q(i, r.Below(p.dim)) = kInf;
    p.q(i, r.Below(p.dim)) = 0;
  }
}

void NaNInDocs(Problem& p, Random& r) {
  FillUniform(p, r);
  for (int64_t i = 0; i < p.num_docs; i += 3) p.d(i, r.Below(p.dim)) = i % 2 == 0 ? kNaN : -kNaN;
}

void NaNInQueries(Problem& p, Random& r) {
  FillUniform(p, r);
  for (int64_t i = 0; i < p.num_queries; i += 2) p.q(i, r.Below(p.dim)) = kNaN;
}

// Fewer docs with a number for a score than k asks for: NaN docs fill the rest, by index.
void NaNInMostDocs(Problem& p, Random& r) {
  FillUniform(p, r);
  for (int64_t i = 0; i < p.num_docs; ++i) {
    if (i % 16 != 5) p.d(i, r.Below(p.dim)) = kNaN;
  }
}

void NaNInAllDocs(Problem& p, Random& r) {
  FillUniform(p, r);
  for (int64_t i = 0; i < p.num_docs; ++i) p.d(i, r.Below(p.dim)) = kNaN;
}

void NaNAndInfInBoth(Problem& p, Random& r) {
  InfEverywhere(p, r);
  for (int64_t i = 0; i < p.num_docs; i += 5) p.d(i, r.Below(p.dim)) = kNaN;
  p.q(0, r.Below(p.dim)) = kNaN;
}

// All docs but a few infinite or NaN come first; the best finite doc is the last row.
void NonFiniteFirst(Problem& p, Random& r) {
  FillUniform(p, r);
  for (int64_t i = 0; i < p.num_docs / 2; ++i) p.d(i, 0) = i % 2 == 0 ? kNaN : -kInf;
  for (int64_t i = 0; i < p.num_queries; ++i) p.q(i, 0) = 1;
}

}  // namespace

std::vector<Scenario> NonFiniteScenarios() {
  return {
      {"inf_in_docs", InfInDocs},           {"inf_in_queries", InfInQueries},
      {"inf_everywhere", InfEverywhere},    {"nan_in_docs", NaNInDocs},
      {"nan_in_queries", NaNInQueries},     {"nan_in_most_docs", NaNInMostDocs},
      {"nan_in_all_docs", NaNInAllDocs},    {"nan_and_inf_in_both", NaNAndInfInBoth},
      {"non_finite_first", NonFiniteFirst},
  };
}

}  // namespace tiny_knn::conformance
