// The conformance list: the named problems on which every engine must equal the oracle bit for bit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/matrix/dtype.h"
#include "core/search/planner.h"
#include "core/search/search.h"

namespace tiny_knn::conformance {

// What to change in the plan that PlanSearch made, so that small problems have many batches,
// chunks, blocks, tiles and thinnings. 0: as planned.
struct PlanOverrides {
  std::string_view name = "planned";
  int threads = 1;
  int64_t query_batch = 0;
  int64_t doc_chunk = 0;
  int64_t doc_block = 0;
  int64_t doc_splits = 0;
  int64_t query_tile = 0;
  int64_t doc_tile = 0;
  std::optional<int64_t> candidate_slack =
      std::nullopt;  // candidates are thinned at k + this, at least at 1
};

// How an engine is handed the rows.
enum class Storage {
  kPacked,      // rows side by side in memory
  kStrided,     // rows apart and misaligned
  kShortLived,  // a copy that is gone at the next call of Rows or Release
};

struct Case {
  std::string name;  // unique; letters, digits and underscores
  std::string_view scenario;
  uint64_t seed = 0;
  int64_t num_queries = 0;
  int64_t num_docs = 0;
  int64_t dim = 0;
  int64_t k = 0;
  Metric metric = Metric::kInnerProduct;
  DType query_dtype = DType::kFloat32;  // of the files
  DType doc_dtype = DType::kFloat32;
  DType compute_dtype = DType::kFloat32;
  bool exclude_self = false;
  int64_t first_doc = 0;
  Storage storage = Storage::kPacked;
  PlanOverrides plan;
};

// The whole list, the same in every process, about 2,600 cases.
const std::vector<Case>& AllCases();

// What PlanSearch is told of a case; rows as a source in memory hands them out.
ProblemShape ShapeOfCase(const Case& c);

// The plan of a case: PlanSearch's with the overrides in it.
SearchPlan PlanOfCase(const Case& c);

}  // namespace tiny_knn::conformance
