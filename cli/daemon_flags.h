// The flags of `tiny-knn daemon`, and what tiny-knnd is started with.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/flags.h"

namespace tiny_knn {

struct DaemonStart {
  bool help = false;
  // For tiny-knnd: values checked, paths absolute, sizes in bytes, durations in seconds. Only what
  // was typed; it knows its own defaults.
  std::vector<std::string> arguments;
};

// `args` follow the verb; relative paths start at `folder`, which is absolute. Errors are
// InvalidArgument, one line that names the flag. Pure.
absl::StatusOr<DaemonStart> ParseDaemonFlags(const std::vector<std::string>& args,
                                             const std::string& folder);

// Every flag there is.
std::vector<FlagParser::Flag> ListDaemonFlags();

}  // namespace tiny_knn
