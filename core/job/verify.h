// Repeats queries by the oracle and compares bit for bit: `--verify N`, and what the demo says of
// itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/io/row_source.h"
#include "core/search/search.h"

namespace tiny_knn {

// Seed of the sample of queries that RunJob verifies: fixed, so that a report can be repeated.
inline constexpr uint64_t kVerifySeed = 1;

// `count` distinct numbers of [0, population), ascending; all of them when count >= population. The
// same for the same arguments on every machine.
std::vector<int64_t> SampleDistinct(int64_t population, int64_t count, uint64_t seed);

// Compares the one-query result `found` with ReferenceSearch for query `query` of `queries`: empty
// when they are identical, else one line that names the query, the first rank that differs and both
// results. Errors are those of ReferenceSearch. Costs D exact scores. Arguments as in
// Engine::Search and valid; REQUIRES: found.num_queries == 1 and found.k == params.k.
absl::StatusOr<std::string> FindMismatch(RowSource& queries, int64_t query, RowSource& docs,
                                         const SearchParams& params, const TopKView& found);

}  // namespace tiny_knn
