// The oracle: the contract of core/search/search.h in exact arithmetic, with no shortcut. Slow,
// simple and single-threaded; every engine must equal it bit for bit. `tiny-knn run --verify` runs
// it too.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "core/io/row_source.h"
#include "core/search/search.h"

namespace tiny_knn {

// The exact top k of the queries with the given indices (rows of `queries`), written to
// `out` [query_indices.size(), k], and what was noticed (query counts are of the given queries
// only). Arguments as in Engine::Search and already valid.
absl::Status ReferenceSearch(RowSource& queries, std::span<const int64_t> query_indices,
                             RowSource& docs, const SearchParams& params, const TopKView& out,
                             SearchReport& report);

}  // namespace tiny_knn
