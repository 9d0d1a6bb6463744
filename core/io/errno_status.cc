#include "core/io/errno_status.h"

#include <cerrno>
#include <string>
#include <system_error>

#include "fmt/format.h"

namespace tiny_knn {

bool IsNoSpace(int error_number) { return error_number == ENOSPC || error_number == EDQUOT; }

absl::Status ErrnoStatus(int error_number, std::string_view path, std::string_view action) {
  const std::string text =
      fmt::format("{}: {}: {}", path, action, std::generic_category().message(error_number));
  if (IsNoSpace(error_number)) return absl::ResourceExhaustedError(text);
  switch (error_number) {
    case ENOENT:
      return absl::NotFoundError(text);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(text);
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

}  // namespace tiny_knn
