#include "core/io/file_util.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

// What kind of thing a mode is, when it is not a regular file.
std::string_view KindName(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO (named pipe)";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "not a regular file";
}

absl::Status NotRegular(std::string_view path, mode_t mode, std::string_view expected) {
  return absl::InvalidArgumentError(
      fmt::format("{}: is {}; expected {}", path, KindName(mode), expected));
}

}  // namespace

absl::StatusOr<OpenedFile> OpenRegularFile(const std::string& path, std::string_view expected) {
  // O_NONBLOCK: a FIFO without a writer must not hang us before we can refuse it.
  OpenedFile file;
  int fd;
  do {
    fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) {
    const int error_number = errno;
    // Sockets and some devices cannot be opened at all; say what they are.
    if (stat(path.c_str(), &file.stat) == 0 && !S_ISREG(file.stat.st_mode)) {
      return NotRegular(path, file.stat.st_mode, expected);
    }
    return ErrnoStatus(error_number, path, fmt::format("cannot open, expected {}", expected));
  }
  file.fd = UniqueFd(fd);
  if (fstat(fd, &file.stat) != 0) return ErrnoStatus(errno, path, "cannot stat");
  if (!S_ISREG(file.stat.st_mode)) return NotRegular(path, file.stat.st_mode, expected);
  return file;
}

absl::StatusOr<int64_t> ReadAt(int fd, int64_t offset, std::span<std::byte> out,
                               std::string_view path) {
  constexpr size_t kMostAtOnce = size_t{1} << 30;  // Linux reads at most 2 GiB at once
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got = pread(fd, out.data() + done, std::min(out.size() - done, kMostAtOnce),
                              offset + static_cast<int64_t>(done));
    if (got < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, path, "cannot read");
    }
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return static_cast<int64_t>(done);
}

absl::Status TruncatedWhileRead(std::string_view path, int64_t ends_at, int64_t expected) {
  return absl::DataLossError(
      fmt::format("{}: was truncated while it was read: it ends at byte {}, {} bytes expected",
                  path, ends_at, expected));
}

}  // namespace tiny_knn
