// From a JobSpec to an output file: the one way in which `run`, the daemon and the libraries get
// from files to a result file. (search_rows.h searches into memory.)
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/docs_files.h"
#include "core/io/result.h"
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
  std::unique_ptr<RowSource> docs;  // those that are searched
  FileVersion queries_version;
  std::vector<DocsFile> docs_files;  // that all docs come from
  std::string docs_manifest;         // ResultMetadata's
  // Of a range of the docs; its queries_fingerprint is empty until they are read.
  std::optional<ResultPart> part;
  SearchParams params;
  ProblemShape shape;
  SearchPlan plan;
  std::string output_path;     // filled in; resolved against the spec's working folder
  bool k_was_reduced = false;  // the default k = 2000 was more than there are docs
  // Once it runs: what a checkpoint had done of it, 0 to 1. 0: it began.
  double share_done_before = 0;
  std::string checkpoint_note;  // why a checkpoint is still there though the job is done
  // A range of at most k docs: all of them are ranked, and a query's own, which exclude_self leaves
  // out, is taken from its row before that is written.
  bool drops_self_when_written = false;
  int64_t batch_size_recorded;  // what the result file's `batch_size` says: as asked, else 512

  // The k that was asked for, or its default; params.k is less where fewer docs are searched.
  int64_t k_of_all() const { return part ? part->k_wanted : params.k; }
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
// no output and no temporary file is left; but a checkpoint stays, if the spec names one, and is
// removed when the result is written.
absl::StatusOr<JobResult> RunJob(const JobSpec& spec, PreparedJob& job, Engine& engine,
                                 const RunJobOptions& options);

}  // namespace tiny_knn
