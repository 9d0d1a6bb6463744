// One search as a user asks for it: what `tiny-knn run` builds from its flags.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/matrix/dtype.h"
#include "core/search/search.h"

namespace tiny_knn {

struct JobSpec {
  std::string queries_path;  // as typed
  std::string docs_path;
  std::string output_path;   // empty: top{k}_{queries stem}_x_{docs stem}.pkl in the working folder
  std::optional<int64_t> k;  // nothing: min(2000, D), D - 1 with exclude_self
  Metric metric = Metric::kInnerProduct;
  DType compute_dtype = DType::kFloat32;
  std::optional<DType> input_dtype;   // how to read raw two-byte data; see OpenNpyRowSource
  std::optional<int64_t> batch_size;  // most queries per pass; nothing: as many as fit
  bool exclude_self = false;
  int threads = 0;                 // 0: one per CPU this process may use
  int64_t memory_limit_bytes = 0;  // 0: 75% of what is available, cgroup limits respected
  int64_t verify_queries = 0;      // this many random queries are repeated by the oracle
};

}  // namespace tiny_knn
