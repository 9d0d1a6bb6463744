#include "core/job/run_job.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "core/io/atomic_file.h"
#include "core/io/result_file.h"
#include "core/io/row_fingerprint.h"
#include "core/io/row_range.h"
#include "core/job/checkpoint.h"
#include "core/job/docs_range.h"
#include "core/job/job_checkpoint.h"
#include "core/job/job_paths.h"
#include "core/job/result_sink.h"
#include "core/job/verify.h"
#include "core/job/version.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr int64_t kDefaultRecordedBatchSize = 512;
// What the program takes before it searches: code, libraries, stacks and heap. A search of some
// rows ends with 10.0 to 11.3 MiB resident: how much of its file is mapped at a touch is the
// kernel's choice.
constexpr int64_t kProgramBytes = int64_t{12} << 20;

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Inputs {
  VersionedRows queries;
  OpenedDocs docs;
};

// `--input-dtype` names the type of raw data, which a header cannot; one of the two, queries or
// docs, may well be typed by headers instead. It is an error when it fits neither.
absl::StatusOr<Inputs> OpenInputs(const JobSpec& spec) {
  const std::string queries_path = ResolvePath(spec, spec.queries_path);
  const std::string docs_path = ResolvePath(spec, spec.docs_path);
  absl::StatusOr<VersionedRows> queries = OpenVersionedRows(queries_path, spec.input_dtype);
  absl::StatusOr<OpenedDocs> docs = OpenDocs(docs_path, spec.input_dtype);
  if (spec.input_dtype && !queries.ok() && docs.ok()) {
    auto by_header = OpenVersionedRows(queries_path, std::nullopt);
    if (by_header.ok()) queries = std::move(by_header);
  } else if (spec.input_dtype && queries.ok() && !docs.ok()) {
    auto by_header = OpenDocs(docs_path, std::nullopt);
    if (by_header.ok()) docs = std::move(by_header);
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
  if (spec.checkpoint_seconds < 0 || spec.checkpoint_seconds > kMostCheckpointSeconds) {
    return absl::InvalidArgumentError(fmt::format("checkpoint every {} s: must be 0 to {}",
                                                  spec.checkpoint_seconds, kMostCheckpointSeconds));
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

absl::Status CheckOutputIsNoInput(const JobSpec& spec, const PreparedJob& job) {
  const std::string checkpoint = ResolvePath(spec, spec.checkpoint_path);
  if (!checkpoint.empty() &&
      (job.output_path == checkpoint || SameFile(job.output_path, checkpoint))) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: is the output and the checkpoint; choose another --checkpoint", job.output_path));
  }
  std::vector<std::string> inputs = {ResolvePath(spec, spec.queries_path)};
  for (const DocsFile& file : job.docs_files) inputs.push_back(file.path);
  for (const std::string& input : inputs) {
    if (SameFile(job.output_path, input)) {
      return absl::InvalidArgumentError(
          fmt::format("{}: the output would overwrite the input {}; choose another --output-path",
                      job.output_path, input));
    }
  }
  return absl::OkStatus();
}

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

// Makes a job of all docs one of docs [begin, end).
absl::Status TakeRange(int64_t begin, int64_t end, PreparedJob& job) {
  const absl::StatusOr<std::string> fingerprint = FingerprintOfSample(*job.docs);
  if (!fingerprint.ok()) return fingerprint.status();
  job.part = ResultPart{.docs_begin = begin,
                        .docs_end = end,
                        .num_docs = job.docs->rows(),
                        .k_wanted = job.params.k,
                        .docs_fingerprint = *fingerprint};
  job.docs = MakeRowRange(std::move(job.docs), begin, end);
  job.params.first_doc = begin;
  job.params.k = std::min(job.params.k, end - begin);
  // Some queries would have a doc less than the others, and results have one k for all.
  if (job.params.exclude_self && job.params.k == end - begin) {
    job.params.exclude_self = false;
    job.drops_self_when_written = true;
  }
  return absl::OkStatus();
}

absl::StatusOr<PreparedJob> Prepare(const JobSpec& spec, DocsUse use) {
  absl::Status status = CheckSpec(spec);
  if (!status.ok()) return status;
  absl::StatusOr<Inputs> inputs = OpenInputs(spec);
  if (!inputs.ok()) return inputs.status();

  PreparedJob job;
  job.queries = std::move(inputs->queries.rows);
  job.queries_version = inputs->queries.version;
  job.docs = std::move(inputs->docs.rows);
  job.docs_manifest = inputs->docs.Manifest();
  job.docs_files = std::move(inputs->docs.files);
  const int64_t largest_k = job.docs->rows() - (spec.exclude_self ? 1 : 0);
  if (!spec.k && largest_k < 1) {
    return absl::InvalidArgumentError(
        fmt::format("{}: has {} {}{}, so there is no doc to find; give a file with more rows",
                    spec.docs_path, job.docs->rows(), job.docs->rows() == 1 ? "row" : "rows",
                    spec.exclude_self ? " and --exclude-self drops one" : ""));
  }
  const int64_t k = spec.k.value_or(std::min(kMostDefaultK, largest_k));
  job.params = {k, spec.metric, spec.compute_dtype, spec.exclude_self};
  job.k_was_reduced = !spec.k && k < kMostDefaultK;
  status = ValidateSearch(*job.queries, *job.docs, job.params);
  if (!status.ok()) return status;

  JobSpec named = spec;
  if (spec.docs_range) {
    const absl::StatusOr<DocsRange> range =
        ResolveDocsRange(*spec.docs_range, job.docs->rows(), spec.docs_path);
    if (!range.ok()) return range.status();
    named.docs_range = *range;
    status = TakeRange(range->begin, *range->end, job);
    if (!status.ok()) return status;
  }
  job.output_path = ResolvedOutputPath(named, k);
  status = CheckOutputIsNoInput(spec, job);
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
  absl::Status status = CheckOutputIsNoInput(spec, job);
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
  metadata.exclude_self = spec.exclude_self;
  metadata.docs_manifest = job.docs_manifest;
  if (job.part) {
    absl::StatusOr<std::string> fingerprint = FingerprintOfRows(*job.queries);
    if (!fingerprint.ok()) return fingerprint.status();
    metadata.part = *job.part;
    metadata.part.queries_fingerprint = *std::move(fingerprint);
  }
  std::unique_ptr<Checkpoint> checkpoint;
  std::string temporary_tag = options.temporary_tag;
  if (!spec.checkpoint_path.empty()) {
    absl::StatusOr<std::unique_ptr<Checkpoint>> opened = OpenJobCheckpoint(spec, job);
    if (!opened.ok()) return opened.status();
    checkpoint = *std::move(opened);
    if (temporary_tag.empty()) {
      // So that what a process that was killed left is found, and does not pile up.
      temporary_tag = "checkpoint-" + checkpoint->run_id();
      status = AtomicFile::RemoveLeftover(job.output_path, temporary_tag);
      if (!status.ok()) return status;
    }
  }
  // Before the search: a folder that cannot be written and a disk that is full are found now.
  const Clock::time_point create_start = Clock::now();
  absl::StatusOr<std::unique_ptr<ResultWriter>> created =
      CreateResultWriter(job.output_path, metadata, {temporary_tag});
  if (!created.ok()) return created.status();
  std::unique_ptr<ResultWriter> writer = *std::move(created);
  if (job.drops_self_when_written) {
    writer = MakeSelfDroppingWriter(std::move(writer), metadata.k, metadata.score_dtype);
  }
  const double create_seconds = SecondsSince(create_start);

  ResultSink sink(*writer, SampleDistinct(job.queries->rows(), spec.verify_queries, kVerifySeed));
  if (checkpoint != nullptr) {
    status = checkpoint->Replay(sink);
    if (!status.ok()) return status;
    sink.set_checkpoint(checkpoint.get());
  }
  const Clock::time_point start = Clock::now();
  const double seconds_before = sink.seconds();
  absl::StatusOr<SearchReport> report =
      engine.Search(*job.queries, *job.docs, job.params, job.plan, progress, sink,
                    checkpoint == nullptr ? options.warm_docs : nullptr, checkpoint.get());
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
  result.search_seconds = std::max(0.0, SecondsSince(start) - (sink.seconds() - seconds_before));

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
  status = writer->Commit();
  if (!status.ok()) return status;
  result.write_seconds = create_seconds + sink.seconds() + SecondsSince(commit_start);
  if (checkpoint != nullptr) {
    // The result is there, whatever becomes of this.
    status = checkpoint->Remove();
    if (!status.ok()) job.checkpoint_note = std::string(status.message());
  }
  return result;
}

}  // namespace

SearchLimits LimitsOf(const JobSpec& spec) {
  return {.threads = spec.threads,
          .memory_limit_bytes = spec.memory_limit_bytes,
          .batch_size = spec.batch_size.value_or(0),
          .saves_state = !spec.checkpoint_path.empty(),
          .program_bytes = kProgramBytes};
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
