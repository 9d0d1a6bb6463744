// The part of BatchSearch that guesses thresholds before the first chunk is screened, and starts
// again where a guess was too high.
//
// A sample of the chunk's docs is screened first. What ranks in it a little below where the k-th
// best of the chunk should be becomes the threshold, so that lists do not fill up with docs that
// are the best of what was seen so far and of nothing else. When the chunk is done the guess is
// checked: for its sake only docs were dropped whose score is below it, so it was right if k scores
// are at or above it. A query whose guess was not is searched again without one.
//
// A score of codes is much closer to the exact one than its bounds are, so that it says which docs
// of the sample are the best, and those alone are refined: what becomes the guess are lower bounds
// of theirs, not scores that might be too high for most queries at once.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "core/cpu/batch_search.h"
#include "core/matrix/convert.h"

namespace tiny_knn {
namespace {

template <typename T>
constexpr T kMinusInfinity = -std::numeric_limits<T>::infinity();

}  // namespace

template <typename T>
void BatchSearch<T>::GuessThresholds() {
  const MatrixView chunk = chunk_;
  const int64_t step = std::max<int64_t>(1, chunk.rows / plan_.sample_docs);
  chunk_ = {chunk.data, chunk.dtype, chunk.rows / step, chunk.dim, chunk.row_stride_bytes * step};
  // Rows that were kept as working values are not those of the file.
  if (!CheckConversion(chunk_.dtype, params_.compute_dtype).ok() ||
      chunk_.rows < plan_.sample_rank) {
    chunk_ = chunk;
    return;
  }
  DocBoundArrays sample_bounds(chunk_.rows, BoundsKind(), params_.metric);
  DocBoundArrays* const bounds = std::exchange(bounds_, &sample_bounds);
  rank_ = plan_.sample_rank;
  fetch_step_ = step;
  sampling_ = true;
  SetSampleBounds();
  const bool complete = ScreenSample();
  pool_.Run([&](int w) {
    const IndexRange queries = PartOf(num_queries_, w, pool_.threads());
    for (int64_t query = queries.begin; query < queries.end; ++query) {
      const T guess =
          complete ? GuessFor(query, workers_[static_cast<size_t>(w)]) : kMinusInfinity<T>;
      guesses_[static_cast<size_t>(query)] = guess;
      for (int64_t split = 0; split < plan_.doc_splits; ++split) {
        candidates_.list(ListOf(query, split)).size = 0;
        query_bounds_[static_cast<size_t>(ListOf(query, split))] = screen_->InitialBounds(query);
        RaiseThreshold(query, split, screen_->ThresholdFor(query, guess));
      }
    }
  });
  sampling_ = false;
  fetch_step_ = 1;
  block_rows_.reset();
  rank_ = params_.k;
  bounds_ = bounds;
  chunk_ = chunk;
}

template <typename T>
void BatchSearch<T>::SetSampleBounds() {
  for (int64_t split = 0; split < plan_.doc_splits; ++split) {
    for (int64_t query = 0; query < num_queries_; ++query) {
      QueryBounds& bounds = query_bounds_[static_cast<size_t>(ListOf(query, split))];
      bounds = screen_->InitialBounds(query);
      if (screen_->refiner() == nullptr) continue;
      // Nothing is known of the scores of a query that is not screened.
      const bool screened = std::isfinite(bounds.error_factor);
      bounds = {screened ? kMinusInfinity<float> : std::numeric_limits<float>::infinity(), 0, 0};
    }
  }
}

template <typename T>
bool BatchSearch<T>::ScreenSample() {
  bool complete = true;
  for (IndexRange block{0, 0}; block.begin < chunk_.rows && complete; block.begin = block.end) {
    block.end = std::min(block.begin + BlockDocs(block.begin), chunk_.rows);
    const MatrixView rows = RowsOf(block);
    block_rows_.emplace(rows, params_.compute_dtype, block.begin);
    screen_->SetBlock(rows, {});
    // What is noticed is noticed again, and an error then has the right row.
    const std::vector<PrepareCounts> counts = CountsOfWorkers();
    pool_.Run([&](int worker) { PrepareBlock(block, worker); });
    for (size_t w = 0; w < workers_.size(); ++w) {
      complete = complete && workers_[w].status.ok();
      workers_[w].counts = counts[w];
    }
    if (!complete) break;
    pool_.Run([&](int worker) { ScreenBlock(block, worker); });
    if (screen_->refiner() != nullptr) {
      pool_.Run([&](int worker) { RefineBestOfSample(block.begin, worker); });
    }
    complete = complete && !progress_.cancelled();
  }
  return complete;
}

template <typename T>
float BatchSearch<T>::KeepBestOfSample(CandidateList<T>& list, Worker& worker) const {
  const float least =
      KthLargest({list.lower, static_cast<size_t>(list.size)}, rank_, worker.select_scratch);
  const int64_t better =
      std::count_if(list.lower, list.lower + list.size, [&](float l) { return l > least; });
  int64_t equal = rank_ - better;
  int64_t kept = 0;
  for (int64_t i = 0; i < list.size; ++i) {
    const bool keep = list.lower[i] > least || (list.lower[i] == least && equal-- > 0);
    list.lower[kept] = list.lower[i];
    list.doc[kept] = list.doc[i];
    kept += keep ? 1 : 0;
  }
  list.size = kept;
  return least;
}

template <typename T>
void BatchSearch<T>::RefineBestOfSample(int64_t first_doc, int w) {
  Worker& worker = workers_[static_cast<size_t>(w)];
  const IndexRange queries = PartOf(num_queries_, w, pool_.threads());
  for (int64_t query = queries.begin; query < queries.end && !progress_.cancelled(); ++query) {
    for (int64_t split = 0; split < plan_.doc_splits; ++split) {
      CandidateList<T>& list = candidates_.list(ListOf(query, split));
      if (list.size > rank_) KeepBestOfSample(list, worker);
      // Those before were refined with their blocks.
      const int64_t size = list.size;
      list.size = std::lower_bound(list.doc, list.doc + size, first_doc) - list.doc;
      while (list.size < size) {
        int32_t* const docs = list.doc + list.size;
        const int64_t count = std::min(kMostRefined, size - list.size);
        // All are kept: nothing is below that threshold.
        list.size += *RefineDocs(query, kMinusInfinity<float>, {docs, static_cast<size_t>(count)},
                                 list.lower + list.size, docs, worker);
      }
    }
  }
}

template <typename T>
T BatchSearch<T>::GuessFor(int64_t query, Worker& worker) {
  worker.lowers.clear();
  for (int64_t split = 0; split < plan_.doc_splits; ++split) {
    const CandidateList<T>& list = candidates_.list(ListOf(query, split));
    worker.lowers.insert(worker.lowers.end(), list.lower, list.lower + list.size);
  }
  if (static_cast<int64_t>(worker.lowers.size()) < rank_) return kMinusInfinity<T>;
  return screen_->CertainScore(query, KthLargest(worker.lowers, rank_, worker.select_scratch));
}

template <typename T>
std::vector<PrepareCounts> BatchSearch<T>::CountsOfWorkers() const {
  std::vector<PrepareCounts> counts;
  for (const Worker& worker : workers_) counts.push_back(worker.counts);
  return counts;
}

template <typename T>
void BatchSearch<T>::FindWrongGuesses() {
  wrongly_guessed_.clear();
  for (int64_t query = 0; query < num_queries_; ++query) {
    const T guess = std::exchange(guesses_[static_cast<size_t>(query)], kMinusInfinity<T>);
    ExactTop<T>& exact = exact_[static_cast<size_t>(query)];
    if (guess == kMinusInfinity<T> || (exact.full() && exact.kth_score() >= guess)) continue;
    wrongly_guessed_.push_back(query);
    exact = ExactTop<T>(params_.k);
    for (int64_t split = 0; split < plan_.doc_splits; ++split) {
      query_bounds_[static_cast<size_t>(ListOf(query, split))] = screen_->InitialBounds(query);
    }
  }
}

template class BatchSearch<float>;
template class BatchSearch<double>;

}  // namespace tiny_knn
