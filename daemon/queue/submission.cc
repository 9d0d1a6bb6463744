#include "daemon/queue/submission.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr size_t kMostKeyLength = 128;
// A specification has four paths of at most 4 KiB, each byte of which may take six in JSON.
constexpr size_t kMostSpecBytes = size_t{128} << 10;
constexpr int kMostPriority = 100;

bool IsKey(std::string_view key) {
  return !key.empty() && key.size() <= kMostKeyLength &&
         std::all_of(key.begin(), key.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

ErrorReply BadRequest(std::string message) {
  return {.code = ErrorCode::kBadRequest, .message = std::move(message)};
}

}  // namespace

std::string AbsolutePath(const std::string& folder, const std::string& path) {
  if (path.starts_with('/')) return path;
  return folder.ends_with('/') ? folder + path : folder + "/" + path;
}

std::optional<ErrorReply> CheckSubmission(const SubmitRequest& request,
                                          const std::string& spec_json) {
  const JobSpec& spec = request.spec;
  if (!IsKey(request.key)) {
    return BadRequest(
        fmt::format("key: expected 1 to {} printable ASCII characters", kMostKeyLength));
  }
  if (request.priority < -kMostPriority || request.priority > kMostPriority) {
    return BadRequest(fmt::format("priority: expected {} to {}, found {}", -kMostPriority,
                                  kMostPriority, request.priority));
  }
  if (request.timeout_seconds < 0) {
    return BadRequest(
        fmt::format("timeout_seconds: expected 0 or more, found {}", request.timeout_seconds));
  }
  if (spec.output_path.empty()) return BadRequest("spec: output_path: expected a path");
  if (!AbsolutePath(spec.working_folder, spec.output_path).starts_with('/')) {
    return BadRequest("spec: working_folder: expected an absolute path");
  }
  for (const std::string* path : {&spec.queries_path, &spec.docs_path, &spec.output_path,
                                  &spec.checkpoint_path, &spec.working_folder}) {
    if (path->size() > kMostSubmittedPathBytes) {
      return BadRequest(fmt::format("spec: a path of {} bytes; expected at most {}", path->size(),
                                    kMostSubmittedPathBytes));
    }
  }
  if (spec_json.size() > kMostSpecBytes) {
    return BadRequest(
        fmt::format("spec: {} bytes; expected at most {}", spec_json.size(), kMostSpecBytes));
  }
  return std::nullopt;
}

}  // namespace tiny_knn
