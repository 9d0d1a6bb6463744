// The exact top k that rescored docs make.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/search/ranking.h"

namespace tiny_knn {

// The best docs scored so far of one query: at most k + 1, the last one only to tell whether rank k
// is tied. Thread-compatible.
template <typename T>
class ExactTop {
 public:
  explicit ExactTop(int64_t k) : k_(k) {}

  // Adds scored docs. Both vectors are scratch memory afterwards: this keeps k + 1 entries, no
  // more.
  void Merge(std::vector<Ranked<T>>& found, std::vector<Ranked<T>>& scratch);

  // What is in, in order, and the same put back into an empty one.
  std::span<const Ranked<T>> docs() const { return best_; }
  void Restore(std::vector<Ranked<T>> docs) { best_ = std::move(docs); }

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
