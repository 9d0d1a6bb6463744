// Elements from where they lie to row-major rows in native byte order: what every source does whose
// rows cannot be handed out as they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string_view>

#include "absl/status/status.h"

namespace tiny_knn {

// A matrix as it lies in memory: element (i, j) starts at data + i * row_stride + j * column_stride
// (bytes, any sign). Owns nothing.
struct ElementLayout {
  const std::byte* data = nullptr;
  int64_t row_stride = 0;
  int64_t column_stride = 0;
  int64_t item_size = 0;    // 1, 2, 4 or 8
  bool swap_bytes = false;  // stored in the other byte order
};

// Writes elements [0, num_rows) x [0, num_columns) of `from` to `out`, whose rows lie
// `out_row_stride` bytes apart, element by element: the caller chooses a part of the matrix that
// caches hold. Neither side has to be aligned. Thread-safe.
void CopyElements(const ElementLayout& from, int64_t num_rows, int64_t num_columns, std::byte* out,
                  int64_t out_row_stride);

// Turns `count` elements of `item_size` bytes into the other byte order, in place.
void SwapElements(std::byte* data, int64_t count, int64_t item_size);

// Memory that grows, on cache lines, never initialised and never throwing. Thread-compatible.
class RowBuffer {
 public:
  // At least `bytes`, whose contents are lost when it grows. ResourceExhausted, naming `name`.
  absl::Status Grow(int64_t bytes, std::string_view name);
  std::byte* data() { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* data) const { std::free(data); }
  };
  std::unique_ptr<std::byte, Free> data_;
  int64_t size_ = 0;
};

}  // namespace tiny_knn
