#include "daemon/worker/file_version.h"

#include <sys/stat.h>

#include <algorithm>
#include <ctime>

namespace tiny_knn {
namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;
// The coarsest stamps in use (FAT) count in two seconds; Linux's own tick in milliseconds.
constexpr int64_t kSettlingNs = 2 * kNsPerSecond;

int64_t ToNs(const timespec& time) { return time.tv_sec * kNsPerSecond + time.tv_nsec; }

}  // namespace

std::optional<FileVersion> StatFileVersion(const std::string& path) {
  struct stat found;
  if (stat(path.c_str(), &found) != 0 || !S_ISREG(found.st_mode)) return std::nullopt;
  return FileVersion{.device = found.st_dev,
                     .inode = found.st_ino,
                     .size = found.st_size,
                     .mtime_ns = ToNs(found.st_mtim),
                     .ctime_ns = ToNs(found.st_ctim)};
}

bool IsSettled(const FileVersion& version, int64_t now_ns) {
  return std::max(version.mtime_ns, version.ctime_ns) <= now_ns - kSettlingNs;
}

int64_t WallClockNs() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return ToNs(now);
}

}  // namespace tiny_knn
