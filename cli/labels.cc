#include "cli/labels.h"

#include <cstddef>
#include <functional>
#include <string_view>

#include "absl/status/status.h"
#include "cli/text.h"
#include "core/io/file_util.h"
#include "core/job/one_line.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr size_t kReadBytes = 64 * 1024;
constexpr size_t kMostLineBytes = size_t{1} << 20;

// Hands every line, without its end, to `take` until it returns false.
absl::Status ForEachLine(const std::string& path,
                         const std::function<bool(int64_t number, std::string_view line)>& take) {
  const absl::StatusOr<OpenedFile> file = OpenRegularFile(path, "a text file of labels");
  if (!file.ok()) return file.status();
  std::string text;  // what was read and not yet taken
  std::vector<std::byte> bytes(kReadBytes);
  int64_t number = 0;
  const auto take_line = [&](std::string_view line) {
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    return take(number++, line);
  };
  for (int64_t offset = 0;;) {
    const absl::StatusOr<int64_t> got = ReadAt(file->fd.get(), offset, bytes, path);
    if (!got.ok()) return got.status();
    offset += *got;
    size_t searched = text.size();
    text.append(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(*got));
    size_t begin = 0;
    for (size_t end; (end = text.find('\n', searched)) != std::string::npos;) {
      if (!take_line(std::string_view(text).substr(begin, end - begin))) return absl::OkStatus();
      begin = searched = end + 1;
    }
    text.erase(0, begin);
    if (text.size() > kMostLineBytes) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: line {} is longer than 1 MiB; expected a text file with one label a line", path,
          number + 1));
    }
    if (*got == 0) break;
  }
  if (!text.empty()) take_line(text);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::map<int64_t, std::string>> ReadLabels(const std::string& path,
                                                          const std::set<int64_t>& wanted) {
  std::map<int64_t, std::string> labels;
  if (wanted.empty()) return labels;
  int64_t lines = 0;
  const absl::Status status = ForEachLine(path, [&](int64_t number, std::string_view line) {
    ++lines;
    if (wanted.count(number) > 0) labels.emplace(number, OneLine(line));
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
  const absl::Status status = ForEachLine(path, [&](int64_t, std::string_view line) {
    labels.push_back(OneLine(line));
    return true;
  });
  if (!status.ok()) return status;
  return labels;
}

}  // namespace tiny_knn
