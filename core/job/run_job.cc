#include "core/job/run_job.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "core/io/result_file.h"
#include "core/job/job_paths.h"
#include "core/job/verify.h"
#include "core/job/version.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr int64_t kDefaultRecordedBatchSize = 512;

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Inputs {
  std::unique_ptr<RowSource> queries;
  std::unique_ptr<RowSource> docs;
};

// `--input-dtype` names the type of raw data, which a header cannot; one of the two files may well
// be typed by its header instead. It is an error when it fits neither.
absl::StatusOr<Inputs> OpenInputs(const JobSpec& spec) {
  const std::string queries_path = ResolvePath(spec, spec.queries_path);
  const std::string docs_path = ResolvePath(spec, spec.docs_path);
  absl::StatusOr<std::unique_ptr<RowSource>> queries =
      OpenNpyRowSource(queries_path, spec.input_dtype);
  absl::StatusOr<std::unique_ptr<RowSource>> docs = OpenNpyRowSource(docs_path, spec.input_dtype);
  if (spec.input_dtype && queries.ok() != docs.ok()) {
    absl::StatusOr<std::unique_ptr<RowSource>>& misfit = queries.ok() ? docs : queries;
    absl::StatusOr<std::unique_ptr<RowSource>> by_header =
        OpenNpyRowSource(queries.ok() ? docs_path : queries_path, std::nullopt);
    if (by_header.ok()) misfit = std::move(by_header);
  }
  if (!queries.ok()) return queries.status();
  if (!docs.ok()) return docs.status();
  return Inputs{*std::move(queries), *std::move(docs)};
}

absl::Status CheckSpec(const JobSpec& spec) {
  if (spec.batch_size && *spec.batch_size < 1) {
    return absl::InvalidArgumentError(
        fmt::format("batch size {}: must be at least 1", *spec.batch_size));
  }
  if (spec.threads < 0) {
    return absl::InvalidArgumentError(
        fmt::format("threads {}: must be at least 1, or 0 for one per CPU", spec.threads));
  }
  if (spec.memory_limit_bytes < 0) {
    return absl::InvalidArgumentError(fmt::format(
        "memory limit {}: must be at least 1 byte, or 0 for automatic", spec.memory_limit_bytes));
  }
  if (spec.verify_queries < 0) {
    return absl::InvalidArgumentError(
        fmt::format("verify {}: must be 0 or more queries", spec.verify_queries));
  }
  return absl::OkStatus();
}

bool SameFile(const std::string& a, const std::string& b) {
  struct stat stat_a, stat_b;
  return stat(a.c_str(), &stat_a) == 0 && stat(b.c_str(), &stat_b) == 0 &&
         stat_a.st_dev == stat_b.st_dev && stat_a.st_ino == stat_b.st_ino;
}

absl::Status CheckOutputIsNoInput(const JobSpec& spec, const std::string& output_path) {
  for (const std::string& input : {spec.queries_path, spec.docs_path}) {
    if (SameFile(output_path, ResolvePath(spec, input))) {
      return absl::InvalidArgumentError(
          fmt::format("{}: the output would overwrite the input {}; choose another --output-path",
                      output_path, input));
    }
  }
  return absl::OkStatus();
}

// Writes finished rows, and keeps a copy of those that will be verified.
class ResultSink : public TopKSink {
 public:
  ResultSink(ResultWriter& writer, std::vector<int64_t> keep)
      : writer_(writer), keep_(std::move(keep)) {}

  absl::Status Take(int64_t first_query, const TopKView& results) override {
    const Clock::time_point start = Clock::now();
    const size_t row_bytes =
        static_cast<size_t>(results.k) * static_cast<size_t>(ItemSize(results.score_dtype));
    const auto* scores = static_cast<const std::byte*>(results.scores);
    const auto begin = std::lower_bound(keep_.begin(), keep_.end(), first_query);
    const auto end = std::lower_bound(begin, keep_.end(), first_query + results.num_queries);
    for (auto query = begin; query != end; ++query) {
      const int64_t row = *query - first_query;
      Row& kept = rows_[*query];
      const int64_t* indices = results.indices + row * results.k;
      kept.indices.assign(indices, indices + results.k);
      const std::byte* row_scores = scores + static_cast<size_t>(row) * row_bytes;
      kept.scores.assign(row_scores, row_scores + row_bytes);
    }
    absl::Status status =
        writer_.WriteRows(first_query, results.num_queries, results.indices, results.scores);
    seconds_ += SecondsSince(start);
    return status;
  }

