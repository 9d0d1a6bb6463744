// A matrix somebody else owns.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/matrix/dtype.h"

namespace tiny_knn {

// Row-major matrix [rows, dim] in host memory, native byte order. A row's elements are contiguous;
// rows lie `row_stride_bytes` apart (at least dim * ItemSize(dtype), or 0 to repeat one row). Data
// need not be aligned to its element. Owns nothing: valid as long as the memory behind `data` is.
struct MatrixView {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t dim = 0;
  int64_t row_stride_bytes = 0;

  // Address of row `i`, 0 <= i < rows.
  const void* Row(int64_t i) const {
    return static_cast<const std::byte*>(data) + i * row_stride_bytes;
  }

  // Rows [begin, end) of this view.
  MatrixView Slice(int64_t begin, int64_t end) const {
    return {Row(begin), dtype, end - begin, dim, row_stride_bytes};
  }
};

}  // namespace tiny_knn
