#include "core/io/row_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/io/file_util.h"
#include "core/io/mapped_file.h"
#include "core/io/npy.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Cache line; also what vector loads like.
constexpr size_t kAlignment = 64;
// Rows of a column that are read at a time while transposing. With one cache line's worth of
// columns this is at most 2 MiB of staging, and each read at least 32 KiB when there are rows.
constexpr int64_t kTransposeRows = 32 * 1024;

// Memory that grows, aligned, never initialised and never throwing.
class Buffer {
 public:
  absl::Status Grow(size_t bytes, std::string_view name) {
    if (bytes <= size_) return absl::OkStatus();
    data_.reset();
    size_ = 0;
    const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded)));
    if (data_ == nullptr) {
      return absl::ResourceExhaustedError(fmt::format(
          "{}: no memory for {} bytes of rows; use a smaller --memory-limit", name, bytes));
    }
    size_ = rounded;
    return absl::OkStatus();
  }
  std::byte* data() { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* data) const { std::free(data); }
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_ = 0;
};

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

template <typename U>
U SwapBytes(U value) {
  if constexpr (sizeof(U) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(U) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(U) == 8) return __builtin_bswap64(value);
  return value;
}

template <typename U, bool kSwap>
void TransposeInto(const std::byte* columns, int64_t column_bytes, int64_t num_rows,
                   int64_t num_columns, std::byte* out, int64_t row_bytes) {
  for (int64_t r = 0; r < num_rows; ++r) {
    const std::byte* from = columns + r * static_cast<int64_t>(sizeof(U));
    std::byte* to = out + r * row_bytes;
    for (int64_t c = 0; c < num_columns; ++c) {
      U value;
      std::memcpy(&value, from + c * column_bytes, sizeof(U));
      if constexpr (kSwap) value = SwapBytes(value);
      std::memcpy(to + c * static_cast<int64_t>(sizeof(U)), &value, sizeof(U));
    }
  }
}

template <typename U>
void SwapAll(std::byte* data, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    std::byte* at = data + i * static_cast<int64_t>(sizeof(U));
    U value;
    std::memcpy(&value, at, sizeof(U));
    value = SwapBytes(value);
    std::memcpy(at, &value, sizeof(U));
  }
}

// Calls visit with an unsigned integer as large as an element.
template <typename F>
void VisitItem(int64_t item_size, F&& visit) {
  if (item_size == 1) visit(uint8_t{});
  if (item_size == 2) visit(uint16_t{});
  if (item_size == 4) visit(uint32_t{});
  if (item_size == 8) visit(uint64_t{});
}

// Rows are read into a buffer: for Fortran order, foreign byte order, data that is not aligned to
// its elements, and files that cannot be mapped.
class BufferedSource final : public FileSource {
 public:
  using FileSource::FileSource;

  absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) override {
    const int64_t bytes = (end - begin) * row_bytes();
    absl::Status status = buffer_.Grow(static_cast<size_t>(bytes), name());
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
      VisitItem(ItemSize(dtype()),
                [&](auto item) { SwapAll<decltype(item)>(buffer_.data(), (end - begin) * dim()); });
    }
    return status;
  }

  // A panel of columns at a time, as many as fill a cache line of an output row, so that each line
  // of the output is written once and each byte of the file is read once.
  absl::Status ReadColumns(int64_t begin, int64_t end) {
    const int64_t item = ItemSize(dtype());
    const int64_t panel = static_cast<int64_t>(kAlignment) / item;
    const int64_t most_rows = std::min(end - begin, kTransposeRows);
    // Off a power of two, so that the columns do not compete for the same cache sets.
    const int64_t column_bytes = most_rows * item + static_cast<int64_t>(kAlignment);
    absl::Status status = staging_.Grow(static_cast<size_t>(panel * column_bytes), name());
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
        VisitItem(item, [&](auto element) {
          using U = decltype(element);
          const auto transpose =
              header().swap_bytes ? TransposeInto<U, true> : TransposeInto<U, false>;
          transpose(staging_.data(), column_bytes, num_rows, num_columns, out, row_bytes());
        });
      }
    }
    return status;
  }

  Buffer buffer_;
  Buffer staging_;
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

 private:
  MatrixView matrix_;
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

}  // namespace tiny_knn
