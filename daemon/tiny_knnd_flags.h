// The flags of tiny-knnd. `tiny-knn daemon` has checked and resolved what people type (names of
// groups, sizes, durations); here they are plain numbers and absolute paths.
#pragma once

#include "absl/status/statusor.h"
#include "daemon/supervisor/options.h"

namespace tiny_knn {

struct SupervisorFlags {
  SupervisorOptions options;  // with defaults from the environment filled in
  bool background = false;
  bool names_socket = false;  // --socket was given
};

// Errors are InvalidArgument or FailedPrecondition, one line. Prints the version or the help and
// ends the process where that is asked for.
absl::StatusOr<SupervisorFlags> ParseSupervisorFlags(int argc, char** argv);

}  // namespace tiny_knn
