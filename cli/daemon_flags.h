// The flags of `tiny-knn daemon`, and what tiny-knnd is started with.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/flags.h"

namespace tiny_knn {

// Whose members a daemon of root serves where no flag says so, if the system has such a group.
inline constexpr const char* kDefaultGroup = "tiny-knn";
inline constexpr const char* kDefaultAdminGroup = "tiny-knn-admin";

// Who starts the daemon, and which groups the system has. By default nobody's daemon but one's own.
struct DaemonSurroundings {
  bool is_root = false;
  // The id of the group of that name; none where there is none.
  std::function<std::optional<gid_t>(const std::string& name)> find_group;
};

struct DaemonStart {
  bool help = false;
  // For tiny-knnd: values checked, paths absolute, sizes in bytes, durations in seconds, groups as
  // numbers. Only what was typed, and the default groups; it knows its other defaults.
  std::vector<std::string> arguments;
};

// `args` follow the verb; relative paths start at `folder`, which is absolute. Errors are
// InvalidArgument, one line that names the flag. Pure but for `surroundings`.
absl::StatusOr<DaemonStart> ParseDaemonFlags(const std::vector<std::string>& args,
                                             const std::string& folder,
                                             const DaemonSurroundings& surroundings = {});

// Every flag there is.
std::vector<FlagParser::Flag> ListDaemonFlags();

}  // namespace tiny_knn
