#include "daemon/queue/job_log.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <memory>
#include <optional>

#include "core/io/errno_status.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr std::string_view kLeftOut = "... the rest was left out: a log holds at most 1 MiB\n";
constexpr std::string_view kCut = "...";
constexpr std::string_view kSuffix = ".log";
constexpr size_t kMostUnwrittenBytes = size_t{256} << 10;

std::string NameOf(int64_t job) { return fmt::format("{}{}", job, kSuffix); }

std::optional<int64_t> JobOf(std::string_view name) {
  if (!name.ends_with(kSuffix)) return std::nullopt;
  name.remove_suffix(kSuffix.size());
  int64_t job = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), job);
  if (error != std::errc() || end != name.data() + name.size() || job <= 0) return std::nullopt;
  return job;
}

// One line that a terminal can be shown, its end included.
std::string Clean(std::string_view text) {
  constexpr auto kMost = static_cast<size_t>(kMostLogLineBytes) - 1;
  const bool cut = text.size() > kMost;
  if (cut) text = text.substr(0, kMost - kCut.size());
  std::string line(text);
  for (size_t i = 0; i < line.size(); ++i) {
    const auto byte = static_cast<unsigned char>(line[i]);
    if (byte < 0x20 || byte == 0x7f) line[i] = '?';
    // U+0080 to U+009F, which some terminals obey, too.
    if (byte == 0xc2 && i + 1 < line.size() &&
        (static_cast<unsigned char>(line[i + 1]) & 0xe0) == 0x80) {
      line[i] = line[i + 1] = '?';
    }
  }
  if (cut) line += kCut;
  line += '\n';
  return line;
}

// The last `bytes` bytes of a file of `size` bytes; fewer if it has fewer or cannot be read.
std::string Tail(int fd, int64_t size, size_t bytes) {
  std::string tail(std::min(bytes, static_cast<size_t>(size)), '\0');
  const ssize_t got = pread(fd, tail.data(), tail.size(), size - static_cast<int64_t>(tail.size()));
  tail.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  return tail;
}

// Bytes of `fd`, a regular file of this user; nothing if it is none.
std::optional<int64_t> SizeOf(int fd) {
  struct stat found;
  if (fstat(fd, &found) != 0 || !S_ISREG(found.st_mode) || found.st_uid != geteuid()) {
    return std::nullopt;
  }
  return found.st_size;
}

}  // namespace

absl::StatusOr<JobLogs> JobLogs::Open(std::string folder) {
  const bool made = mkdir(folder.c_str(), 0700) == 0;
  if ((!made && errno != EEXIST) || (made && chmod(folder.c_str(), 0700) != 0)) {
    return ErrnoStatus(errno, folder, "cannot make the folder of the jobs' logs");
  }
  UniqueFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOTDIR || errno == ELOOP) {
      return absl::PermissionDeniedError(fmt::format(
          "{}: is no folder; move it away, so that the jobs' logs can lie there", folder));
    }
    return ErrnoStatus(errno, folder, "cannot open the folder of the jobs' logs");
  }
  struct stat found;
  if (fstat(fd.get(), &found) != 0) return ErrnoStatus(errno, folder, "cannot stat");
  if (found.st_uid != geteuid()) {
    return absl::PermissionDeniedError(
        fmt::format("{}: belongs to user {}, not to {} who runs this; move it away", folder,
                    found.st_uid, geteuid()));
  }
  if ((found.st_mode & 077) != 0) {
    return absl::PermissionDeniedError(
        fmt::format("{}: is open to other users (mode {:04o}); run: chmod 700 '{}'", folder,
                    found.st_mode & 07777, folder));
  }
  return JobLogs(std::move(folder), std::move(fd));
}

void JobLogs::Append(int64_t job, std::string_view line) {
  const std::string clean = Clean(line);
  unwritten_[job] += clean;
  unwritten_bytes_ += clean.size();
  if (unwritten_bytes_ > kMostUnwrittenBytes) Write();
}

void JobLogs::Write() {
  for (const auto& [job, lines] : unwritten_) WriteLines(job, lines);
  unwritten_.clear();
  unwritten_bytes_ = 0;
}

