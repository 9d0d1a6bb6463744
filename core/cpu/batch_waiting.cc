// The part of BatchSearch for survivors of codes that wait: where all rows of a chunk stay at hand,
// or each has to be read, which costs more than thousands of codes. Of many the best are refined
// first, whose scores rule out most of the others.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "core/cpu/batch_search.h"

namespace tiny_knn {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
// A list that thinning leaves fuller than this share would be thinned again soon.
constexpr int64_t kLeastRoomShare = 4;

}  // namespace

template <typename T>
void BatchSearch<T>::TakeSurvivors(int64_t query, int64_t split, const ScoreRow& scores,
                                   int64_t first_doc, Worker& worker) {
  const size_t list = static_cast<size_t>(ListOf(query, split));
  Survivors& waiting = waiting_[list];
  for (int64_t next = 0;;) {
    const FilterResult result =
        FilterScores(scores, next, query_bounds_[list], bounds_->At(first_doc),
                     static_cast<int32_t>(first_doc), waiting.lower.get() + waiting.count,
                     waiting.doc.get() + waiting.count, plan_.waiting_capacity - waiting.count);
    waiting.count += result.kept;
    worker.survived += result.kept;
    next = result.next;
    if (next == scores.count || progress_.cancelled() || !worker.status.ok()) return;
    ThinWaiting(query, split, worker);
  }
}

template <typename T>
void BatchSearch<T>::RemoveSelf(int64_t query, Survivors& survivors) const {
  RemoveSelf(query, survivors.lower.get(), survivors.doc.get(), survivors.count);
}

template <typename T>
void BatchSearch<T>::ThinWaiting(int64_t query, int64_t split, Worker& worker) {
  const CandidateList<T>& list = candidates_.list(ListOf(query, split));
  Survivors& waiting = waiting_[static_cast<size_t>(ListOf(query, split))];
  RemoveSelf(query, waiting);
  worker.lowers.assign(waiting.lower.get(), waiting.lower.get() + waiting.count);
  worker.lowers.insert(worker.lowers.end(), list.lower, list.lower + list.size);
  if (static_cast<int64_t>(worker.lowers.size()) >= rank_) {
    const float lower = KthLargest(worker.lowers, rank_, worker.select_scratch);
    RaiseThreshold(query, split, screen_->ThresholdFor(query, screen_->CertainScore(query, lower)));
  }
  DropSurvivors(query, split, 0, waiting);
  const int64_t most =
      plan_.waiting_capacity - std::max<int64_t>(1, plan_.waiting_capacity / kLeastRoomShare);
  if (waiting.count <= most) return;
  if (waiting.count >= rank_) {
    const float floor = KthLargest({waiting.lower.get(), static_cast<size_t>(waiting.count)}, rank_,
                                   worker.select_scratch);
    RefineWaiting(query, split, floor, worker);
  }
  DropSurvivors(query, split, 0, waiting);
  if (waiting.count > most) RefineWaiting(query, split, kMinusInfinity, worker);
}

template <typename T>
void BatchSearch<T>::RefineWaiting(int64_t query, int64_t split, float floor, Worker& worker) {
  const CandidateList<T>& list = candidates_.list(ListOf(query, split));
  Survivors& waiting = waiting_[static_cast<size_t>(ListOf(query, split))];
  int32_t group[kMostRefined];
  size_t in_group = 0;
  int64_t kept = 0;
  for (int64_t i = 0; i < waiting.count; ++i) {
    const int32_t doc = waiting.doc[static_cast<size_t>(i)];
    const float lower = waiting.lower[static_cast<size_t>(i)];
    if (lower >= floor) {
      if (!IsBelowThreshold(query, split, lower, doc)) group[in_group++] = doc;
    } else {
      waiting.doc[static_cast<size_t>(kept)] = doc;
      waiting.lower[static_cast<size_t>(kept)] = lower;
      ++kept;
    }
    const bool last = i + 1 == waiting.count;
    if (in_group < size_t{kMostRefined} && !(last && in_group > 0)) continue;
    if (progress_.cancelled() || !RefineGroup(query, split, {group, in_group}, worker)) {
      kept = 0;  // nobody will ask for the result
      break;
    }
    in_group = 0;
    if (list.size >= Capacity()) Thin(query, split, worker);
  }
  waiting.count = kept;
}

template <typename T>
void BatchSearch<T>::RefineAllWaiting(int64_t query, Worker& worker) {
  for (int64_t split = 0; split < plan_.doc_splits; ++split) {
    RemoveSelf(query, waiting_[static_cast<size_t>(ListOf(query, split))]);
  }
  const auto refine = [&](float floor) {
    for (int64_t split = 0; split < plan_.doc_splits; ++split) {
      RefineWaiting(query, split, floor, worker);
    }
  };
  // The best first, whose scores rule out most of the others.
  refine(RaiseThresholds(query, /*with_waiting=*/true, worker));
  RaiseThresholds(query, /*with_waiting=*/false, worker);
  refine(kMinusInfinity);
}

template class BatchSearch<float>;
template class BatchSearch<double>;

}  // namespace tiny_knn
