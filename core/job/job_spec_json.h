// JobSpec as JSON, as docs/job_spec.md gives it: what `submit --spec FILE` reads, what travels to a
// daemon, and what its journal keeps.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/job/job_spec.h"

namespace tiny_knn {

// The names of all members, in the order of docs/job_spec.md. Static storage.
std::span<const std::string_view> JobSpecMembers();

// One line of JSON; members at their defaults are left out. InvalidArgument when a path is not
// UTF-8, which JSON cannot carry.
absl::StatusOr<std::string> JobSpecToJson(const JobSpec& spec);

// Strict: an unknown member (the nearest known one is named), a wrong type, a value out of range, a
// repeated member, depth beyond 16, an empty or missing `queries` or `docs`, a NUL in a path, a
// working folder that is not absolute are InvalidArgument, in one line that names the member. Pure;
// safe on any bytes.
absl::StatusOr<JobSpec> JobSpecFromJson(std::string_view json);

}  // namespace tiny_knn
