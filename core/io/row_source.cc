#include "core/io/row_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "core/io/element_copy.h"
#include "core/io/file_util.h"
#include "core/io/mapped_file.h"
#include "core/io/npy.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Columns that are read at a time while transposing fill a cache line of an output row.
constexpr int64_t kPanelBytes = 64;
// Rows of a column that are read at a time while transposing. With one panel of columns this is at
// most 2 MiB of staging, and each read at least 32 KiB when there are rows.
constexpr int64_t kTransposeRows = 32 * 1024;

bool SameTime(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

// What both file sources share: the open file and what it was when it was opened.
class FileSource : public RowSource {
 public:
  FileSource(std::string name, const NpyHeader& header, OpenedFile file)
      : RowSource(std::move(name), header.dtype, header.rows, header.dim),
        header_(header),
        file_(std::move(file)) {}

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
  int fd() const { return file_.fd.get(); }
  int64_t row_bytes() const { return dim() * ItemSize(dtype()); }

 private:
  NpyHeader header_;
  OpenedFile file_;
};

// Views point into the mapped file.
class MappedSource final : public FileSource {
 public:
  MappedSource(std::string name, const NpyHeader& header, OpenedFile file,
               std::unique_ptr<MappedFile> mapping)
      : FileSource(std::move(name), header, std::move(file)), mapping_(std::move(mapping)) {}

  absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) override {
    const int64_t first = header().data_offset + begin * row_bytes();
    const int64_t last = header().data_offset + end * row_bytes();
    mapping_->WillNeed(first, last);
    if (last > first) {
      used_begin_ = used_end_ == 0 ? first : std::min(used_begin_, first);
      used_end_ = std::max(used_end_, last);
    }
    return MatrixView{mapping_->bytes().data() + first, dtype(), end - begin, dim(), row_bytes()};
  }

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
    const int64_t bytes = (end - begin) * row_bytes();
    absl::Status status = buffer_.Grow(bytes, name());
    if (status.ok() && bytes > 0) {
      status = header().fortran_order ? ReadColumns(begin, end) : ReadRows(begin, end);
    }
    if (!status.ok()) return status;
    return MatrixView{buffer_.data(), dtype(), end - begin, dim(), row_bytes()};
  }

  void Release() override {}

  int64_t buffer_bytes_per_row() const override { return row_bytes(); }

 private:
  absl::Status ReadExactly(int64_t offset, std::byte* out, int64_t bytes) {
    absl::StatusOr<int64_t> got = ReadAt(fd(), offset, {out, static_cast<size_t>(bytes)}, name());
    if (!got.ok()) return got.status();
    if (*got == bytes) return absl::OkStatus();
    return absl::DataLossError(
        fmt::format("{}: was truncated while it was read: it ends at byte {}, {} bytes expected",
                    name(), offset + *got, header().data_offset + header().data_bytes()));
  }

  absl::Status ReadRows(int64_t begin, int64_t end) {
    absl::Status status = ReadExactly(header().data_offset + begin * row_bytes(), buffer_.data(),
                                      (end - begin) * row_bytes());
    if (status.ok() && header().swap_bytes) {
      SwapElements(buffer_.data(), (end - begin) * dim(), ItemSize(dtype()));
    }
    return status;
  }

  // A panel of columns at a time, as many as fill a cache line of an output row, so that each line
  // of the output is written once and each byte of the file is read once.
  absl::Status ReadColumns(int64_t begin, int64_t end) {
    const int64_t item = ItemSize(dtype());
    const int64_t panel = kPanelBytes / item;
    const int64_t most_rows = std::min(end - begin, kTransposeRows);
    // Off a power of two, so that the columns do not compete for the same cache sets.
    const int64_t column_bytes = most_rows * item + kPanelBytes;
    absl::Status status = staging_.Grow(panel * column_bytes, name());
    for (int64_t row = begin; status.ok() && row < end; row += kTransposeRows) {
      const int64_t num_rows = std::min(kTransposeRows, end - row);
      for (int64_t column = 0; status.ok() && column < dim(); column += panel) {
        const int64_t num_columns = std::min(panel, dim() - column);
        for (int64_t c = 0; status.ok() && c < num_columns; ++c) {
          status = ReadExactly(header().data_offset + ((column + c) * rows() + row) * item,
                               staging_.data() + c * column_bytes, num_rows * item);
        }
        if (!status.ok()) break;
        std::byte* out = buffer_.data() + (row - begin) * row_bytes() + column * item;
        CopyElements({staging_.data(), item, column_bytes, item, header().swap_bytes}, num_rows,
                     num_columns, out, row_bytes());
      }
    }
    return status;
  }

  RowBuffer buffer_;
  RowBuffer staging_;
};

