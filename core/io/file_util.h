// What every file reader and writer here needs: errno as a Status, and opening a regular file
// without ever hanging.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/unique_fd.h"

namespace tiny_knn {

// The Status of a system call that failed on `path` with `error_number`: "path: cannot open: No
// such file or directory". NotFound, PermissionDenied, ResourceExhausted (no space, quota, memory,
// descriptors), InvalidArgument (a name that cannot be) or Internal.
absl::Status ErrnoStatus(int error_number, std::string_view path, std::string_view action);

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

}  // namespace tiny_knn
