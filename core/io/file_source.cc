#include "core/io/file_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "core/matrix/dtype.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Whether the system has a file at hand is seen so far behind its header.
constexpr int64_t kProbeDistance = int64_t{1} << 20;
// Of a range so many bytes are looked at.
constexpr int kCacheProbes = 16;
constexpr int kFullCacheProbes = 256;
// Files that the system reads ahead in one go need no thread.
constexpr int64_t kLeastAheadBytes = int64_t{4} << 20;

bool SameTime(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

}  // namespace

FileSource::FileSource(std::string name, const NpyHeader& header, OpenedFile file,
                       const Ahead& ahead)
    : RowSource(std::move(name), header.dtype, header.rows, header.dim),
      header_(header),
      file_(std::move(file)),
      ahead_({.end = header.rows,
              .window = ahead.window,
              .step = ahead.step,
              .ask = [this](int64_t begin, int64_t end) { Ask(begin, end); }}) {}

absl::Status FileSource::CheckUnchanged() {
  struct stat now;
  if (fstat(file_.fd.get(), &now) != 0) return ErrnoStatus(errno, name(), "cannot stat");
  const struct stat& then = file_.stat;
  if (now.st_size != then.st_size) {
    return absl::DataLossError(
        fmt::format("{}: changed while it was read: {} bytes found, {} expected; run again when "
                    "nothing writes to it",
                    name(), now.st_size, then.st_size));
  }
  if (!SameTime(now.st_mtim, then.st_mtim)) {
    return absl::DataLossError(
        fmt::format("{}: changed while it was read: its modification time is not what it was; "
                    "run again when nothing writes to it",
                    name()));
  }
  // Whoever writes may put the modification time back, so this counts as a change too.
  if (!SameTime(now.st_ctim, then.st_ctim)) {
    return absl::DataLossError(
        fmt::format("{}: changed while it was read: its metadata changed (renamed, replaced or "
                    "chmod); run again when nothing changes it",
                    name()));
  }
  return absl::OkStatus();
}

void FileSource::AllowReadingAhead(bool allowed) {
  // What was not at hand meanwhile started no thread.
  if (allowed && !may_read_ahead_) not_at_hand_ = false;
  may_read_ahead_ = allowed;
}

std::unique_ptr<DirectReader> FileSource::OpenDirectly() const {
  return DirectReader::Open(file_.fd.get(), data_end(), name());
}

bool FileSource::IsMostlyCached(int64_t begin, int64_t end) const {
  return 2 * CountCached(begin, end, kCacheProbes) > kCacheProbes;
}

bool FileSource::IsCached(int64_t begin, int64_t end) const {
  return !not_at_hand_ && CountCached(begin, end, kFullCacheProbes) == kFullCacheProbes;
}

int FileSource::CountCached(int64_t begin, int64_t end, int probes) const {
  int cached = 0;
  for (int i = 1; i <= probes; ++i) {
    std::byte probe;
    const iovec part = {&probe, 1};
    const int64_t offset = begin + (end - begin) / (probes + 1) * i;
    if (preadv2(file_.fd.get(), &part, 1, offset, RWF_NOWAIT) == 1) ++cached;
  }
  return cached;
}

void FileSource::ExpectReading(int64_t row) {
  ahead_.SeekTo(row);
  if (row == rows()) return;
  // What was read to open the file says nothing of the rest.
  std::byte probe;
  if (ReadAtHand(std::min(OffsetOf(row) + kProbeDistance, data_end() - 1), &probe, 1)) return;
  if (stored_bytes() < kLeastAheadBytes) {
    readahead(file_.fd.get(), header_.data_offset, static_cast<size_t>(stored_bytes()));
  }
}

absl::Status FileSource::ReadExactly(int64_t offset, std::byte* out, int64_t bytes) {
  if (ReadAtHand(offset, out, bytes)) return absl::OkStatus();
  return ReadWaiting(offset, out, bytes);
}

absl::Status FileSource::ReadWaiting(int64_t offset, std::byte* out, int64_t bytes) const {
  absl::StatusOr<int64_t> got =
      ReadAt(file_.fd.get(), offset, {out, static_cast<size_t>(bytes)}, name());
  if (!got.ok()) return got.status();
  if (*got == bytes) return absl::OkStatus();
  return TruncatedWhileRead(name(), offset + *got, data_end());
}

absl::Status FileSource::ReadStoredRows(const RowSelection& rows, std::byte* out) {
  if (rows.step == 1) {
    return ReadExactly(OffsetOf(rows.begin), out, rows.count * row_bytes());
  }
  int64_t done = 0;
  while (done < rows.count && ReadAtHand(OffsetOf(rows.begin + done * rows.step),
                                         out + done * row_bytes(), row_bytes())) {
    ++done;
  }
  // A disk answers many questions at a time faster than one after the other.
  for (int64_t i = done; i < rows.count; ++i) {
    readahead(file_.fd.get(), OffsetOf(rows.begin + i * rows.step),
              static_cast<size_t>(row_bytes()));
  }
  for (; done < rows.count; ++done) {
    absl::Status status =
        ReadExactly(OffsetOf(rows.begin + done * rows.step), out + done * row_bytes(), row_bytes());
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status FileSource::ReadEachStoredRow(std::span<const int64_t> rows, std::byte* out) {
  std::vector<size_t> missing;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (ReadWithoutWaiting(OffsetOf(rows[i]), out + static_cast<int64_t>(i) * row_bytes(),
                           row_bytes())) {
      continue;
    }
    missing.push_back(i);
    readahead(file_.fd.get(), OffsetOf(rows[i]), static_cast<size_t>(row_bytes()));
  }
  for (const size_t i : missing) {
    absl::Status status =
        ReadWaiting(OffsetOf(rows[i]), out + static_cast<int64_t>(i) * row_bytes(), row_bytes());
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

bool FileSource::ReadWithoutWaiting(int64_t offset, std::byte* out, int64_t bytes) const {
  const iovec part = {out, static_cast<size_t>(bytes)};
  return preadv2(file_.fd.get(), &part, 1, offset, RWF_NOWAIT) == bytes;
}

bool FileSource::ReadAtHand(int64_t offset, std::byte* out, int64_t bytes) {
  if (not_at_hand_.load(std::memory_order_relaxed)) return false;
  if (ReadWithoutWaiting(offset, out, bytes)) return true;
  not_at_hand_.store(true, std::memory_order_relaxed);
  if (may_read_ahead_ && stored_bytes() >= kLeastAheadBytes) ahead_.Start();
  return false;
}

void FileSource::Ask(int64_t begin, int64_t end) {
  if (!header_.fortran_order) {
    readahead(file_.fd.get(), OffsetOf(begin), static_cast<size_t>((end - begin) * row_bytes()));
    return;
  }
  const int64_t item = ItemSize(dtype());
  for (int64_t column = 0; column < dim(); ++column) {
    readahead(file_.fd.get(), header_.data_offset + (column * rows() + begin) * item,
              static_cast<size_t>((end - begin) * item));
  }
}

}  // namespace tiny_knn
