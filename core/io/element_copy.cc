#include "core/io/element_copy.h"

#include <cstring>

#include "core/matrix/aligned_vector.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

template <typename U>
U SwapBytes(U value) {
  if constexpr (sizeof(U) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(U) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(U) == 8) return __builtin_bswap64(value);
  return value;
}

template <typename U, bool kSwap>
void CopyAs(const ElementLayout& from, int64_t num_rows, int64_t num_columns, std::byte* out,
            int64_t out_row_stride) {
  for (int64_t r = 0; r < num_rows; ++r) {
    const std::byte* source = from.data + r * from.row_stride;
    std::byte* target = out + r * out_row_stride;
    for (int64_t c = 0; c < num_columns; ++c) {
      U value;
      std::memcpy(&value, source + c * from.column_stride, sizeof(U));
      if constexpr (kSwap) value = SwapBytes(value);
      std::memcpy(target + c * static_cast<int64_t>(sizeof(U)), &value, sizeof(U));
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

}  // namespace

void CopyElements(const ElementLayout& from, int64_t num_rows, int64_t num_columns, std::byte* out,
                  int64_t out_row_stride) {
  VisitItem(from.item_size, [&](auto item) {
    using U = decltype(item);
    const auto copy = from.swap_bytes ? CopyAs<U, true> : CopyAs<U, false>;
    copy(from, num_rows, num_columns, out, out_row_stride);
  });
}

void SwapElements(std::byte* data, int64_t count, int64_t item_size) {
  VisitItem(item_size, [&](auto item) { SwapAll<decltype(item)>(data, count); });
}

absl::Status RowBuffer::Grow(int64_t bytes, std::string_view name) {
  if (bytes <= size_) return absl::OkStatus();
  data_.reset();
  size_ = 0;
  constexpr int64_t kLine = static_cast<int64_t>(kCacheLineBytes);
  const int64_t rounded = (bytes + kLine - 1) / kLine * kLine;
  data_.reset(
      static_cast<std::byte*>(std::aligned_alloc(kCacheLineBytes, static_cast<size_t>(rounded))));
  if (data_ == nullptr) {
    return absl::ResourceExhaustedError(fmt::format(
        "{}: no memory for {} bytes of rows; use a smaller --memory-limit", name, bytes));
  }
  size_ = rounded;
  return absl::OkStatus();
}

}  // namespace tiny_knn
