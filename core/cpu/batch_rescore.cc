// The second half of BatchSearch: exact scores of candidates, when a list is full or a chunk ends.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <mutex>
#include <type_traits>
#include <vector>

#include "core/cpu/batch_search.h"

namespace tiny_knn {
namespace {

// Docs are rescored for all of a thread's queries while this many bytes of them stay in cache.
constexpr int64_t kRescoreWindowBytes = int64_t{2} << 20;
// Selection among the candidates of one takes some microseconds.
constexpr int64_t kQueriesPerCancelCheck = 1024;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

}  // namespace

template <typename T>
bool BatchSearch<T>::ScoreFrom(int64_t query, float floor, CandidateList<T>& list, int64_t begin,
                               int64_t end, Worker& worker) const {
  const PreparedQuery<T>& prepared = queries_[static_cast<size_t>(query)];
  static_assert(kMostRoundedScores <= kMostRefined, "rows are fetched in groups of those");
  int64_t at[kMostRoundedScores];
  int32_t docs[kMostRoundedScores];
  const void* rows[kMostRoundedScores];
  double norms[kMostRoundedScores];
  T scores[kMostRoundedScores];
  for (int64_t i = begin; i < end;) {
    if (progress_.cancelled()) return false;
    int64_t count = 0;
    for (; i < end && count < kMostRoundedScores; ++i) {
      if (list.lower[i] < floor) continue;
      at[count] = i;
      docs[count] = list.doc[i];
      norms[count] = static_cast<double>(bounds_->norm[static_cast<size_t>(list.doc[i])]);
      ++count;
    }
    if (!FindStoredRows({docs, static_cast<size_t>(count)}, *chunk_rows_, worker, rows)) {
      return false;
    }
    bool scored = false;
    if constexpr (std::is_same_v<T, float>) {
      if (chunk_rows_->are_widened_exactly()) {
        RoundedScores(params_.metric, prepared, rows, chunk_rows_->stored_dtype(), norms, count,
                      dim_, worker.row_scratch, scores);
        scored = true;
      }
    }
    for (int64_t c = 0; c < count && !scored; ++c) {
      const T* row = chunk_rows_->WorkingRow(rows[c], worker.row_scratch);
      scores[c] = RoundedScore<T>(params_.metric, prepared, row, norms[c], dim_);
    }
    for (int64_t c = 0; c < count; ++c) list.key[at[c]] = KeyOfScore(scores[c]);
  }
  return true;
}

template <typename T>
void BatchSearch<T>::TakeScored(float floor, CandidateList<T>& list, Worker& worker) const {
  int64_t left = 0;
  for (int64_t i = 0; i < list.size; ++i) {
    if (list.lower[i] >= floor) {
      worker.found.push_back({list.key[i], params_.first_doc + chunk_begin_ + list.doc[i]});
      continue;
    }
    list.lower[left] = list.lower[i];
    list.doc[left] = list.doc[i];
    ++left;
  }
  worker.rescored += list.size - left;
  list.size = left;
}

template <typename T>
void BatchSearch<T>::RescoreNow(int64_t query, int64_t split, Worker& worker) {
  CandidateList<T>& list = candidates_.list(ListOf(query, split));
  float floor = kMinusInfinity;
  if (list.size > params_.k) {
    floor =
        KthLargest({list.lower, static_cast<size_t>(list.size)}, params_.k, worker.select_scratch);
  }
  while (list.size > 0) {
    if (!ScoreFrom(query, floor, list, 0, list.size, worker)) {
      list.size = 0;  // nobody will ask for the result
      return;
    }
    worker.found.clear();
    TakeScored(floor, list, worker);
    {
      ExactTop<T>& exact = exact_[static_cast<size_t>(query)];
      const std::lock_guard lock(
          exact_mutexes_[static_cast<size_t>(query) % exact_mutexes_.size()]);
      exact.Merge(worker.found, worker.sort_scratch);
      if (exact.full()) {
        RaiseThreshold(query, split, screen_->ThresholdFor(query, exact.kth_score()));
      }
    }
    DropBelowThreshold(query, split, list);
    if (HasRoom(list)) return;
    floor = kMinusInfinity;
  }
}

template <typename T>
float BatchSearch<T>::RaiseThresholds(int64_t query, bool with_waiting, Worker& worker) {
  // All splits of a query together prove more than each alone.
  worker.lowers.clear();
  float threshold = kMinusInfinity;
  for (int64_t split = 0; split < plan_.doc_splits; ++split) {
    const size_t list_index = static_cast<size_t>(ListOf(query, split));
    CandidateList<T>& list = candidates_.list(ListOf(query, split));
    RemoveSelf(query, list);
    worker.lowers.insert(worker.lowers.end(), list.lower, list.lower + list.size);
    threshold = std::max(threshold, query_bounds_[list_index].threshold);
    if (!with_waiting) continue;
    const Survivors& waiting = waiting_[list_index];
    worker.lowers.insert(worker.lowers.end(), waiting.lower.get(),
                         waiting.lower.get() + waiting.count);
  }
  float floor = kMinusInfinity;
  if (static_cast<int64_t>(worker.lowers.size()) >= rank_) {
    floor = KthLargest(worker.lowers, rank_, worker.select_scratch);
    threshold =
        std::max(threshold, screen_->ThresholdFor(query, screen_->CertainScore(query, floor)));
  }
  for (int64_t split = 0; split < plan_.doc_splits; ++split) {
    RaiseThreshold(query, split, threshold);
  }
  return floor;
}

template <typename T>
float BatchSearch<T>::ThinForRescoring(int64_t query, Worker& worker) {
  const float floor = RaiseThresholds(query, /*with_waiting=*/false, worker);
  for (int64_t split = 0; split < plan_.doc_splits; ++split) {
    DropBelowThreshold(query, split, candidates_.list(ListOf(query, split)));
  }
  return floor;
}

template <typename T>
bool BatchSearch<T>::ScoreCandidates(IndexRange queries, const std::vector<float>& floors,
                                     Worker& worker) {
  // Window by window of docs, so that a row is fetched once for all of this thread's queries.
  const int64_t splits = plan_.doc_splits;
  std::vector<int64_t> next(static_cast<size_t>(queries.size() * splits), 0);
  const int64_t window =
      std::max<int64_t>(1, kRescoreWindowBytes / (dim_ * ItemSize(chunk_.dtype)));
  for (int64_t begin = 0; begin < chunk_.rows; begin += window) {
    for (int64_t i = 0; i < queries.size() * splits; ++i) {
      if (i % kQueriesPerCancelCheck == 0 && progress_.cancelled()) return false;
      const int64_t query = queries.begin + i / splits;
      CandidateList<T>& list = candidates_.list(ListOf(query, i % splits));
      int64_t& at = next[static_cast<size_t>(i)];
      int64_t end = at;
      while (end < list.size && list.doc[end] < begin + window) ++end;
      const float floor = floors[static_cast<size_t>(i / splits)];
      if (!ScoreFrom(query, floor, list, at, end, worker)) return false;
      at = end;
    }
  }
  return true;
}

template <typename T>
void BatchSearch<T>::MergeScored(int64_t query, float floor, Worker& worker) {
  worker.found.clear();
  for (int64_t split = 0; split < plan_.doc_splits; ++split) {
    TakeScored(floor, candidates_.list(ListOf(query, split)), worker);
  }
  ExactTop<T>& exact = exact_[static_cast<size_t>(query)];
  exact.Merge(worker.found, worker.sort_scratch);
  if (!exact.full()) return;
  const float threshold = screen_->ThresholdFor(query, exact.kth_score());
  for (int64_t split = 0; split < plan_.doc_splits; ++split) {
    RaiseThreshold(query, split, threshold);
    DropBelowThreshold(query, split, candidates_.list(ListOf(query, split)));
  }
}

template <typename T>
void BatchSearch<T>::RescoreChunk(int w) {
  Worker& worker = workers_[static_cast<size_t>(w)];
  const IndexRange queries = PartOf(num_queries_, w, pool_.threads());
  // First the docs with the k best lower bounds of each query: their exact scores give a threshold
  // that is higher by an error bound, and of the others about half are left.
  std::vector<float> floors(static_cast<size_t>(queries.size()));
  for (int64_t i = 0; i < queries.size(); ++i) {
    if (i % kQueriesPerCancelCheck == 0 && progress_.cancelled()) return;
    if (Waits()) RefineAllWaiting(queries.begin + i, worker);
    floors[static_cast<size_t>(i)] = ThinForRescoring(queries.begin + i, worker);
  }
  while (true) {
    if (!ScoreCandidates(queries, floors, worker)) return;
    bool done = true;
    for (int64_t i = 0; i < queries.size(); ++i) {
      if (i % kQueriesPerCancelCheck == 0 && progress_.cancelled()) return;
      float& floor = floors[static_cast<size_t>(i)];
      MergeScored(queries.begin + i, floor, worker);
      done = done && floor == kMinusInfinity;
      floor = kMinusInfinity;
    }
    if (done) return;
  }
}

template class BatchSearch<float>;
template class BatchSearch<double>;

}  // namespace tiny_knn
