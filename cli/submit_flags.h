// The flags of `tiny-knn submit`: those of run, and those about the queue.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/daemon_connection.h"
#include "cli/flags.h"
#include "cli/run_flags.h"

namespace tiny_knn {

struct SubmitFlags {
  RunRequest run;                        // its spec is empty where there is a file
  std::optional<std::string> spec_file;  // "-": standard input
  bool wait = false;                     // also with follow
  bool follow = false;
  bool json = false;
  int priority = 0;
  std::string key;  // empty: one of the program's own
  int64_t timeout_seconds = 0;
  DaemonTexts daemon;
};

// `args` follow the verb. Errors are InvalidArgument, one line that names the flag. Pure.
absl::StatusOr<SubmitFlags> ParseSubmitFlags(const std::vector<std::string>& args);

// Every flag there is.
std::vector<FlagParser::Flag> ListSubmitFlags();

}  // namespace tiny_knn
