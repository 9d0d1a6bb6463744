#include "core/job/job_paths.h"

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "core/io/docs_files.h"
#include "core/job/docs_range.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Where `path` stands in `text` as the beginning of a path, not inside of another one.
void ReplacePath(const std::string& path, std::string_view by, std::string& text) {
  for (size_t at = text.find(path); at != std::string::npos; at = text.find(path, at)) {
    if (at == 0 || text[at - 1] == ' ' || text[at - 1] == '\'') {
      text.replace(at, path.size(), by);
      at += by.size();
    } else {
      ++at;
    }
  }
}

// What a result's name calls the docs: of a pattern, the folder that its files are in.
std::string StemOfDocs(std::string_view path) {
  if (const auto folder = FolderOfPattern(path)) path = *folder;
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const std::string stem = std::filesystem::path(path).stem().string();
  return stem.empty() || stem == "." || stem == ".." || stem == "/" ? "docs" : stem;
}

}  // namespace

std::string ResolvePath(const JobSpec& spec, const std::string& path) {
  if (spec.working_folder.empty() || path.empty() || path.starts_with('/')) return path;
  const bool slash = spec.working_folder.ends_with('/');
  return fmt::format("{}{}{}", spec.working_folder, slash ? "" : "/", path);
}

std::string ResolvedOutputPath(const JobSpec& spec, int64_t k) {
  if (!spec.output_path.empty()) return ResolvePath(spec, spec.output_path);
  std::string range;
  if (spec.docs_range) {
    range = DocsRangeText(*spec.docs_range);
    std::replace(range.begin(), range.end(), ':', '-');
    range = "_" + range;
  }
  return ResolvePath(spec, fmt::format("top{}_{}_x_{}{}.pkl", k,
                                       std::filesystem::path(spec.queries_path).stem().string(),
                                       StemOfDocs(spec.docs_path), range));
}

absl::Status WithPathsAsTyped(const JobSpec& spec, const absl::Status& status) {
  if (status.ok() || spec.working_folder.empty()) return status;
  std::string message(status.message());
  for (const std::string& typed : {spec.queries_path, spec.docs_path}) {
    if (!typed.empty()) ReplacePath(ResolvePath(spec, typed), typed, message);
  }
  if (const auto folder = FolderOfPattern(spec.docs_path); folder && !folder->starts_with('/')) {
    std::string resolved = ResolvePath(spec, std::string(*folder) + "*");
    resolved.pop_back();
    ReplacePath(resolved, *folder, message);
  }
  return absl::Status(status.code(), message);
}

}  // namespace tiny_knn
