#include "cli/labels.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "cli/text.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

absl::Status OpenError(const std::string& path, int error) {
  const std::string message = fmt::format("{}: cannot read labels: {}", path, std::strerror(error));
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(message);
  if (error == EACCES) return absl::PermissionDeniedError(message);
  return absl::InvalidArgumentError(message);
}

// Hands every line to `take` until it returns false.
absl::Status ForEachLine(const std::string& path,
                         const std::function<bool(int64_t number, std::string line)>& take) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return OpenError(path, errno);
  if (S_ISDIR(info.st_mode)) return OpenError(path, EISDIR);
  std::ifstream file(path);
  if (!file) return OpenError(path, errno);
  std::string line;
  for (int64_t number = 0; std::getline(file, line); ++number) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!take(number, OneLine(line))) return absl::OkStatus();
  }
  if (file.bad()) return absl::InternalError(fmt::format("{}: reading labels failed", path));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::map<int64_t, std::string>> ReadLabels(const std::string& path,
                                                          const std::set<int64_t>& wanted) {
  std::map<int64_t, std::string> labels;
  if (wanted.empty()) return labels;
  int64_t lines = 0;
  const absl::Status status = ForEachLine(path, [&](int64_t number, std::string line) {
    ++lines;
    if (wanted.count(number) > 0) labels.emplace(number, std::move(line));
    return number < *wanted.rbegin();
  });
  if (!status.ok()) return status;
  if (labels.size() < wanted.size()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: has {}, but a label for row {} is needed; it must name every row, one a "
                    "line",
                    path, Plural(lines, "line", "lines"), *wanted.rbegin()));
  }
  return labels;
}

absl::StatusOr<std::vector<std::string>> ReadAllLabels(const std::string& path) {
  std::vector<std::string> labels;
  const absl::Status status = ForEachLine(path, [&](int64_t, std::string line) {
    labels.push_back(std::move(line));
    return true;
  });
  if (!status.ok()) return status;
  return labels;
}

}  // namespace tiny_knn
