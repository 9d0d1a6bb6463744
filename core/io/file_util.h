// What every file reader here needs: opening a regular file without ever hanging, and reading.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/errno_status.h"
#include "core/io/unique_fd.h"

namespace tiny_knn {

struct OpenedFile {
  UniqueFd fd;
  struct stat stat;  // as of opening
};

// Opens a regular file for reading. A directory, FIFO, socket or device is InvalidArgument saying
// so and that `expected` ("an .npy file") was expected; nothing blocks.
absl::StatusOr<OpenedFile> OpenRegularFile(const std::string& path, std::string_view expected);

// Reads out.size() bytes at `offset`, less only at the end of the file. Returns the bytes read.
absl::StatusOr<int64_t> ReadAt(int fd, int64_t offset, std::span<std::byte> out,
                               std::string_view path);

// DataLoss: the file ends at byte `ends_at` while it is read, `expected` were there.
absl::Status TruncatedWhileRead(std::string_view path, int64_t ends_at, int64_t expected);

}  // namespace tiny_knn
