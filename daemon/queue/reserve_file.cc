#include "daemon/queue/reserve_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/io/errno_status.h"
#include "core/io/unique_fd.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Where the file system cannot reserve: bytes that one which compresses cannot shrink.
absl::Status WriteNoise(int fd, int64_t bytes, const std::string& path) {
  std::vector<uint64_t> noise(8192);
  uint64_t state = 0x9e3779b97f4a7c15;
  int64_t done = 0;
  while (done < bytes) {
    for (uint64_t& word : noise) {  // xorshift64
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      word = state;
    }
    const ssize_t written = write(fd, noise.data(), noise.size() * sizeof(uint64_t));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      return ErrnoStatus(written < 0 ? errno : ENOSPC, path, "cannot write");
    }
    done += written;
  }
  return absl::OkStatus();
}

}  // namespace

ReserveFile::ReserveFile(std::string path, int64_t bytes) : path_(std::move(path)), bytes_(bytes) {
  struct stat found;
  constexpr int64_t kStatBlock = 512;
  held_ = lstat(path_.c_str(), &found) == 0 && S_ISREG(found.st_mode) && found.st_size >= bytes_ &&
          found.st_blocks * kStatBlock >= bytes_;
}

absl::Status ReserveFile::Take() {
  if (held_) return absl::OkStatus();
  const std::string folder = path_.substr(0, path_.rfind('/') + 1);
  struct statvfs disk;
  if (statvfs(folder.empty() ? "." : folder.c_str(), &disk) != 0) {
    return ErrnoStatus(errno, folder, "cannot look for free space");
  }
  const double free = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
  if (free < 2 * static_cast<double>(bytes_)) {
    return absl::ResourceExhaustedError(
        fmt::format("{}: cannot reserve {} bytes: {:.0f} are free", path_, bytes_, free));
  }
  unlink(path_.c_str());  // one that was cut short, or is no regular file
  absl::Status status = Allocate();
  if (!status.ok()) unlink(path_.c_str());
  held_ = status.ok();
  return status;
}

absl::Status ReserveFile::Allocate() const {
  const UniqueFd file(
      open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.valid() || fchmod(file.get(), 0600) != 0) {
    return ErrnoStatus(errno, path_, "cannot create");
  }
  int result;
  do {
    result = fallocate(file.get(), 0, 0, bytes_);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return absl::OkStatus();
  if (errno != EOPNOTSUPP && errno != ENOSYS) {
    return ErrnoStatus(errno, path_, fmt::format("cannot reserve {} bytes", bytes_));
  }
  return WriteNoise(file.get(), bytes_, path_);
}

bool ReserveFile::Release() {
  if (!held_) return false;
  held_ = false;
  return unlink(path_.c_str()) == 0;
}

}  // namespace tiny_knn
