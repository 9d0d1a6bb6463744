#include "daemon/worker/file_version.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "absl/status/status.h"
#include "core/io/unique_fd.h"

namespace tiny_knn {
namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;
// The coarsest stamps in use (FAT) count in two seconds; Linux's own tick in milliseconds.
constexpr int64_t kSettlingNs = 2 * kNsPerSecond;

int64_t ToNs(const timespec& time) { return time.tv_sec * kNsPerSecond + time.tv_nsec; }

bool IsInMemory(const struct statfs& file_system) {
  const auto type = static_cast<uint32_t>(file_system.f_type);
  return type == TMPFS_MAGIC || type == RAMFS_MAGIC || type == HUGETLBFS_MAGIC;
}

}  // namespace

absl::StatusOr<FileVersion> SyncFileVersion(const std::string& path) {
  // Not waiting for whatever may have taken the file's place.
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return absl::ErrnoToStatus(errno, "cannot open them to sync");
  struct stat found;
  struct statfs file_system;
  if (fstat(file.get(), &found) != 0 || !S_ISREG(found.st_mode) ||
      fstatfs(file.get(), &file_system) != 0) {
    return absl::InvalidArgumentError("not a regular file");
  }
  if (IsInMemory(file_system)) {
    return absl::FailedPreconditionError("kept in memory only from a file system with a disk");
  }
  // What cannot be synced (read-only) has no dirty pages.
  if (fdatasync(file.get()) != 0 && errno != EROFS && errno != EINVAL) {
    return absl::ErrnoToStatus(errno, "cannot sync them");
  }
  // Of the descriptor: by name it could be a file that was not synced.
  if (fstat(file.get(), &found) != 0) return absl::ErrnoToStatus(errno, "cannot stat them");
  return FileVersionOf(found);
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