  struct Row {
    std::vector<int64_t> indices;
    std::vector<std::byte> scores;
  };
  // Query index to its row, for every kept query that was taken.
  std::map<int64_t, Row>& rows() { return rows_; }
  double seconds() const { return seconds_; }

 private:
  ResultWriter& writer_;
  const std::vector<int64_t> keep_;  // ascending
  std::map<int64_t, Row> rows_;
  double seconds_ = 0;
};

absl::Status CheckInputsUnchanged(PreparedJob& job) {
  absl::Status status = job.queries->CheckUnchanged();
  return status.ok() ? job.docs->CheckUnchanged() : status;
}

absl::Status CheckCancelled(const Progress* progress) {
  if (progress != nullptr && progress->cancelled()) {
    return absl::CancelledError("interrupted; nothing was written");
  }
  return absl::OkStatus();
}

// Verifies the kept rows, one query at a time so that an interrupt is heard between them.
absl::Status VerifyRows(PreparedJob& job, ResultSink& sink, const Progress* progress,
                        JobResult& result) {
  std::string first_mismatch;
  for (auto& [query, row] : sink.rows()) {
    absl::Status status = CheckCancelled(progress);
    if (!status.ok()) return status;
    const TopKView found{1, job.params.k, WorkingDType(job.params.compute_dtype), row.scores.data(),
                         row.indices.data()};
    absl::StatusOr<std::string> mismatch =
        FindMismatch(*job.queries, query, *job.docs, job.params, found);
    if (!mismatch.ok()) return mismatch.status();
    if (!mismatch->empty()) {
      ++result.verify_mismatches;
      if (first_mismatch.empty()) first_mismatch = *std::move(mismatch);
    }
    ++result.verified_queries;
  }
  if (first_mismatch.empty()) return absl::OkStatus();
  return absl::InternalError(
      fmt::format("--verify: {} of {} queries are wrong and nothing was written; this is a bug in "
                  "tiny-knn, please report it: {}",
                  result.verify_mismatches, result.verified_queries, first_mismatch));
}

absl::StatusOr<PreparedJob> Prepare(const JobSpec& spec, DocsUse use) {
  absl::Status status = CheckSpec(spec);
  if (!status.ok()) return status;
  absl::StatusOr<Inputs> inputs = OpenInputs(spec);
  if (!inputs.ok()) return inputs.status();

  PreparedJob job;
  job.queries = std::move(inputs->queries);
  job.docs = std::move(inputs->docs);
  const int64_t largest_k = job.docs->rows() - (spec.exclude_self ? 1 : 0);
  if (!spec.k && largest_k < 1) {
    return absl::InvalidArgumentError(
        fmt::format("{}: has {} {}{}, so there is no doc to find; give a file with more rows",
                    spec.docs_path, job.docs->rows(), job.docs->rows() == 1 ? "row" : "rows",
                    spec.exclude_self ? " and --exclude-self drops one" : ""));
  }
  job.params = {spec.k.value_or(std::min(kMostDefaultK, largest_k)), spec.metric,
                spec.compute_dtype, spec.exclude_self};
  job.k_was_reduced = !spec.k && job.params.k < kMostDefaultK;
  status = ValidateSearch(*job.queries, *job.docs, job.params);
  if (!status.ok()) return status;

  job.output_path = ResolvedOutputPath(spec, job.params.k);
  status = CheckOutputIsNoInput(spec, job.output_path);
  if (!status.ok()) return status;
  job.batch_size_recorded = spec.batch_size.value_or(kDefaultRecordedBatchSize);

  job.shape = ShapeOf(*job.queries, *job.docs, job.params);
  absl::StatusOr<SearchPlan> plan = PlanJob(spec, job.shape, use);
  if (!plan.ok()) return plan.status();
  job.plan = *std::move(plan);
  return job;
}

