// A search in this process, up to where it begins: what run starts with, and all of a dry run.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/console.h"
#include "core/job/job_spec.h"
#include "core/job/run_job.h"
#include "core/search/engine.h"

namespace tiny_knn {

struct LocalJob {
  PreparedJob prepared;
  std::unique_ptr<Engine> engine;
};

// Opens the files and the engine and plans, and notes why the engine is not the first choice.
// Errors as PrepareJob, a file that cannot be read being bad input, and as OpenEngine.
absl::StatusOr<LocalJob> OpenLocalJob(const JobSpec& spec, Console& console);

// The same, and prints the plan on standard output, and how long it would take: for that, about a
// second is measured.
absl::Status DryRun(const JobSpec& spec, Console& console);

}  // namespace tiny_knn
