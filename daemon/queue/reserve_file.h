// Disk space held back for the hour when there is no other.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"

namespace tiny_knn {

// One file of `bytes` bytes, mode 0600, whose blocks are really allocated. Thread-compatible.
class ReserveFile {
 public:
  // Looks whether the file is there already; writes nothing.
  ReserveFile(std::string path, int64_t bytes);

  bool held() const { return held_; }

  // Takes the space if at least twice as much is free, so that what is taken back is not needed
  // again at once. ResourceExhausted otherwise; the file is then not there.
  absl::Status Take();

  // Gives the space to whoever writes next. False if there was none to give.
  bool Release();

 private:
  absl::Status Allocate() const;
  const std::string path_;
  const int64_t bytes_;
  bool held_ = false;
};

}  // namespace tiny_knn
