#include "cli/console.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "core/job/one_line.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

constexpr size_t kBufferBytes = 64 * 1024;

// 0, or the errno of the write that failed.
int WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return 0;
}

}  // namespace

void Console::Out(std::string_view text) {
  if (reader_gone_ || !failure_.ok()) return;
  buffer_ += text;
  if (buffer_.size() >= kBufferBytes) failure_ = Flush();
}

absl::Status Console::Flush() {
  if (!failure_.ok()) return std::exchange(failure_, absl::OkStatus());
  const std::string bytes = std::exchange(buffer_, std::string());
  const int error = WriteAll(STDOUT_FILENO, bytes);
  if (error == EPIPE) {
    reader_gone_ = true;
  } else if (error != 0) {
    return absl::ResourceExhaustedError(
        fmt::format("cannot write to standard output: {}", std::strerror(error)));
  }
  return absl::OkStatus();
}

void Console::Line(std::string_view event, std::string_view label, std::string_view text) {
  if (style_ == Style::kJson) {
    RawErr(fmt::format("{{\"event\":\"{}\",\"text\":{}}}\n", event, JsonString(text)));
  } else {
    RawErr(fmt::format("tiny-knn: {}{}\n", label, OneLine(text)));
  }
}

void Console::Note(std::string_view text) {
  if (!quiet_) Line("note", "note: ", text);
}

void Console::Detail(std::string_view text) {
  if (verbose_) Line("detail", "", text);
}

void Console::Summary(std::string_view text, std::string_view json) {
  if (style_ == Style::kJson) {
    if (!quiet_) RawErr(fmt::format("{}\n", json));
  } else if (!quiet_) {
    RawErr(fmt::format("tiny-knn: {}\n", OneLine(text)));
  }
}

void Console::Error(std::string_view text) { Line("error", "error: ", text); }

// Nobody is left to be told when standard error itself fails.
void Console::RawErr(std::string_view text) { (void)WriteAll(STDERR_FILENO, text); }

std::string JsonString(std::string_view text) {
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

int TerminalWidth(int fd) {
  struct winsize size {};
  if (isatty(fd) == 0 || ioctl(fd, TIOCGWINSZ, &size) != 0) return 0;
  return size.ws_col;
}

void PrepareStandardStreams() {
  // open() takes the lowest free number, so asking in this order fills exactly the gaps.
  for (int fd = 0; fd <= 2; ++fd) {
    if (fcntl(fd, F_GETFD) == -1 && errno == EBADF) {
      if (open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY) != fd) return;
    }
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

}  // namespace tiny_knn
