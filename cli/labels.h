// Names of rows: a text file with one label a line.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tiny_knn {

// The lines `wanted` (0-based) of the file at `path`, and no others in memory; a line's end may be
// LF or CRLF. Labels are as in the file but safe to print (OneLine of core/job/one_line.h).
// Errors name the file: NotFound or PermissionDenied, and InvalidArgument when it has too few lines
// (saying how many there are), a line of more than 1 MiB, or is no regular file.
absl::StatusOr<std::map<int64_t, std::string>> ReadLabels(const std::string& path,
                                                          const std::set<int64_t>& wanted);

// All lines of the file. Errors as above.
absl::StatusOr<std::vector<std::string>> ReadAllLabels(const std::string& path);

}  // namespace tiny_knn
