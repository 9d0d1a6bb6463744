#include "core/cpu/chunk_rows.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/matrix/aligned_vector.h"
#include "core/matrix/convert.h"
#include "core/matrix/dtype.h"
#include "core/matrix/stored_elements.h"

namespace tiny_knn {

template <typename T>
ChunkRows<T>::ChunkRows(const MatrixView& rows, DType compute_dtype, int64_t first_doc)
    : rows_(rows),
      compute_dtype_(compute_dtype),
      first_doc_(first_doc),
      in_place_(AreWorkingRows<T>(rows, compute_dtype)),
      widened_exactly_(std::is_same_v<T, float> && IsWidenedExactly(rows.dtype, compute_dtype)) {}

template <typename T>
ChunkRows<T>::ChunkRows(std::vector<MatrixView> pieces, DType compute_dtype)
    : ChunkRows(pieces.front(), compute_dtype) {
  if (pieces.size() == 1) return;
  int64_t end = 0;
  for (const MatrixView& piece : pieces) {
    piece_ends_.push_back(end += piece.rows);
    in_place_ = in_place_ && AreWorkingRows<T>(piece, compute_dtype);
  }
  pieces_ = std::move(pieces);
}

template <typename T>
const void* ChunkRows<T>::RowOfPieces(int64_t row) const {
  const auto end = std::upper_bound(piece_ends_.begin(), piece_ends_.end(), row);
  const MatrixView& piece = pieces_[static_cast<size_t>(end - piece_ends_.begin())];
  return piece.Row(row - (*end - piece.rows));
}

template <typename T>
const T* ChunkRows<T>::WorkingRow(const void* stored, std::vector<T>& scratch) const {
  if (in_place_) return static_cast<const T*>(stored);
  scratch.resize(static_cast<size_t>(rows_.dim));
  // The screen converted this row before: it counted, and would have ended with an error.
  ConvertCounts counted_before;
  const MatrixView row{stored, rows_.dtype, 1, rows_.dim, rows_.row_stride_bytes};
  ConvertRows<T>(row, compute_dtype_, /*first_row=*/0, scratch.data(), rows_.dim, counted_before)
      .IgnoreError();
  return scratch.data();
}

template <typename T>
void ChunkRows<T>::Prefetch(int64_t doc) const {
  const char* const row = static_cast<const char*>(StoredRow(doc));
  const int64_t bytes = rows_.dim * ItemSize(rows_.dtype);
  for (int64_t at = 0; at < bytes; at += kCacheLineBytes) __builtin_prefetch(row + at);
}

template class ChunkRows<float>;
template class ChunkRows<double>;

}  // namespace tiny_knn
