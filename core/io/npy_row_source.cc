// Rows of .npy files: mapped, or read into a buffer that transposes or swaps.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/io/direct_reader.h"
#include "core/io/element_copy.h"
#include "core/io/file_source.h"
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
// Rows that lie so far apart are read one by one, before all that lies between them has arrived: of
// each, some pages are read twice then.
constexpr int64_t kSparseBytes = int64_t{256} << 10;

// Rows that take kReadAheadBytes.
int64_t AheadRows(const NpyHeader& header) {
  const int64_t row_bytes = std::max<int64_t>(1, header.dim * ItemSize(header.dtype));
  return std::max<int64_t>(1, kReadAheadBytes / row_bytes);
}

int64_t TransposeRows(const NpyHeader& header) {
  return std::clamp(AheadRows(header), kLeastTransposeRows, kMostTransposeRows);
}

FileSource::Ahead AheadOf(const NpyHeader& header) {
  if (header.fortran_order) return {2 * TransposeRows(header), TransposeRows(header)};
  return {AheadRows(header), std::max<int64_t>(1, AheadRows(header) / kAheadSteps)};
}

// Of ranges of this size, which of both ways is the faster one is measured, on so many pieces each.
constexpr int64_t kLeastMeasuredBytes = int64_t{16} << 20;
constexpr int64_t kMeasuredPiece = int64_t{256} << 10;
constexpr int kMeasuredPieces = 8;

// Reads a byte of each cache line.
uint8_t Touch(const std::byte* data, int64_t bytes) {
  uint8_t sum = 0;
  for (int64_t at = 0; at < bytes; at += 64) sum += static_cast<uint8_t>(data[at]);
  return sum;
}

// Views point into the mapped file.
class MappedSource final : public FileSource {
 public:
  MappedSource(std::string name, const NpyHeader& header, OpenedFile file,
               std::unique_ptr<MappedFile> mapping, std::optional<bool> maps_faster)
      : FileSource(std::move(name), header, std::move(file), AheadOf(header)),
        mapping_(std::move(mapping)),
        least_measured_bytes_(maps_faster.has_value() ? 0 : kLeastMeasuredBytes),
        maps_faster_(maps_faster) {}

  absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) override {
    mapping_->WillNeed(OffsetOf(begin), OffsetOf(end));
    return Start(begin, end);
  }

  absl::StatusOr<std::vector<MatrixView>> StartRows(int64_t begin, int64_t end) override {
    Release();
    is_direct_ = past_cache_ && StartDirectly(begin, end);
    AllowReadingAhead(!is_direct_);
    if (is_direct_) {
      return std::vector<MatrixView>{
          {direct_->At(OffsetOf(begin)), dtype(), end - begin, dim(), row_bytes()}};
    }
    direct_.reset();  // its memory is that of the pages that are mapped now
    return std::vector<MatrixView>{Start(begin, end)};
  }

  void ReadPastCache(bool past_cache) override { past_cache_ = past_cache; }

  bool needs_fetch() const override { return true; }

  bool IsBetterReadInPlace() override {
    if (is_direct_ || started_end_ - started_begin_ < least_measured_bytes_ ||
        !IsCached(started_begin_, started_end_)) {
      return false;
    }
    if (!maps_faster_.has_value()) maps_faster_ = MapsFasterThanItCopies();
    return *maps_faster_;
  }

  absl::Status Fetch(const RowSelection& rows, std::byte* out) override {
    if (is_direct_ && (rows.step == 1 || rows.step * row_bytes() < kSparseBytes)) {
      return CopyArrived(rows, out);
    }
    absl::Status status = ReadStoredRows(rows, out);
    if (status.ok() && rows.step == 1) ahead().ReachedTo(rows.begin + rows.count);
    return status;
  }

  bool can_fetch_each() const override { return true; }

  absl::Status FetchEach(std::span<const int64_t> rows, std::byte* out) override {
    return ReadEachStoredRow(rows, out);
  }

  void ExpectFetch(int64_t row) override { ExpectReading(row); }

  void Release() override {
    if (is_direct_) direct_->Stop();
    is_direct_ = false;
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
    started_begin_ = first;
    started_end_ = last;
    if (last > first) {
      used_begin_ = used_end_ == 0 ? first : std::min(used_begin_, first);
      used_end_ = std::max(used_end_, last);
    }
    return {mapping_->bytes().data() + first, dtype(), end - begin, dim(), row_bytes()};
  }

  // Of the range that was started. Pieces are taken in turn, each once: what a piece costs is what
  // its first touch costs.
  bool MapsFasterThanItCopies() {
    using Clock = std::chrono::steady_clock;
    const int64_t distance = (started_end_ - started_begin_) / (2 * kMeasuredPieces + 1);
    std::vector<std::byte> copy(static_cast<size_t>(kMeasuredPiece));
    volatile uint8_t touched = 0;
    std::array<Clock::duration, kMeasuredPieces> taken[2];
    for (int i = 0; i < 2 * kMeasuredPieces; ++i) {
      const int64_t at = started_begin_ + distance * i;
      const bool copies = i % 2 == 0;
      const Clock::time_point start = Clock::now();
      if (copies && !ReadExactly(at, copy.data(), kMeasuredPiece).ok()) return false;
      const std::byte* const data = copies ? copy.data() : mapping_->bytes().data() + at;
      touched = static_cast<uint8_t>(touched + Touch(data, kMeasuredPiece));
      taken[copies ? 0 : 1][static_cast<size_t>(i / 2)] = Clock::now() - start;
    }
    // A piece during which something else ran says nothing.
    const auto median = [](std::array<Clock::duration, kMeasuredPieces>& pieces) {
      std::nth_element(pieces.begin(), pieces.begin() + kMeasuredPieces / 2, pieces.end());
      return pieces[kMeasuredPieces / 2];
    };
    // As fast will do: rows of a mapping are at hand until the chunk is done.
    return median(taken[1]) <= median(taken[0]);
  }

  // Waits for rows to arrive from the disk.
  absl::Status CopyArrived(const RowSelection& rows, std::byte* out) {
    const int64_t last = rows.begin + (rows.count - 1) * rows.step;
    absl::Status status = direct_->Wait(OffsetOf(rows.begin), OffsetOf(last + 1));
    if (!status.ok()) return status;
    const int64_t at_once = rows.step == 1 ? rows.count : 1;
    for (int64_t i = 0; i < rows.count; i += at_once) {
      std::memcpy(out + i * row_bytes(), direct_->At(OffsetOf(rows.begin + i * rows.step)),
                  static_cast<size_t>(at_once * row_bytes()));
    }
    return status;
  }

  // False where that cannot be, or the system has most of the rows in memory.
  bool StartDirectly(int64_t begin, int64_t end) {
    if (begin == end || direct_refused_ || IsMostlyCached(OffsetOf(begin), OffsetOf(end))) {
      return false;
    }
    if (direct_ == nullptr) direct_ = OpenDirectly();
    direct_refused_ = direct_ == nullptr || !direct_->Start(OffsetOf(begin), OffsetOf(end)).ok();
    return !direct_refused_;
  }

  std::unique_ptr<MappedFile> mapping_;
  bool past_cache_ = false;
  bool direct_refused_ = false;
  bool is_direct_ = false;  // the range that was started
  std::unique_ptr<DirectReader> direct_;
  // Bytes handed out since the last Release; both 0 when none.
  int64_t used_begin_ = 0;
  int64_t used_end_ = 0;
  int64_t started_begin_ = 0;
  int64_t started_end_ = 0;
  const int64_t least_measured_bytes_;
  std::optional<bool> maps_faster_;  // nothing: not measured yet
};

// Rows are read into a buffer: for Fortran order, foreign byte order, data that is not aligned to
// its elements, and files that cannot be mapped.
class BufferedSource final : public FileSource {
 public:
  BufferedSource(std::string name, const NpyHeader& header, OpenedFile file)
      : FileSource(std::move(name), header, std::move(file), AheadOf(header)) {}

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
      return std::make_unique<MappedSource>(path, *header, *std::move(file), *std::move(mapping),
                                            hooks.maps_faster);
    }
  }
  return std::make_unique<BufferedSource>(path, *header, *std::move(file));
}

}  // namespace tiny_knn
