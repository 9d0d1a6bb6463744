#include "core/cpu/rescore.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/matrix/convert.h"

namespace tiny_knn {

template <typename T>
ChunkRows<T>::ChunkRows(const MatrixView& chunk, DType compute_dtype)
    : chunk_(chunk),
      compute_dtype_(compute_dtype),
      in_place_(IsIdentityConversion(chunk.dtype, compute_dtype) &&
                reinterpret_cast<uintptr_t>(chunk.data) % alignof(T) == 0 &&
                chunk.row_stride_bytes % static_cast<int64_t>(sizeof(T)) == 0) {}

template <typename T>
const T* ChunkRows<T>::Row(int64_t doc, std::vector<T>& scratch) const {
  if (in_place_) return static_cast<const T*>(chunk_.Row(doc));
  scratch.resize(static_cast<size_t>(chunk_.dim));
  ConvertCounts counted_before;
  ConvertRows<T>(chunk_.Slice(doc, doc + 1), compute_dtype_, doc, scratch.data(), chunk_.dim,
                 counted_before)
      .IgnoreError();
  return scratch.data();
}

template <typename T>
void ExactTop<T>::Merge(std::vector<Ranked<T>>& found) {
  found.insert(found.end(), best_.begin(), best_.end());
  const int64_t most = k_ + 1;
  if (static_cast<int64_t>(found.size()) > most) {
    std::nth_element(found.begin(), found.begin() + k_, found.end());
    found.resize(static_cast<size_t>(most));
  }
  if (static_cast<int64_t>(found.size()) >= k_) {
    const auto kth = found.begin() + (k_ - 1);
    std::nth_element(found.begin(), kth, found.end());
    kth_key_ = kth->key;
  }
  best_.reserve(static_cast<size_t>(most));
  best_.assign(found.begin(), found.end());
}

template <typename T>
bool ExactTop<T>::Finish(T* scores, int64_t* indices) {
  std::sort(best_.begin(), best_.end());
  for (int64_t rank = 0; rank < k_; ++rank) {
    scores[rank] = ScoreOfKey<T>(best_[static_cast<size_t>(rank)].key);
    indices[rank] = best_[static_cast<size_t>(rank)].index;
  }
  return static_cast<int64_t>(best_.size()) > k_ &&
         best_[static_cast<size_t>(k_)].key == best_[static_cast<size_t>(k_ - 1)].key;
}

template class ChunkRows<float>;
template class ChunkRows<double>;
template class ExactTop<float>;
template class ExactTop<double>;

}  // namespace tiny_knn
