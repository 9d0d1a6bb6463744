// A file that appears whole or not at all.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tiny_knn {

struct AtomicFileOptions {
  // Empty: the temporary file is `.{name}.{pid}.{random}.tmp`. Else `.{name}.{tag}.tmp`, which
  // whoever chose the tag can find after a crash. A tag must be unique and at most 100 letters,
  // digits and dashes.
  std::string temporary_tag = {};
};

// Writes to a temporary file in the target's folder (O_EXCL, O_NOFOLLOW, mode 0666 & ~umask);
// Commit makes it durable and gives it its name, replacing what was there. Destroyed without
// Commit, it removes the temporary file. Thread-compatible.
//
// A target that is a symbolic link stays one:
// the file it names is replaced, in that file's folder. A target that exists and is no regular file
// (a directory, /dev/null, a FIFO) is refused. A failed fsync is an error and is not tried again.
class AtomicFile {
 public:
  // Errors name the path: NotFound (no such folder), PermissionDenied, InvalidArgument (the target
  // is a directory, or the tag is none), ResourceExhausted (no space), Internal.
  static absl::StatusOr<std::unique_ptr<AtomicFile>> Create(const std::string& target_path,
                                                            const AtomicFileOptions& options = {});

  // Removes the temporary file that Create(target_path, {tag}) left when its process was killed:
  // only a regular file of this process's user, of exactly that name, in the folder that the target
  // now resolves to. OK when there is none; InvalidArgument when the tag is none.
  static absl::Status RemoveLeftover(const std::string& target_path, const std::string& tag);

  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Writes all of `bytes` at `offset`, retrying short writes. Any order; gaps read as zeros.
  absl::Status WriteAt(int64_t offset, std::span<const std::byte> bytes);

  // Reserves disk space for the whole file now, so that a full disk is found before the work is
  // done (ResourceExhausted). A file system that cannot reserve is not an error.
  absl::Status Reserve(int64_t total_bytes);

  // fsync, rename over the target, fsync of the folder. At most once; no writes after it.
  absl::Status Commit();

  const std::string& target_path() const;

 private:
  struct State;
  explicit AtomicFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace tiny_knn
