#include "core/io/file_version.h"

#include <ctime>

namespace tiny_knn {
namespace {

int64_t ToNs(const timespec& time) { return time.tv_sec * 1'000'000'000 + time.tv_nsec; }

}  // namespace

FileVersion FileVersionOf(const struct stat& found) {
  return FileVersion{.device = found.st_dev,
                     .inode = found.st_ino,
                     .size = found.st_size,
                     .mtime_ns = ToNs(found.st_mtim),
                     .ctime_ns = ToNs(found.st_ctim)};
}

std::optional<FileVersion> StatFileVersion(const std::string& path) {
  struct stat found;
  if (stat(path.c_str(), &found) != 0 || !S_ISREG(found.st_mode)) return std::nullopt;
  return FileVersionOf(found);
}

}  // namespace tiny_knn
