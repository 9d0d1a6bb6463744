// One search as a user asks for it: what `tiny-knn run` and `tiny-knn submit` build from their
// flags, what a daemon's queue holds, and what RunJob runs. docs/job_spec.md describes it as JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/job/docs_range.h"
#include "core/matrix/dtype.h"
#include "core/search/search.h"

namespace tiny_knn {

// What may be asked for as JobSpec::threads.
inline constexpr int kMostThreads = 4096;

inline constexpr int64_t kDefaultCheckpointSeconds = 30;
// What may be asked for: three years.
inline constexpr int64_t kMostCheckpointSeconds = int64_t{3} * 365 * 24 * 3600;

struct JobSpec {
  std::string queries_path;    // as typed; result files record it so
  std::string docs_path;       // a file, a folder or a pattern of files; see OpenDocs
  std::string output_path;     // empty: top{k}_{queries stem}_x_{docs stem}.pkl, see job_paths.h
  std::string working_folder;  // where relative paths start; empty: this process's own folder
  std::optional<int64_t> k;    // nothing: min(2000, D), D - 1 with exclude_self
  // Only these docs are searched, and the result is a part (ResultPart); nothing: all.
  std::optional<DocsRange> docs_range;
  Metric metric = Metric::kInnerProduct;
  DType compute_dtype = DType::kFloat32;
  std::optional<DType> input_dtype;   // how to read raw two-byte data; see OpenNpyRowSource
  std::optional<int64_t> batch_size;  // most queries per pass; nothing: as many as fit
  bool exclude_self = false;
  std::string device = "auto";     // see EngineOptions in gpu/open_engine.h
  int64_t gpu_memory_bytes = 0;    // most memory on a CUDA device; 0: what is free
  int threads = 0;                 // 0: one per CPU this process may use
  int64_t memory_limit_bytes = 0;  // 0: 75% of what is available, cgroup limits respected
  int64_t verify_queries = 0;      // this many random queries are repeated by the oracle
  // Where the search leaves how far it is, so that the same job goes on there after a crash; empty:
  // nowhere. Saved at the borders of chunks, when so many seconds have passed; 0: at each.
  std::string checkpoint_path;
  int64_t checkpoint_seconds = kDefaultCheckpointSeconds;
  // File mode creation mask of who asked, for a process that runs the job in their name (the
  // daemon's worker sets it before RunJob); nothing: this process's own.
  std::optional<int> umask;
};

}  // namespace tiny_knn
