// Rescoring: the correctly rounded scores of survivors, and the exact top k they make.
#pragma once

#include <cstdint>
#include <vector>

#include "core/cpu/screen.h"
#include "core/matrix/matrix_view.h"
#include "core/search/ranking.h"
#include "core/search/rounded_score.h"
#include "core/search/search.h"

namespace tiny_knn {

// The resident docs of a chunk as scoring wants them: any row as working values.
template <typename T>
class ChunkRows {
 public:
  // `chunk` holds rows of the file's dtype and outlives this.
  ChunkRows(const MatrixView& chunk, DType compute_dtype);

  // Row `doc` of the chunk: where it lies, or converted into `scratch` [dim]. Conversion was
  // checked when the screen prepared the docs. Any thread.
  const T* Row(int64_t doc, std::vector<T>& scratch) const;

 private:
  MatrixView chunk_;
  DType compute_dtype_;
  bool in_place_;
};

// The best docs scored so far of one query: at most k + 1, the last one only to tell whether rank k
// is tied. Thread-compatible.
template <typename T>
class ExactTop {
 public:
  explicit ExactTop(int64_t k) : k_(k) {}

  // Adds scored docs. Both vectors are scratch memory afterwards: this keeps k + 1 entries, no
  // more.
  void Merge(std::vector<Ranked<T>>& found, std::vector<Ranked<T>>& scratch);

  // Whether k docs are in.
  bool full() const { return static_cast<int64_t>(best_.size()) >= k_; }
  // The k-th best score. REQUIRES: full().
  T kth_score() const { return ScoreOfKey<T>(best_[static_cast<size_t>(k_ - 1)].key); }

  // Writes the k best in order. REQUIRES: full(). Returns whether rank k ties with the next doc.
  bool Write(T* scores, int64_t* indices) const;

 private:
  int64_t k_;
  std::vector<Ranked<T>> best_;  // in order
};

// Sorts into the order of results. `scratch` is overwritten. Docs in ascending order of index, as
// candidate lists hold them, are sorted by radix: no comparison to mispredict.
template <typename T>
void SortRanked(std::vector<Ranked<T>>& docs, std::vector<Ranked<T>>& scratch);

}  // namespace tiny_knn
