// Where the files of a job lie: relative paths start at the spec's working folder, and messages
// still name them as they were typed. Pure functions, safe to call from any thread.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "core/job/job_spec.h"

namespace tiny_knn {

// `path` as this process has to open it. Unchanged when it is absolute, or when the spec has no
// working folder.
std::string ResolvePath(const JobSpec& spec, const std::string& path);

// Where a search of the k nearest docs writes its result, resolved: the spec's output path, else
// top{k}_{queries stem}_x_{docs stem}.pkl, with _{A}-{B} behind the stems where only docs A:B are
// searched. The stem of a pattern is its folder's name.
std::string ResolvedOutputPath(const JobSpec& spec, int64_t k);

// The same status with the input files named as they were typed, not as they were resolved.
absl::Status WithPathsAsTyped(const JobSpec& spec, const absl::Status& status);

}  // namespace tiny_knn
