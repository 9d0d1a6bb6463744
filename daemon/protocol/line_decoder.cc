#include "daemon/protocol/line_decoder.h"

#include "fmt/format.h"

namespace tiny_knn {
namespace {

// An empty buffer that has grown beyond this is given back: a connection is idle most of its life.
constexpr size_t kKeptCapacity = size_t{1} << 16;

absl::Status TooLong() {
  return absl::InvalidArgumentError(
      fmt::format("a line is longer than the {} bytes that a message may have", kMostLineBytes));
}

// Bytes of a line as far as they count: without a '\r' at its end.
size_t CountedBytes(std::string_view line) {
  return line.ends_with('\r') ? line.size() - 1 : line.size();
}

}  // namespace

absl::Status LineDecoder::Feed(std::string_view bytes) {
  if (failed_) return TooLong();
  DropTaken();
  size_t scanned = buffer_.size();
  buffer_.append(bytes);
  const std::string_view all = buffer_;
  for (;;) {
    const size_t end = all.find('\n', scanned);
    // An unfinished line is judged by what is there of it.
    const std::string_view line = all.substr(unfinished_, end - unfinished_);
    if (CountedBytes(line) > kMostLineBytes) {
      buffer_.resize(unfinished_);
      failed_ = true;
      return TooLong();
    }
    if (end == std::string_view::npos) return absl::OkStatus();
    unfinished_ = scanned = end + 1;
  }
}

std::optional<std::string> LineDecoder::Next() {
  if (taken_ == unfinished_) return std::nullopt;
  const size_t end = buffer_.find('\n', taken_);
  std::string line = buffer_.substr(taken_, end - taken_);
  if (line.ends_with('\r')) line.pop_back();
  taken_ = end + 1;
  return line;
}

void LineDecoder::DropTaken() {
  // Moving the rest costs what it is long, so it is moved only when that is less than what goes.
  if (taken_ < buffer_.size() - taken_) return;
  buffer_.erase(0, taken_);
  unfinished_ -= taken_;
  taken_ = 0;
  if (buffer_.empty() && buffer_.capacity() > kKeptCapacity) std::string().swap(buffer_);
}

}  // namespace tiny_knn
