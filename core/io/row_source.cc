#include "core/io/row_source.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/io/element_copy.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

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

}  // namespace

absl::StatusOr<std::vector<MatrixView>> RowSource::StartRows(int64_t begin, int64_t end) {
  const absl::StatusOr<MatrixView> view = Rows(begin, end);
  if (!view.ok()) return view.status();
  return std::vector<MatrixView>{*view};
}

absl::Status RowSource::Fetch(const RowSelection& /*rows*/, std::byte* /*out*/) {
  return absl::InternalError(fmt::format("{}: its rows need not be fetched", name_));
}

absl::Status RowSource::FetchEach(std::span<const int64_t> /*rows*/, std::byte* /*out*/) {
  return absl::InternalError(fmt::format("{}: its rows cannot be fetched each", name_));
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
