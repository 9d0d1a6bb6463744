// Reads a range of a file into memory past the system's page cache (O_DIRECT), ahead of who uses
// it.
//
// The disk writes to the memory that rows are read from, which is used again for the next range: no
// page is allocated, faulted in and evicted for it, and none of what other programs have in the
// cache has to go. It takes a tenth of the processor time of reading through the cache, and leaves
// nothing there.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "core/io/unique_fd.h"

namespace tiny_knn {

// Thread-compatible, but for Wait.
class DirectReader {
 public:
  // Of the file that is open as `fd`, of which the first `size` bytes are wanted and which messages
  // call `name`. Null where its file system cannot be read that way.
  static std::unique_ptr<DirectReader> Open(int fd, int64_t size, std::string name);
  ~DirectReader();
  DirectReader(const DirectReader&) = delete;
  DirectReader& operator=(const DirectReader&) = delete;

  // Begins to read bytes [begin, end), in order, on threads that end when that is done; whatever
  // was read before is lost. The memory grows to what the largest range takes. ResourceExhausted.
  absl::Status Start(int64_t begin, int64_t end);

  // Waits until bytes [begin, end) of the range are there. Any thread, also several at once.
  // Errors: DataLoss where the file ends too early, Internal (I/O error).
  absl::Status Wait(int64_t begin, int64_t end);

  // Where byte `offset` of the range is, or will be.
  std::byte* At(int64_t offset) { return memory_ + (offset - first_); }

  // Reads no more. The memory stays, with what was waited for.
  void Stop();

 private:
  DirectReader(UniqueFd fd, int64_t size, std::string name);
  absl::Status Reserve(int64_t bytes);
  void Loop();
  absl::Status ReadPiece(int64_t piece);

  const UniqueFd fd_;
  const int64_t size_;
  const std::string name_;
  std::byte* memory_ = nullptr;  // on a page
  int64_t reserved_ = 0;
  int64_t first_ = 0;  // what lies at memory_: the range, in whole pages of the file
  int64_t last_ = 0;
  std::vector<std::thread> threads_;

  std::mutex mutex_;
  std::condition_variable arrived_;
  // Guarded by mutex_.
  int64_t next_piece_ = 0;
  std::vector<bool> done_;  // by piece
  bool stopping_ = false;
  absl::Status failed_;
};

}  // namespace tiny_knn
