// The floating-point scenarios by what they try to break, and how they fill a problem.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/conformance/generator.h"

namespace tiny_knn::conformance {

std::vector<Scenario> TieScenarios();
std::vector<Scenario> MagnitudeScenarios();
std::vector<Scenario> NonFiniteScenarios();
std::vector<Scenario> CodeScenarios();

inline Value PowerOfTwo(int exponent) { return std::ldexp(Value{1}, exponent); }

// Element (i, j) of the queries becomes value(i, j), in row-major order of calls.
template <typename F>
void FillQueries(Problem& p, F value) {
  for (int64_t i = 0; i < p.num_queries; ++i) {
    for (int64_t j = 0; j < p.dim; ++j) p.q(i, j) = value(i, j);
  }
}

template <typename F>
void FillDocs(Problem& p, F value) {
  for (int64_t i = 0; i < p.num_docs; ++i) {
    for (int64_t j = 0; j < p.dim; ++j) p.d(i, j) = value(i, j);
  }
}

// Both sides uniform in [-1, 1).
inline void FillUniform(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t, int64_t) { return r.Unit(); });
  FillDocs(p, [&](int64_t, int64_t) { return r.Unit(); });
}

}  // namespace tiny_knn::conformance
