#include <algorithm>
#include <array>
#include <cstddef>
#include <string>

#include "daemon/protocol/client_messages.h"

namespace tiny_knn {
namespace {

struct NamedError {
  ErrorCode code;
  std::string_view name;
  absl::StatusCode status;
};

constexpr std::array<NamedError, 13> kErrors = {{
    {ErrorCode::kBadRequest, "bad_request", absl::StatusCode::kInvalidArgument},
    {ErrorCode::kUnsupportedProtocol, "unsupported_protocol",
     absl::StatusCode::kFailedPrecondition},
    {ErrorCode::kUnknownJob, "unknown_job", absl::StatusCode::kNotFound},
    {ErrorCode::kNotAllowed, "not_allowed", absl::StatusCode::kPermissionDenied},
    {ErrorCode::kKeyConflict, "key_conflict", absl::StatusCode::kAlreadyExists},
    {ErrorCode::kQueueFull, "queue_full", absl::StatusCode::kResourceExhausted},
    {ErrorCode::kTooManyConnections, "too_many_connections", absl::StatusCode::kResourceExhausted},
    {ErrorCode::kTooManyJobs, "too_many_jobs", absl::StatusCode::kInvalidArgument},
    {ErrorCode::kDraining, "draining", absl::StatusCode::kUnavailable},
    {ErrorCode::kStopping, "stopping", absl::StatusCode::kUnavailable},
    {ErrorCode::kJournalFull, "journal_full", absl::StatusCode::kResourceExhausted},
    {ErrorCode::kJournalFailed, "journal_failed", absl::StatusCode::kUnavailable},
    {ErrorCode::kInternal, "internal", absl::StatusCode::kInternal},
}};

// The enumerators number the table.
constexpr bool InOrder() {
  for (size_t i = 0; i < kErrors.size(); ++i) {
    if (static_cast<size_t>(kErrors[i].code) != i) return false;
  }
  return static_cast<size_t>(ErrorCode::kInternal) + 1 == kErrors.size();
}
static_assert(InOrder());

const NamedError& Find(ErrorCode code) { return kErrors[static_cast<size_t>(code)]; }

}  // namespace

std::string_view ErrorCodeName(ErrorCode code) { return Find(code).name; }

std::optional<ErrorCode> ParseErrorCode(std::string_view name) {
  for (const NamedError& error : kErrors) {
    if (error.name == name) return error.code;
  }
  return std::nullopt;
}

absl::Status ToStatus(const ErrorReply& error) { return {Find(error.code).status, error.message}; }

}  // namespace tiny_knn
