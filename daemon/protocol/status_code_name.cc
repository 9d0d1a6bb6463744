#include "daemon/protocol/status_code_name.h"

#include <array>

namespace tiny_knn {
namespace {

struct NamedCode {
  absl::StatusCode code;
  std::string_view name;
};

constexpr std::array<NamedCode, 17> kCodes = {{
    {absl::StatusCode::kOk, "ok"},
    {absl::StatusCode::kCancelled, "cancelled"},
    {absl::StatusCode::kUnknown, "unknown"},
    {absl::StatusCode::kInvalidArgument, "invalid_argument"},
    {absl::StatusCode::kDeadlineExceeded, "deadline_exceeded"},
    {absl::StatusCode::kNotFound, "not_found"},
    {absl::StatusCode::kAlreadyExists, "already_exists"},
    {absl::StatusCode::kPermissionDenied, "permission_denied"},
    {absl::StatusCode::kResourceExhausted, "resource_exhausted"},
    {absl::StatusCode::kFailedPrecondition, "failed_precondition"},
    {absl::StatusCode::kAborted, "aborted"},
    {absl::StatusCode::kOutOfRange, "out_of_range"},
    {absl::StatusCode::kUnimplemented, "unimplemented"},
    {absl::StatusCode::kInternal, "internal"},
    {absl::StatusCode::kUnavailable, "unavailable"},
    {absl::StatusCode::kDataLoss, "data_loss"},
    {absl::StatusCode::kUnauthenticated, "unauthenticated"},
}};

}  // namespace

std::string_view StatusCodeName(absl::StatusCode code) {
  for (const NamedCode& named : kCodes) {
    if (named.code == code) return named.name;
  }
  return "unknown";
}

std::optional<absl::StatusCode> ParseStatusCode(std::string_view name) {
  for (const NamedCode& named : kCodes) {
    if (named.name == name) return named.code;
  }
  return std::nullopt;
}

}  // namespace tiny_knn