class MemorySource final : public RowSource {
 public:
  MemorySource(std::string name, const MatrixView& matrix)
      : RowSource(std::move(name), matrix.dtype, matrix.rows, matrix.dim), matrix_(matrix) {}

  absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) override {
    return matrix_.Slice(begin, end);
  }
  void Release() override {}
  absl::Status CheckUnchanged() override { return absl::OkStatus(); }
  int64_t buffer_bytes_per_row() const override { return 0; }
  bool is_callers_memory() const override { return true; }

 private:
  MatrixView matrix_;
};

// Rows are gathered into a buffer, a square of elements at a time, so that neither side leaves the
// cache before it is done with.
class GatheringSource final : public RowSource {
 public:
  GatheringSource(std::string name, const StridedMatrix& matrix)
      : RowSource(std::move(name), matrix.dtype, matrix.rows, matrix.dim), matrix_(matrix) {}

  absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) override {
    constexpr int64_t kSquare = 64;
    const int64_t item = ItemSize(dtype());
    const int64_t row_bytes = dim() * item;
    absl::Status status = buffer_.Grow((end - begin) * row_bytes, name());
    if (!status.ok()) return status;
    const auto* data = static_cast<const std::byte*>(matrix_.data);
    for (int64_t row = begin; row < end; row += kSquare) {
      for (int64_t column = 0; column < dim(); column += kSquare) {
        const std::byte* from =
            data + row * matrix_.row_stride_bytes + column * matrix_.column_stride_bytes;
        CopyElements(
            {from, matrix_.row_stride_bytes, matrix_.column_stride_bytes, item, matrix_.swap_bytes},
            std::min(kSquare, end - row), std::min(kSquare, dim() - column),
            buffer_.data() + (row - begin) * row_bytes + column * item, row_bytes);
      }
    }
    return MatrixView{buffer_.data(), dtype(), end - begin, dim(), row_bytes};
  }
  void Release() override {}
  absl::Status CheckUnchanged() override { return absl::OkStatus(); }
  int64_t buffer_bytes_per_row() const override { return dim() * ItemSize(dtype()); }

 private:
  StridedMatrix matrix_;
  RowBuffer buffer_;
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

std::unique_ptr<RowSource> MakeMemoryRowSource(std::string name, const MatrixView& matrix) {
  return std::make_unique<MemorySource>(std::move(name), matrix);
}

std::unique_ptr<RowSource> MakeStridedRowSource(std::string name, const StridedMatrix& matrix) {
  const int64_t item = ItemSize(matrix.dtype);
  const int64_t row_bytes = matrix.dim * item;
  const bool swap = matrix.swap_bytes && item > 1;
  const bool contiguous = matrix.dim <= 1 || matrix.column_stride_bytes == item;
  // Rows that overlap, or lie backwards, are more than a MatrixView can say.
  const bool apart =
      matrix.rows <= 1 || matrix.row_stride_bytes == 0 || matrix.row_stride_bytes >= row_bytes;
  if (swap || !contiguous || !apart) {
    return std::make_unique<GatheringSource>(std::move(name), matrix);
  }
  const int64_t stride = matrix.rows <= 1 ? row_bytes : matrix.row_stride_bytes;
  return MakeMemoryRowSource(
      std::move(name), MatrixView{matrix.data, matrix.dtype, matrix.rows, matrix.dim, stride});
}

}  // namespace tiny_knn
