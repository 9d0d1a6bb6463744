// How long a job would take, from about a second of measuring: for `--dry-run`.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "core/job/run_job.h"
#include "core/search/engine.h"
#include "core/search/search.h"

namespace tiny_knn {

struct SearchEstimate {
  double seconds = 0;       // of the search, all passes
  double disk_seconds = 0;  // of these, at least so many pass until the disk has delivered the docs
  double search_seconds = 0;  // and so many of computing, copies out of the page cache included
  double read_bytes_per_second = 0;  // of these docs, as they came now; 0: nothing is read
};

// Measures with `job`'s own files, plan and engine: how fast docs come, from a stretch in the
// middle of the file, and how fast a part of the queries is searched in a part of the docs, with as
// many results per doc as in the whole. A file of which a part is in the page cache is taken for
// one that is there as far as that stretch is. Takes about a second, more where a block of docs
// takes more, and up to 256 MiB. Errors: those of reading and searching. `progress` may cancel it,
// or be null.
absl::StatusOr<SearchEstimate> EstimateSearch(PreparedJob& job, Engine& engine, Progress* progress);

// "4.2 s: docs come at 1.20 GB/s, ...".
std::string DescribeEstimate(const SearchEstimate& estimate);

}  // namespace tiny_knn
