// The second half of BatchSearch: exact scores of candidates, when a list is full or a chunk ends.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <mutex>
#include <vector>

#include "core/cpu/batch_search.h"

namespace tiny_knn {
namespace {

// Docs are rescored for all of a thread's queries while this many bytes of them stay in cache.
constexpr int64_t kRescoreWindowBytes = int64_t{2} << 20;
// A pair takes up to some tens of microseconds where exact integers must decide.
constexpr int64_t kPairsPerCancelCheck = 256;

}  // namespace

template <typename T>
T BatchSearch<T>::Score(int64_t query, int32_t doc, Worker& worker) const {
  const T* row = chunk_rows_->Row(doc, worker.row_scratch);
  const double norm = static_cast<double>(bounds_.norm[static_cast<size_t>(doc)]);
  return RoundedScore<T>(params_.metric, queries_[static_cast<size_t>(query)], row, norm, dim_);
}

template <typename T>
void BatchSearch<T>::TakeScored(CandidateList<T>& list, std::vector<Ranked<T>>& found) const {
  for (int64_t i = 0; i < list.size; ++i) {
    found.push_back({list.key[i], chunk_begin_ + list.doc[i]});
  }
  list.size = 0;
}

template <typename T>
void BatchSearch<T>::RescoreNow(int64_t query, int64_t split, Worker& worker) {
  CandidateList<T>& list = candidates_.list(ListOf(query, split));
  for (int64_t i = 0; i < list.size; ++i) {
    if (i % kPairsPerCancelCheck == 0 && progress_.cancelled()) {
      list.size = 0;  // nobody will ask for the result
      return;
    }
    list.key[i] = KeyOfScore(Score(query, list.doc[i], worker));
  }
  worker.rescored += list.size;
  worker.found.clear();
  TakeScored(list, worker.found);
  ExactTop<T>& exact = exact_[static_cast<size_t>(query)];
  const std::lock_guard lock(exact_mutexes_[static_cast<size_t>(query) % exact_mutexes_.size()]);
  exact.Merge(worker.found, worker.sort_scratch);
  if (exact.full()) {
    RaiseThreshold(query, split, screen_->ThresholdFor(query, exact.kth_score()));
  }
}

template <typename T>
void BatchSearch<T>::ThinForRescoring(int64_t query, Worker& worker) {
  // All splits of a query together prove more than each alone.
  worker.lowers.clear();
  float threshold = -std::numeric_limits<float>::infinity();
  for (int64_t split = 0; split < plan_.doc_splits; ++split) {
    CandidateList<T>& list = candidates_.list(ListOf(query, split));
    RemoveSelf(query, list);
    worker.lowers.insert(worker.lowers.end(), list.lower, list.lower + list.size);
    threshold =
        std::max(threshold, query_bounds_[static_cast<size_t>(ListOf(query, split))].threshold);
  }
  if (static_cast<int64_t>(worker.lowers.size()) >= params_.k) {
    const float lower = KthLargest(worker.lowers, params_.k, worker.select_scratch);
    threshold =
        std::max(threshold, screen_->ThresholdFor(query, screen_->CertainScore(query, lower)));
  }
  for (int64_t split = 0; split < plan_.doc_splits; ++split) {
    RaiseThreshold(query, split, threshold);
    DropBelowThreshold(query, split, candidates_.list(ListOf(query, split)));
  }
}

template <typename T>
void BatchSearch<T>::ScoreCandidates(IndexRange queries, Worker& worker) {
  // Window by window of docs, so that a row is fetched once for all of this thread's queries.
  const int64_t splits = plan_.doc_splits;
  std::vector<int64_t> next(static_cast<size_t>(queries.size() * splits), 0);
  const int64_t window =
      std::max<int64_t>(1, kRescoreWindowBytes / (dim_ * ItemSize(chunk_.dtype)));
  for (int64_t begin = 0; begin < chunk_.rows; begin += window) {
    for (int64_t i = 0; i < queries.size() * splits; ++i) {
      const int64_t query = queries.begin + i / splits;
      CandidateList<T>& list = candidates_.list(ListOf(query, i % splits));
      int64_t& at = next[static_cast<size_t>(i)];
      for (; at < list.size && list.doc[at] < begin + window; ++at) {
        if (at % kPairsPerCancelCheck == 0 && progress_.cancelled()) return;
        list.key[at] = KeyOfScore(Score(query, list.doc[at], worker));
      }
    }
  }
}

template <typename T>
void BatchSearch<T>::MergeScored(int64_t query, Worker& worker) {
  worker.found.clear();
  for (int64_t split = 0; split < plan_.doc_splits; ++split) {
    CandidateList<T>& list = candidates_.list(ListOf(query, split));
    worker.rescored += list.size;
    TakeScored(list, worker.found);
  }
  ExactTop<T>& exact = exact_[static_cast<size_t>(query)];
  exact.Merge(worker.found, worker.sort_scratch);
  if (!exact.full()) return;
  const float threshold = screen_->ThresholdFor(query, exact.kth_score());
  for (int64_t split = 0; split < plan_.doc_splits; ++split) {
    RaiseThreshold(query, split, threshold);
  }
}

template <typename T>
void BatchSearch<T>::RescoreChunk(int w) {
  Worker& worker = workers_[static_cast<size_t>(w)];
  const IndexRange queries = PartOf(num_queries_, w, pool_.threads());
  for (int64_t query = queries.begin; query < queries.end; ++query) {
    ThinForRescoring(query, worker);
  }
  ScoreCandidates(queries, worker);
  if (progress_.cancelled()) return;  // scores may be missing
  for (int64_t query = queries.begin; query < queries.end; ++query) MergeScored(query, worker);
}

template class BatchSearch<float>;
template class BatchSearch<double>;

}  // namespace tiny_knn
