// From a JobSpec to an output file: the one way in which `run`, the daemon and the libraries get
// from files to a result file. (search_rows.h searches into memory.)
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/row_source.h"
#include "core/job/job_spec.h"
#include "core/job/search_rows.h"
#include "core/search/engine.h"
#include "core/search/planner.h"
#include "core/search/search.h"

namespace tiny_knn {

// A job that names no k gets this one, or all docs where there are fewer.
inline constexpr int64_t kMostDefaultK = 2000;

// A job with its files open, its defaults filled in and its plan made: nothing searched or written.
struct PreparedJob {
  std::unique_ptr<RowSource> queries;
  std::unique_ptr<RowSource> docs;
  SearchParams params;
  ProblemShape shape;
  SearchPlan plan;
  std::string output_path;      // filled in; resolved against the spec's working folder
  bool k_was_reduced = false;   // the default k = 2000 was more than there are docs
  int64_t batch_size_recorded;  // what the result file's `batch_size` says: as asked, else 512
};

// What the spec allows a search.
SearchLimits LimitsOf(const JobSpec& spec);

// Plans within what the spec and the machine allow now. As PlanRows.
absl::StatusOr<SearchPlan> PlanJob(const JobSpec& spec, const ProblemShape& shape,
                                   DocsUse use = DocsUse::kOnce);

// Opens, validates and plans. Errors name the file as typed, or the flag, and what to do.
absl::StatusOr<PreparedJob> PrepareJob(const JobSpec& spec, DocsUse use = DocsUse::kOnce);

// A file that cannot be read as what it says it is, and a device that is not there, are bad input
// and no failure of ours: DataLoss (truncated) and Unavailable become InvalidArgument. Everything
// else stays as it is. For what opening says.
absl::Status AsBadInput(const absl::Status& status);

struct JobResult {
  SearchReport report;
  double search_seconds = 0;
  double write_seconds = 0;
  int64_t verified_queries = 0;
  int64_t verify_mismatches = 0;  // queries whose result differs from the oracle's: a bug of ours
};

struct RunJobOptions {
  Progress* progress = nullptr;
  // Docs kept from or for another search of the same file, dtype and metric; null: none. Not owned.
  WarmDocs* warm_docs = nullptr;
  // Names the temporary file, so that it can be found after a crash; see AtomicFileOptions.
  std::string temporary_tag = {};
};

// Searches and writes `job.output_path` through an AtomicFile. On any error, cancellation included,
// no output and no temporary file is left.
absl::StatusOr<JobResult> RunJob(const JobSpec& spec, PreparedJob& job, Engine& engine,
                                 const RunJobOptions& options);

}  // namespace tiny_knn
