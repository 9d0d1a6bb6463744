// Lines out of a stream of bytes: the framing of both protocols.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace tiny_knn {

// The most bytes of a line, its line end not counted: docs/protocol.md promises it.
inline constexpr size_t kMostLineBytes = size_t{1} << 20;

// Holds at most one unfinished line, so a peer costs at most kMostLineBytes plus what one Feed
// brings. Thread-compatible.
class LineDecoder {
 public:
  // Adds bytes as they came. InvalidArgument, for good, once a line is longer than kMostLineBytes;
  // whole lines before that one can still be taken.
  absl::Status Feed(std::string_view bytes);

  // The next whole line without its '\n' (and '\r' before it), or nothing yet.
  std::optional<std::string> Next();

  // Bytes held back: an unfinished line, and lines not yet taken.
  size_t pending_bytes() const { return buffer_.size() - taken_; }

 private:
  void DropTaken();

  std::string buffer_;
  size_t taken_ = 0;       // bytes of buffer_ that Next has handed out
  size_t unfinished_ = 0;  // where the unfinished line starts: behind the last line end
  bool failed_ = false;
};

}  // namespace tiny_knn
