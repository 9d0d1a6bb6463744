#include "core/io/errno_status.h"

#include <cerrno>
#include <string>
#include <system_error>

#include "absl/strings/cord.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr char kErrnoPayload[] = "tiny_knn.errno";

absl::Status StatusOf(int error_number, const std::string& text) {
  switch (error_number) {
    case ENOENT:
      return absl::NotFoundError(text);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(text);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(text);
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case EINVAL:
      return absl::InvalidArgumentError(text);
    default:
      return absl::InternalError(text);
  }
}

}  // namespace

bool IsNoSpace(int error_number) { return error_number == ENOSPC || error_number == EDQUOT; }

absl::Status ErrnoStatus(int error_number, std::string_view path, std::string_view action) {
  absl::Status status = StatusOf(
      error_number,
      fmt::format("{}: {}: {}", path, action, std::generic_category().message(error_number)));
  status.SetPayload(kErrnoPayload, absl::Cord(std::to_string(error_number)));
  return status;
}

int ErrnoOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kErrnoPayload);
  return payload.has_value() ? std::stoi(std::string(*payload)) : 0;
}

}  // namespace tiny_knn
