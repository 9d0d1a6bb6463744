// What survives the screen: per query, docs that may belong to its top k, with a proved lower bound
// on each one's score. Kept in doc order, thinned as the threshold rises.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/search/planner.h"
#include "core/search/ranking.h"

namespace tiny_knn {

// The k-th largest of `values` (k >= 1, k <= size; no NaN; -inf allowed). `scratch` is reused
// memory. A histogram of the values' bits finds the bin, nth_element settles it: the values of a
// candidate list span a narrow range, where comparing sorts mispredict.
float KthLargest(std::span<const float> values, int64_t k, std::vector<uint32_t>& scratch);

// One query's candidates among the docs of the current chunk. Memory is the arena's.
template <typename T>
struct CandidateList {
  float* lower = nullptr;      // [capacity + kCandidatePadding] lower bounds, in the screen's units
  int32_t* doc = nullptr;      // [capacity + kCandidatePadding] index in the chunk, ascending
  ScoreKey<T>* key = nullptr;  // [capacity + kCandidatePadding] exact score, once rescored
  int64_t size = 0;
};

// Candidate lists of `num_lists` queries, `capacity` entries each, in one allocation per array.
// Nothing is written beforehand: gigabytes of it would take seconds, in which nobody asks whether
// the search is cancelled.
template <typename T>
class CandidateArena {
 public:
  CandidateArena(int64_t num_lists, int64_t capacity)
      : capacity_(capacity),
        lower_(std::make_unique_for_overwrite<float[]>(Entries(num_lists))),
        doc_(std::make_unique_for_overwrite<int32_t[]>(Entries(num_lists))),
        key_(std::make_unique_for_overwrite<ScoreKey<T>[]>(Entries(num_lists))),
        lists_(static_cast<size_t>(num_lists)) {
    for (int64_t i = 0; i < num_lists; ++i) {
      const int64_t offset = i * Stride();
      lists_[static_cast<size_t>(i)] = {lower_.get() + offset, doc_.get() + offset,
                                        key_.get() + offset, 0};
    }
  }

  int64_t capacity() const { return capacity_; }
  CandidateList<T>& list(int64_t i) { return lists_[static_cast<size_t>(i)]; }

 private:
  int64_t Stride() const { return capacity_ + kCandidatePadding; }

  size_t Entries(int64_t num_lists) const { return static_cast<size_t>(num_lists * Stride()); }

  int64_t capacity_;
  std::unique_ptr<float[]> lower_;
  std::unique_ptr<int32_t[]> doc_;
  std::unique_ptr<ScoreKey<T>[]> key_;
  std::vector<CandidateList<T>> lists_;
};

}  // namespace tiny_knn
