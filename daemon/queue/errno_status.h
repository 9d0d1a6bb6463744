// errno as a Status, for the files that the queue keeps.
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace tiny_knn {

// No room: the disk's or the quota's.
bool IsNoSpace(int error_number);

// The Status of a system call that failed on `path`: "path: cannot open: No such file or
// directory". NotFound, PermissionDenied, ResourceExhausted (no space, quota) or Internal.
absl::Status QueueErrnoStatus(int error_number, std::string_view path, std::string_view action);

}  // namespace tiny_knn
