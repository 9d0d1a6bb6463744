#include "capi/errors.h"

#include <string>

#include "core/io/errno_status.h"

namespace tiny_knn {
namespace {

struct LastError {
  // Where even the message found no memory, `fixed` says so; it lives as long as the library.
  std::string text;
  const char* fixed = "";
  int32_t error_number = 0;
};

LastError& Last() {
  thread_local LastError last;
  return last;
}

tknn_status CodeOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return TKNN_OK;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAlreadyExists:
      return TKNN_INVALID_ARGUMENT;
    case absl::StatusCode::kNotFound:
      return TKNN_NOT_FOUND;
    case absl::StatusCode::kPermissionDenied:
      return TKNN_PERMISSION_DENIED;
    case absl::StatusCode::kDataLoss:
      return TKNN_DATA_LOSS;
    case absl::StatusCode::kResourceExhausted:
      return TKNN_RESOURCE_EXHAUSTED;
    case absl::StatusCode::kCancelled:
      return TKNN_CANCELLED;
    case absl::StatusCode::kUnavailable:
      return TKNN_UNAVAILABLE;
    case absl::StatusCode::kAborted:
      return TKNN_BUSY;
    default:
      return TKNN_INTERNAL;
  }
}

}  // namespace

tknn_status Report(const absl::Status& status) noexcept {
  if (status.ok()) return TKNN_OK;
  LastError& last = Last();
  last.error_number = 0;
  try {
    last.error_number = ErrnoOf(status);
    last.text = std::string(status.message());
    last.fixed = nullptr;
  } catch (...) {
    last.fixed = "out of memory, and what else was wrong could not be said";
  }
  return CodeOf(status.code());
}

tknn_status ReportText(tknn_status code, const char* text) noexcept {
  Last().fixed = text;
  Last().error_number = 0;
  // `text` need not outlive the call where it is an exception's.
  try {
    Last().text = text;
    Last().fixed = nullptr;
  } catch (...) {
    Last().fixed = "out of memory, and what else was wrong could not be said";
  }
  return code;
}

}  // namespace tiny_knn

const char* tknn_last_error(void) {
  const tiny_knn::LastError& last = tiny_knn::Last();
  return last.fixed != nullptr ? last.fixed : last.text.c_str();
}

int32_t tknn_last_errno(void) { return tiny_knn::Last().error_number; }
