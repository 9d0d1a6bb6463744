// A read-only mapping that survives the file being truncated under it.
//
// Reading a mapped page whose part of the file is gone (another process truncated it, or the disk
// failed) raises SIGBUS, which ends a process. While a MappedFile exists, a process-wide SIGBUS
// handler gives such a page zeros and marks the mapping as damaged; the reader asks `damaged()`
// after using the data. Faults elsewhere go to the handler that was installed before, or end the
// process as they would have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"

namespace tiny_knn {

// Most mappings alive at one time in a process.
inline constexpr int kMaxMappedFiles = 256;

// Thread-compatible; the bytes may be read from any number of threads.
class MappedFile {
 public:
  // Maps the first `bytes` (at least 1) of the file open as `fd`, which may be closed afterwards.
  // `path` is for messages. Errors: ResourceExhausted (memory, or kMaxMappedFiles), Internal; a
  // file system that cannot map is an error too, and the caller reads instead.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Map(int fd, int64_t bytes,
                                                         std::string_view path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }

  // Whether some page could not be read and was replaced by zeros. Never goes back to false.
  bool damaged() const;

  // Advice about bytes [begin, end): they will be read in order soon; they are not needed now, so
  // that they stop counting as this process's memory (the page cache keeps them). Never fails.
  void WillNeed(int64_t begin, int64_t end) const;
  void DontNeed(int64_t begin, int64_t end) const;

 private:
  MappedFile(const std::byte* data, int64_t size, int slot)
      : data_(data), size_(size), slot_(slot) {}
  const std::byte* data_;
  int64_t size_;
  int slot_;  // in the registry that the signal handler reads
};

}  // namespace tiny_knn
