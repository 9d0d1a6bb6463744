// Where rows come from: a mapped .npy file, a reader that transposes or swaps bytes, or memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/matrix/dtype.h"
#include "core/matrix/matrix_view.h"

namespace tiny_knn {

// Rows begin, begin + step, ..., `count` of them.
struct RowSelection {
  int64_t begin = 0;
  int64_t count = 0;
  int64_t step = 1;
};

// A matrix [rows, dim] whose rows are handed out in ranges. Thread-compatible: calls must not
// overlap (Fetch may), but the memory of a view may be read from any number of threads.
class RowSource {
 public:
  virtual ~RowSource() = default;
  RowSource(const RowSource&) = delete;
  RowSource& operator=(const RowSource&) = delete;

  int64_t rows() const { return rows_; }
  int64_t dim() const { return dim_; }
  DType dtype() const { return dtype_; }
  // What messages call it: the path as given, or a name like "queries".
  const std::string& name() const { return name_; }

  // Rows [begin, end), native byte order, row-major. The view stays valid until the next call of
  // Rows, StartRows or Release, or the source's end. 0 <= begin <= end <= rows().
  // Errors: DataLoss when the file shrank or changed, ResourceExhausted, Internal (I/O error).
  virtual absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) = 0;

  // The same rows for one who goes through the matrix from the first row to the last, range after
  // range: where they lie, the rows of one view behind those of another; at least one view, and
  // just one unless needs_fetch(). Where needs_fetch(), a row must be fetched before it is read
  // from its view, and when the disk is what the search waits for, a thread asks it for the rows
  // ahead, those of the next range too. That thread ends with the source.
  virtual absl::StatusOr<std::vector<MatrixView>> StartRows(int64_t begin, int64_t end);

  // The most rows that StartRows surely hands out where they lie. Of more, it may have to copy some
  // on the calling thread.
  virtual int64_t most_rows_in_place() const { return rows_; }

  // Whether rows of a view of StartRows are there only after Fetch; else Fetch is not to be called.
  virtual bool needs_fetch() const { return false; }

  // Whether the range that was started is better read from its views, as if needs_fetch() were
  // false: where the system has it in memory, as far as a look tells, and maps it faster than it
  // copies it. Measured once, in less than a millisecond, unless the range is small.
  virtual bool IsBetterReadInPlace() { return false; }

  // Copies rows of the range that was started to `out` [rows.count, dim], as in a view; with a step
  // of 1 they are then in the view, too. What it takes of the file it reads, so that neither faults
  // nor truncation raise a signal, and memory that is used again and again stays in cache: half the
  // cost of a mapping's first touch. Any number of threads at once, for different rows.
  // Errors: DataLoss when the file ends too early, Internal (I/O error).
  virtual absl::Status Fetch(const RowSelection& rows, std::byte* out);

  // Whether FetchEach may be called.
  virtual bool can_fetch_each() const { return false; }

  // Copies rows `rows`, in any order and started or not, to `out` [rows.size(), dim], as in a view:
  // for who wants few of many. A page of a mapping costs several times as much as the row on it,
  // for its neighbours are mapped with it, and have to be unmapped. Nothing is read ahead; what the
  // disk has to bring is asked for at once. Any number of threads at once, also while a view is
  // read. Errors: as Fetch.
  virtual absl::Status FetchEach(std::span<const int64_t> rows, std::byte* out);

  // Rows from `row` on will be fetched soon, of this range or the next: if the disk has to be asked
  // for them, that begins. Any thread; returns at once.
  virtual void ExpectFetch(int64_t /*row*/) {}

  // A hint to StartRows: what is not in the system's page cache is better read past it, because
  // there is too much of it to be kept there, or it shall not be. The view then lies in memory that
  // is taken for it.
  virtual void ReadPastCache(bool /*past_cache*/) {}

  // Says that no view is in use any more: pages may go, buffers may be kept for the next Rows call.
  virtual void Release() = 0;

  // Error when rows handed out so far may not be what the file held when it was opened: it was
  // truncated under the mapping, or its size, mtime or ctime differ. Call after using rows; cheap.
  virtual absl::Status CheckUnchanged() = 0;

  // Bytes that Rows(begin, end) allocates per row; 0 when views point into the mapped file or the
  // caller's memory. The planner counts them.
  virtual int64_t buffer_bytes_per_row() const = 0;

  // Whether the rows lie in memory of the caller's, which the search neither takes nor gives back.
  virtual bool is_callers_memory() const { return false; }

  // Bytes of the matrix as stored (rows * dim * item size): what one pass reads.
  int64_t stored_bytes() const { return rows_ * dim_ * ItemSize(dtype_); }

 protected:
  RowSource(std::string name, DType dtype, int64_t rows, int64_t dim)
      : name_(std::move(name)), dtype_(dtype), rows_(rows), dim_(dim) {}

 private:
  std::string name_;
  DType dtype_;
  int64_t rows_;
  int64_t dim_;
};

// For tests only; rows never depend on it.
struct RowSourceTestHooks {
  bool never_map = false;  // as if no file could be mapped
  // In the place of a measurement, and of ranges of any size.
  std::optional<bool> maps_faster = std::nullopt;
};

// Opens the 2-D .npy file at `path`: C order in native byte order is mapped and handed out without
// a copy. Fortran order and foreign byte order are read through a transposing / swapping buffer,
// and so is a file whose data is not aligned to its elements (a header of odd length) or that
// cannot be mapped: then buffer_bytes_per_row() > 0. Transposing takes up to 2 MiB besides. The
// file stays open for CheckUnchanged; bytes after the data are ignored. Views are aligned to their
// elements. `input_dtype` overrides what the header says for raw two-byte void data (bfloat16
// written by numpy with ml_dtypes); it must match the header otherwise. Errors, each naming file,
// what was found and what is expected: NotFound, PermissionDenied, InvalidArgument (not an .npy
// file, not 2-D, unsupported dtype, directory, FIFO, ...), DataLoss (truncated).
absl::StatusOr<std::unique_ptr<RowSource>> OpenNpyRowSource(const std::string& path,
                                                            std::optional<DType> input_dtype,
                                                            const RowSourceTestHooks& hooks = {});

// Rows of memory that outlives the source and does not change while it lives.
std::unique_ptr<RowSource> MakeMemoryRowSource(std::string name, const MatrixView& matrix);

// A matrix [rows, dim] in memory somebody else owns, of any layout: element (i, j) starts
// i * row_stride_bytes + j * column_stride_bytes bytes behind `data`. Strides may be negative, 0,
// or less than a row or an element takes; elements need not be aligned.
struct StridedMatrix {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t dim = 0;
  int64_t row_stride_bytes = 0;
  int64_t column_stride_bytes = 0;
  bool swap_bytes = false;  // stored in the other byte order
};

// Rows of such a matrix, as MakeMemoryRowSource. Rows whose elements follow each other, in native
// byte order, and which do not overlap (or are all the same one) are handed out where they lie; all
// others through a buffer: buffer_bytes_per_row() > 0.
std::unique_ptr<RowSource> MakeStridedRowSource(std::string name, const StridedMatrix& matrix);

}  // namespace tiny_knn
