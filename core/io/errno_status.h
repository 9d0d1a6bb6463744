// errno as a Status.
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace tiny_knn {

// No room: the disk's or the quota's.
bool IsNoSpace(int error_number);

// The Status of a system call that failed on `path` with `error_number`: "path: cannot open: No
// such file or directory". NotFound, PermissionDenied, ResourceExhausted (no space, quota, memory,
// descriptors), InvalidArgument (a name that cannot be) or Internal.
absl::Status ErrnoStatus(int error_number, std::string_view path, std::string_view action);

// The error number that such a status, or a copy of it, was made of; 0 for every other status.
int ErrnoOf(const absl::Status& status);

}  // namespace tiny_knn