void JobLogs::WriteLines(int64_t job, std::string_view lines) {
  // O_NONBLOCK: a FIFO must not hold us up.
  const UniqueFd file(openat(folder_fd_.get(), NameOf(job).c_str(),
                             O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
                             0600));
  if (!file.valid()) return;
  const std::optional<int64_t> size = SizeOf(file.get());
  if (!size || *size >= kMostLogBytes) return;
  if (*size == 0 && fchmod(file.get(), 0600) != 0) return;
  const std::string tail = Tail(file.get(), *size, kLeftOut.size());
  if (tail == kLeftOut) return;
  // A line without an end was torn by a crash.
  std::string text = tail.empty() || tail.ends_with('\n') ? "" : "\n";
  constexpr int64_t kMost = kMostLogBytes - static_cast<int64_t>(kLeftOut.size()) - 1;
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find('\n') + 1);
    if (*size + static_cast<int64_t>(text.size() + line.size()) > kMost) {
      text += kLeftOut;
      break;
    }
    text += line;
    lines.remove_prefix(line.size());
  }
  const ssize_t written = write(file.get(), text.data(), text.size());
  if (written >= 0 && static_cast<size_t>(written) == text.size()) return;
  // The part of a line that found room goes; if even that fails, the next line ends it.
  const size_t whole = written > 0 ? text.rfind('\n', static_cast<size_t>(written) - 1) + 1 : 0;
  if (ftruncate(file.get(), *size + static_cast<int64_t>(whole)) != 0) return;
}

absl::StatusOr<JobLogs::Piece> JobLogs::Read(int64_t job, int64_t offset, int64_t most_bytes) {
  if (offset < 0) {
    return absl::InvalidArgumentError(fmt::format("offset: expected 0 or more, found {}", offset));
  }
  if (most_bytes < 1) {
    return absl::InvalidArgumentError(
        fmt::format("most_bytes: expected 1 or more, found {}", most_bytes));
  }
  Write();
  Piece piece = {.text = {}, .next_offset = offset};
  const std::string name = NameOf(job);
  const UniqueFd file(openat(folder_fd_.get(), name.c_str(),
                             O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!file.valid()) {
    if (errno == ENOENT || errno == ELOOP) return piece;
    return ErrnoStatus(errno, folder_ + "/" + name, "cannot read the log");
  }
  const std::optional<int64_t> size = SizeOf(file.get());
  if (!size || offset >= *size) return piece;
  const int64_t wanted = std::min({most_bytes, kMostLogBytes, *size - offset});
  piece.text.resize(static_cast<size_t>(wanted));
  const ssize_t got = pread(file.get(), piece.text.data(), piece.text.size(), offset);
  if (got < 0) return ErrnoStatus(errno, folder_ + "/" + name, "cannot read the log");
  piece.text.resize(static_cast<size_t>(got));
  const size_t end = piece.text.rfind('\n');
  if (end != std::string::npos) {
    piece.text.resize(end + 1);
  } else if (offset + got == *size) {
    piece.text.clear();  // a line whose end is not written yet
  }
  piece.next_offset = offset + static_cast<int64_t>(piece.text.size());
  return piece;
}

void JobLogs::Remove(int64_t job) {
  if (const auto lines = unwritten_.find(job); lines != unwritten_.end()) {
    unwritten_bytes_ -= lines->second.size();
    unwritten_.erase(lines);
  }
  unlinkat(folder_fd_.get(), NameOf(job).c_str(), 0);
}

std::vector<int64_t> JobLogs::Jobs() const {
  std::vector<int64_t> jobs;
  // A descriptor of its own, since reading moves its place.
  const int fd = openat(folder_fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return jobs;
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(fd), &closedir);
  if (entries == nullptr) {
    close(fd);
    return jobs;
  }
  while (const dirent* entry = readdir(entries.get())) {
    if (const std::optional<int64_t> job = JobOf(entry->d_name)) jobs.push_back(*job);
  }
  return jobs;
}

}  // namespace tiny_knn
