// The checkpoint of a job: that of a search, and of no other.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "core/job/checkpoint.h"
#include "core/job/job_spec.h"
#include "core/job/run_job.h"

namespace tiny_knn {

// Opens or makes the checkpoint that the spec names, and notes in the job what it had done. Errors
// as of Checkpoint::Open.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenJobCheckpoint(const JobSpec& spec,
                                                              PreparedJob& job);

}  // namespace tiny_knn
