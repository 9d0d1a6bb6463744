#include "core/cpu/chunk_rows.h"

#include <cstdint>
#include <vector>

#include "core/matrix/aligned_vector.h"
#include "core/matrix/convert.h"
#include "core/matrix/dtype.h"

namespace tiny_knn {

template <typename T>
ChunkRows<T>::ChunkRows(const MatrixView& chunk, DType compute_dtype)
    : chunk_(chunk),
      compute_dtype_(compute_dtype),
      in_place_(AreWorkingRows<T>(chunk, compute_dtype)) {}

template <typename T>
const T* ChunkRows<T>::Row(int64_t doc, std::vector<T>& scratch) const {
  if (in_place_) return static_cast<const T*>(chunk_.Row(doc));
  scratch.resize(static_cast<size_t>(chunk_.dim));
  // The screen converted this row before: it counted, and would have ended with an error.
  ConvertCounts counted_before;
  ConvertRows<T>(chunk_.Slice(doc, doc + 1), compute_dtype_, /*first_row=*/0, scratch.data(),
                 chunk_.dim, counted_before)
      .IgnoreError();
  return scratch.data();
}

template <typename T>
void ChunkRows<T>::Prefetch(int64_t doc) const {
  const char* const row = static_cast<const char*>(chunk_.Row(doc));
  const int64_t bytes = chunk_.dim * ItemSize(chunk_.dtype);
  for (int64_t at = 0; at < bytes; at += kCacheLineBytes) __builtin_prefetch(row + at);
}

template class ChunkRows<float>;
template class ChunkRows<double>;

}  // namespace tiny_knn
