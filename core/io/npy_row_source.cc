// Rows of .npy files: mapped, or read into a buffer that transposes or swaps.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "core/io/element_copy.h"
#include "core/io/file_util.h"
#include "core/io/mapped_file.h"
#include "core/io/npy.h"
#include "core/io/read_ahead.h"
#include "core/io/row_source.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Columns that are read at a time while transposing fill a cache line of an output row.
constexpr int64_t kPanelBytes = 64;
// Rows of a column that are read at a time while transposing: at most so many, which with one panel
// of columns is at most 2 MiB of staging, and no fewer unless rows are very long, since each is a
// piece of the file of its own.
constexpr int64_t kMostTransposeRows = 32 * 1024;
constexpr int64_t kLeastTransposeRows = 1024;
// A thread asks for so much of what is ahead at a time, each time a short call.
constexpr int64_t kAheadSteps = 16;
// Whether the system has a file at hand is seen so far behind its header.
constexpr int64_t kProbeDistance = int64_t{1} << 20;
// Files that the system reads ahead in one go need no thread.
constexpr int64_t kLeastAheadBytes = int64_t{4} << 20;

bool SameTime(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

// Rows that take kReadAheadBytes.
int64_t AheadRows(const NpyHeader& header) {
  const int64_t row_bytes = std::max<int64_t>(1, header.dim * ItemSize(header.dtype));
  return std::max<int64_t>(1, kReadAheadBytes / row_bytes);
}

int64_t TransposeRows(const NpyHeader& header) {
  return std::clamp(AheadRows(header), kLeastTransposeRows, kMostTransposeRows);
}

// What both file sources share: the open file, what it was when it was opened, and reading it.
class FileSource : public RowSource {
 public:
  FileSource(std::string name, const NpyHeader& header, OpenedFile file)
      : RowSource(std::move(name), header.dtype, header.rows, header.dim),
        header_(header),
        file_(std::move(file)),
        ahead_({.end = header.rows,
                .window = header.fortran_order ? 2 * TransposeRows(header) : AheadRows(header),
                .step = header.fortran_order
                            ? TransposeRows(header)
                            : std::max<int64_t>(1, AheadRows(header) / kAheadSteps),
                .ask = [this](int64_t begin, int64_t end) { Ask(begin, end); }}) {}

  absl::Status CheckUnchanged() override {
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

 protected:
  const NpyHeader& header() const { return header_; }
  int64_t row_bytes() const { return dim() * ItemSize(dtype()); }
  int64_t OffsetOf(int64_t row) const { return header_.data_offset + row * row_bytes(); }
  ReadAhead& ahead() { return ahead_; }

  // RowSource::ExpectFetch, in C order.
  void ExpectReading(int64_t row) {
    ahead_.SeekTo(row);
    if (row == rows()) return;
    // What was read to open the file says nothing of the rest.
    const int64_t last = header_.data_offset + header_.data_bytes() - 1;
    std::byte probe;
    if (ReadAtHand(std::min(OffsetOf(row) + kProbeDistance, last), &probe, 1)) return;
    if (stored_bytes() < kLeastAheadBytes) {
      readahead(file_.fd.get(), header_.data_offset, static_cast<size_t>(stored_bytes()));
    }
  }

  // Any thread. Starts to read ahead where the system does not have the bytes at hand.
  absl::Status ReadExactly(int64_t offset, std::byte* out, int64_t bytes) {
    if (ReadAtHand(offset, out, bytes)) return absl::OkStatus();
    absl::StatusOr<int64_t> got =
        ReadAt(file_.fd.get(), offset, {out, static_cast<size_t>(bytes)}, name());
    if (!got.ok()) return got.status();
    if (*got == bytes) return absl::OkStatus();
    return absl::DataLossError(
        fmt::format("{}: was truncated while it was read: it ends at byte {}, {} bytes expected",
                    name(), offset + *got, header().data_offset + header().data_bytes()));
  }

  // Rows in C order, as they are stored. Any thread.
  absl::Status ReadStoredRows(const RowSelection& rows, std::byte* out) {
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
      absl::Status status = ReadExactly(OffsetOf(rows.begin + done * rows.step),
                                        out + done * row_bytes(), row_bytes());
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  // What need not be waited for. Once that was too little, a thread sees to it, and it is not tried
  // again: false.
  bool ReadAtHand(int64_t offset, std::byte* out, int64_t bytes) {
    if (not_at_hand_.load(std::memory_order_relaxed)) return false;
    const iovec part = {out, static_cast<size_t>(bytes)};
    if (preadv2(file_.fd.get(), &part, 1, offset, RWF_NOWAIT) == bytes) return true;
    not_at_hand_.store(true, std::memory_order_relaxed);
    if (stored_bytes() >= kLeastAheadBytes) ahead_.Start();
    return false;
  }

  // On the thread that reads ahead: rows [begin, end) into the page cache.
  void Ask(int64_t begin, int64_t end) {
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

  NpyHeader header_;
  OpenedFile file_;
  std::atomic<bool> not_at_hand_ = false;
  ReadAhead ahead_;  // last, since its thread uses the others
};

// Views point into the mapped file.
class MappedSource final : public FileSource {
 public:
  MappedSource(std::string name, const NpyHeader& header, OpenedFile file,
               std::unique_ptr<MappedFile> mapping)
      : FileSource(std::move(name), header, std::move(file)), mapping_(std::move(mapping)) {}

  absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) override {
    mapping_->WillNeed(OffsetOf(begin), OffsetOf(end));
    return Start(begin, end);
  }

  absl::StatusOr<std::vector<MatrixView>> StartRows(int64_t begin, int64_t end) override {
    return std::vector<MatrixView>{Start(begin, end)};
  }

  bool needs_fetch() const override { return true; }

  absl::Status Fetch(const RowSelection& rows, std::byte* out) override {
    absl::Status status = ReadStoredRows(rows, out);
    if (status.ok() && rows.step == 1) ahead().ReachedTo(rows.begin + rows.count);
    return status;
  }

  void ExpectFetch(int64_t row) override { ExpectReading(row); }

  void Release() override {
    mapping_->DontNeed(used_begin_, used_end_);
    used_begin_ = used_end_ = 0;
  }

  absl::Status CheckUnchanged() override {
    absl::Status status = FileSource::CheckUnchanged();
    if (!status.ok() || !mapping_->damaged()) return status;
    return absl::DataLossError(fmt::format(
        "{}: part of it could not be read: it was truncated for a while, or the disk failed",
        name()));
  }

  int64_t buffer_bytes_per_row() const override { return 0; }

 private:
  MatrixView Start(int64_t begin, int64_t end) {
    ahead().SeekTo(begin);
    const int64_t first = OffsetOf(begin);
    const int64_t last = OffsetOf(end);
    if (last > first) {
      used_begin_ = used_end_ == 0 ? first : std::min(used_begin_, first);
      used_end_ = std::max(used_end_, last);
    }
    return {mapping_->bytes().data() + first, dtype(), end - begin, dim(), row_bytes()};
  }

  std::unique_ptr<MappedFile> mapping_;
  // Bytes handed out since the last Release; both 0 when none.
  int64_t used_begin_ = 0;
  int64_t used_end_ = 0;
};

// Rows are read into a buffer: for Fortran order, foreign byte order, data that is not aligned to
// its elements, and files that cannot be mapped.
class BufferedSource final : public FileSource {
 public:
  using FileSource::FileSource;

  absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) override {
    absl::StatusOr<MatrixView> view = Start(begin, end);
    if (!view.ok() || !needs_fetch()) return view;
    absl::Status status = ReadRows(begin, end);
    if (!status.ok()) return status;
    return view;
  }

  absl::StatusOr<std::vector<MatrixView>> StartRows(int64_t begin, int64_t end) override {
    const absl::StatusOr<MatrixView> view = Start(begin, end);
    if (!view.ok()) return view.status();
    return std::vector<MatrixView>{*view};
  }

  // Pieces of columns are worth reading and transposing many rows at a time only.
  bool needs_fetch() const override { return !header().fortran_order; }

  absl::Status Fetch(const RowSelection& rows, std::byte* out) override {
    if (rows.step != 1) {
      absl::Status status = ReadStoredRows(rows, out);
      if (status.ok()) Swap(out, rows.count);
      return status;
    }
    absl::Status status = ReadRows(rows.begin, rows.begin + rows.count);
    if (status.ok()) {
      std::memcpy(out, PlaceOf(rows.begin), static_cast<size_t>(rows.count * row_bytes()));
    }
    return status;
  }

  // Columns have been read already.
  void ExpectFetch(int64_t row) override {
    if (needs_fetch()) ExpectReading(row);
  }

  void Release() override {}

  int64_t buffer_bytes_per_row() const override { return row_bytes(); }

 private:
  absl::StatusOr<MatrixView> Start(int64_t begin, int64_t end) {
    ahead().SeekTo(begin);
    started_ = begin;
    const int64_t bytes = (end - begin) * row_bytes();
    absl::Status status = buffer_.Grow(bytes, name());
    if (status.ok() && bytes > 0 && !needs_fetch()) status = ReadColumns(begin, end);
    if (!status.ok()) return status;
    return MatrixView{buffer_.data(), dtype(), end - begin, dim(), row_bytes()};
  }

  std::byte* PlaceOf(int64_t row) { return buffer_.data() + (row - started_) * row_bytes(); }

  void Swap(std::byte* data, int64_t num_rows) const {
    if (header().swap_bytes) SwapElements(data, num_rows * dim(), ItemSize(dtype()));
  }

  // To their place in the buffer.
  absl::Status ReadRows(int64_t begin, int64_t end) {
    absl::Status status = ReadStoredRows({begin, end - begin}, PlaceOf(begin));
    if (!status.ok()) return status;
    Swap(PlaceOf(begin), end - begin);
    ahead().ReachedTo(end);
    return absl::OkStatus();
  }

  // A panel of columns at a time, as many as fill a cache line of an output row, so that each line
  // of the output is written once and each byte of the file is read once.
  absl::Status ReadColumns(int64_t begin, int64_t end) {
    const int64_t item = ItemSize(dtype());
    const int64_t panel = kPanelBytes / item;
    const int64_t piece = TransposeRows(header());
    const int64_t most_rows = std::min(end - begin, piece);
    // Off a power of two, so that the columns do not compete for the same cache sets.
    const int64_t column_bytes = most_rows * item + kPanelBytes;
    absl::Status status = staging_.Grow(panel * column_bytes, name());
    for (int64_t row = begin; status.ok() && row < end; row += piece) {
      const int64_t num_rows = std::min(piece, end - row);
      for (int64_t column = 0; status.ok() && column < dim(); column += panel) {
        const int64_t num_columns = std::min(panel, dim() - column);
        for (int64_t c = 0; status.ok() && c < num_columns; ++c) {
          status = ReadExactly(header().data_offset + ((column + c) * rows() + row) * item,
                               staging_.data() + c * column_bytes, num_rows * item);
        }
        if (!status.ok()) break;
        std::byte* out = PlaceOf(row) + column * item;
        CopyElements({staging_.data(), item, column_bytes, item, header().swap_bytes}, num_rows,
                     num_columns, out, row_bytes());
      }
      ahead().ReachedTo(row + num_rows);
    }
    return status;
  }

  RowBuffer buffer_;  // rows from started_ on
  RowBuffer staging_;
  int64_t started_ = 0;
};

absl::Status CheckLength(const std::string& path, const NpyHeader& header, int64_t file_size) {
  const int64_t expected = header.data_offset + header.data_bytes();
  if (file_size >= expected) return absl::OkStatus();  // bytes after the data are nobody's business
  return absl::DataLossError(fmt::format(
      "{}: is truncated: {} bytes found, {} expected for {} {} of {} {} values; copy or write it "
      "again",
      path, file_size, expected, header.rows, header.rows == 1 ? "row" : "rows", header.dim,
      DTypeName(header.dtype)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<RowSource>> OpenNpyRowSource(const std::string& path,
                                                            std::optional<DType> input_dtype,
                                                            const RowSourceTestHooks& hooks) {
  absl::StatusOr<OpenedFile> file = OpenRegularFile(path, "an .npy file");
  if (!file.ok()) return file.status();
  std::vector<std::byte> start(
      static_cast<size_t>(std::min<int64_t>(file->stat.st_size, 12 + kMaxNpyHeaderBytes)));
  absl::StatusOr<int64_t> got = ReadAt(file->fd.get(), 0, start, path);
  if (!got.ok()) return got.status();
  absl::StatusOr<NpyHeader> header = ParseNpyHeader(
      {reinterpret_cast<const uint8_t*>(start.data()), static_cast<size_t>(*got)}, input_dtype);
  if (!header.ok()) {
    return absl::Status(header.status().code(),
                        fmt::format("{}: {}", path, std::string(header.status().message())));
  }
  absl::Status status = CheckLength(path, *header, file->stat.st_size);
  if (!status.ok()) return status;
  // A matrix of one column or one row is the same in both orders.
  if (header->dim <= 1 || header->rows <= 1) header->fortran_order = false;
  const bool aligned = header->data_offset % ItemSize(header->dtype) == 0;
  if (!header->fortran_order && !header->swap_bytes && aligned && header->data_bytes() > 0 &&
      !hooks.never_map) {
    absl::StatusOr<std::unique_ptr<MappedFile>> mapping =
        MappedFile::Map(file->fd.get(), header->data_offset + header->data_bytes(), path);
    if (mapping.ok()) {
      return std::make_unique<MappedSource>(path, *header, *std::move(file), *std::move(mapping));
    }
  }
  return std::make_unique<BufferedSource>(path, *header, *std::move(file));
}

}  // namespace tiny_knn
