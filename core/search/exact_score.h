// A pair's score by the contract of core/search/search.h, in exact integer arithmetic: the oracle's
// only tool, and the last resort of the fast path in core/search/rounded_score.h.
#pragma once

#include <cstdint>

#include "core/search/canonical_nan.h"
#include "core/search/search.h"

namespace tiny_knn {

// The correctly rounded score of the rows q and d, each [dim] of T = float or double (the result
// has the same type). Non-finite components, zero rows and signed zeros as the contract says. About
// 10 ns per component for ip, three times that for cosine and l2. Thread-safe.
template <typename T>
T ExactScore(Metric metric, const T* q, const T* d, int64_t dim);

}  // namespace tiny_knn