absl::StatusOr<JobResult> Run(const JobSpec& spec, PreparedJob& job, Engine& engine,
                              const RunJobOptions& options) {
  Progress* const progress = options.progress;
  // Time has passed since PrepareJob: somebody may have linked an input to the output's name.
  absl::Status status = CheckOutputIsNoInput(spec, job.output_path);
  if (!status.ok()) return status;
  ResultMetadata metadata;
  metadata.num_queries = job.queries->rows();
  metadata.k = job.params.k;
  metadata.score_dtype = WorkingDType(job.params.compute_dtype);
  metadata.queries_path = spec.queries_path;
  metadata.docs_path = spec.docs_path;
  metadata.batch_size = job.batch_size_recorded;
  metadata.dtype = std::string(DTypeName(job.params.compute_dtype));
  metadata.device = std::string(engine.device());
  metadata.metric = std::string(MetricName(job.params.metric));
  metadata.tiny_knn_version = std::string(kTinyKnnVersion);
  // Before the search: a folder that cannot be written and a disk that is full are found now.
  const Clock::time_point create_start = Clock::now();
  absl::StatusOr<std::unique_ptr<ResultWriter>> writer =
      CreateResultWriter(job.output_path, metadata, {options.temporary_tag});
  if (!writer.ok()) return writer.status();
  const double create_seconds = SecondsSince(create_start);

  ResultSink sink(**writer, SampleDistinct(job.queries->rows(), spec.verify_queries, kVerifySeed));
  const Clock::time_point start = Clock::now();
  absl::StatusOr<SearchReport> report = engine.Search(*job.queries, *job.docs, job.params, job.plan,
                                                      progress, sink, options.warm_docs);
  if (!report.ok()) {
    // Whatever went wrong, a file that changed under the search is the likelier cause to act on.
    if (!absl::IsCancelled(report.status())) {
      status = CheckInputsUnchanged(job);
      if (!status.ok()) return status;
    }
    return report.status();
  }
  JobResult result;
  result.report = *report;
  result.search_seconds = std::max(0.0, SecondsSince(start) - sink.seconds());

  // Before verifying, so that rows read from a changed file are not called our mistake.
  status = CheckInputsUnchanged(job);
  if (status.ok()) status = VerifyRows(job, sink, progress, result);
  if (!absl::IsCancelled(status)) {
    absl::Status changed = CheckInputsUnchanged(job);
    if (!changed.ok()) status = changed;
  }
  if (status.ok()) status = CheckCancelled(progress);
  if (!status.ok()) return status;

  const Clock::time_point commit_start = Clock::now();
  status = (*writer)->Commit();
  if (!status.ok()) return status;
  result.write_seconds = create_seconds + sink.seconds() + SecondsSince(commit_start);
  return result;
}

}  // namespace

SearchLimits LimitsOf(const JobSpec& spec) {
  return {.threads = spec.threads,
          .memory_limit_bytes = spec.memory_limit_bytes,
          .batch_size = spec.batch_size.value_or(0)};
}

absl::StatusOr<SearchPlan> PlanJob(const JobSpec& spec, const ProblemShape& shape, DocsUse use) {
  return PlanRows(shape, LimitsOf(spec), use);
}

absl::StatusOr<PreparedJob> PrepareJob(const JobSpec& spec, DocsUse use) {
  absl::StatusOr<PreparedJob> job = Prepare(spec, use);
  if (!job.ok()) return WithPathsAsTyped(spec, job.status());
  return job;
}

absl::Status AsBadInput(const absl::Status& status) {
  if (!absl::IsDataLoss(status) && !absl::IsUnavailable(status)) return status;
  return absl::InvalidArgumentError(std::string(status.message()));
}

absl::StatusOr<JobResult> RunJob(const JobSpec& spec, PreparedJob& job, Engine& engine,
                                 const RunJobOptions& options) {
  absl::StatusOr<JobResult> result = Run(spec, job, engine, options);
  if (!result.ok()) return WithPathsAsTyped(spec, result.status());
  return result;
}

}  // namespace tiny_knn
