// Which file it is, and which of its contents, as far as the file system can tell.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>

namespace tiny_knn {

struct FileVersion {
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t size = 0;
  int64_t mtime_ns = 0;  // since 1970
  int64_t ctime_ns = 0;
  bool operator==(const FileVersion&) const = default;
};

// Of the regular file at `path` now; nothing where there is none that can be seen. Any thread.
std::optional<FileVersion> StatFileVersion(const std::string& path);

// Of what fstat or stat found.
FileVersion FileVersionOf(const struct stat& found);

}  // namespace tiny_knn
