// The flags of a search, which `tiny-knn run` and `tiny-knn submit` share, and what they mean.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/console.h"
#include "cli/flags.h"
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

// The flags as typed; nothing where one was not given. The arguments are the caller's to declare.
struct RunTexts {
  using Text = std::optional<std::string>;
  std::string queries, docs;
  Text k, dtype, batch_size, output_path, device, metric, threads, memory_limit, gpu_memory,
      input_dtype, docs_range, checkpoint, checkpoint_every, verify, progress;
  bool cpu = false, dry_run = false, exclude_self = false, quiet = false, verbose = false;
};
void DeclareRunFlags(FlagParser& parser, RunTexts& texts);

// Errors are InvalidArgument, one line that names the flag. Pure.
absl::StatusOr<RunRequest> InterpretRunFlags(const RunTexts& texts);

// Only what says how to report: for a search that is described elsewhere. Errors as above.
absl::StatusOr<RunRequest> InterpretReportingFlags(const RunTexts& texts);

// The first of the flags given that says what or how to search; null if there is none.
const char* FirstSearchFlagGiven(const RunTexts& texts);

// `args` follow the verb `run`. Errors as above.
absl::StatusOr<RunRequest> ParseRunFlags(const std::vector<std::string>& args);

// What the reporting flags ask of the console.
void SetUpConsole(const RunRequest& request, Console& console);

// Every flag of `run` there is: "-k", "--k", ...
std::vector<std::string> RunFlagNames();

}  // namespace tiny_knn
