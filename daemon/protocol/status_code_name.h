// Status codes by name: how a job's error travels, is kept, and becomes an exit code again.
#pragma once

#include <optional>
#include <string_view>

#include "absl/status/status.h"

namespace tiny_knn {

std::string_view StatusCodeName(absl::StatusCode code);  // "ok", "invalid_argument", ...
std::optional<absl::StatusCode> ParseStatusCode(std::string_view name);

}  // namespace tiny_knn
