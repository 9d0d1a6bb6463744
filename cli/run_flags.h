// The flags of `tiny-knn run`, and what they mean.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/progress.h"
#include "core/job/job_spec.h"

namespace tiny_knn {

struct RunRequest {
  JobSpec spec;
  ProgressMode progress = ProgressMode::kAuto;
  bool dry_run = false;
  bool quiet = false;
  bool verbose = false;
  bool help = false;  // only the help was asked for; nothing else is filled in
};

// `args` follow the verb. Errors are InvalidArgument, one line that names the flag. Pure.
absl::StatusOr<RunRequest> ParseRunFlags(const std::vector<std::string>& args);

// Every flag there is: "-k", "--k", ...
std::vector<std::string> RunFlagNames();

}  // namespace tiny_knn
