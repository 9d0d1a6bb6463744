#include "cli/local_job.h"

#include <string>
#include <utility>

#include "cli/progress.h"
#include "cli/search_report.h"
#include "core/job/estimate.h"
#include "core/job/job_paths.h"
#include "core/job/job_report.h"
#include "core/job/one_line.h"
#include "fmt/format.h"
#include "gpu/open_engine.h"

namespace tiny_knn {

absl::StatusOr<LocalJob> OpenLocalJob(const JobSpec& spec, Console& console) {
  absl::StatusOr<PreparedJob> prepared = PrepareJob(spec);
  if (!prepared.ok()) return AsBadInput(prepared.status());
  absl::StatusOr<OpenedEngine> opened = OpenEngine({spec.device, spec.gpu_memory_bytes});
  // A device that is not there was the wrong one to ask for.
  if (!opened.ok()) return AsBadInput(opened.status());
  if (!opened->note.empty()) console.Note(opened->note);
  return LocalJob{.prepared = *std::move(prepared), .engine = std::move(opened->engine)};
}

absl::Status DryRun(const JobSpec& spec, Console& console) {
  absl::StatusOr<LocalJob> job = OpenLocalJob(spec, console);
  if (!job.ok()) return job.status();
  NoteDefaultK(job->prepared, console);
  const auto lines = PlanLines(spec, job->prepared, *job->engine);
  if (!lines.ok()) return lines.status();
  for (const std::string& line : *lines) {
    console.Out(OneLine(line) + "\n");
  }
  ConsoleProgress interruptible(console, /*bar=*/false, /*json=*/false);
  const absl::StatusOr<SearchEstimate> estimate =
      EstimateSearch(job->prepared, *job->engine, &interruptible);
  if (absl::IsCancelled(estimate.status())) return absl::CancelledError("interrupted");
  if (!estimate.ok()) return WithPathsAsTyped(spec, estimate.status());
  console.Out(fmt::format("{:<14}{}\n", "estimate", DescribeEstimate(*estimate)));
  return absl::OkStatus();
}

}  // namespace tiny_knn
