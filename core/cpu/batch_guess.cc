// The part of BatchSearch that guesses thresholds before the first chunk is screened, and starts
// again where a guess was too high.
//
// A sample of the chunk's docs is screened first. What ranks in it a little below where the k-th
// best of the chunk should be becomes the threshold, so that lists do not fill up with docs that
// are the best of what was seen so far and of nothing else. When the chunk is done the guess is
// checked: for its sake only docs were dropped whose score is below it, so it was right if k scores
// are at or above it. A query whose guess was not is searched again without one.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "core/cpu/batch_search.h"
#include "core/matrix/convert.h"

namespace tiny_knn {
namespace {

// Thresholds have risen, whatever the docs' order.
constexpr int64_t kLeastJudgedSample = 2048;

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
  if (ScreenSample()) {
    pool_.Run([&](int w) {
      const IndexRange queries = PartOf(num_queries_, w, pool_.threads());
      for (int64_t query = queries.begin; query < queries.end; ++query) {
        const float lower = ThinForRescoring(query, workers_[static_cast<size_t>(w)]);
        guesses_[static_cast<size_t>(query)] = screen_->CertainScore(query, lower);
      }
    });
  }
  for (int64_t i = 0; i < num_queries_ * plan_.doc_splits; ++i) candidates_.list(i).size = 0;
  sampling_ = false;
  fetch_step_ = 1;
  block_rows_.reset();
  rank_ = params_.k;
  bounds_ = bounds;
  chunk_ = chunk;
}

template <typename T>
bool BatchSearch<T>::ScreenSample() {
  bool complete = true;
  // Each block is spread over the whole sample, and no larger than what fills lists: where every
  // doc beats those before it, only the first block's docs all survive.
  int64_t docs = std::min(BlockDocs(0), (2 * Capacity() + kTileDocs - 1) / kTileDocs * kTileDocs);
  // Nor than what a screen has room for that takes the place of codes between two blocks.
  if (screen_->refiner() != nullptr) docs = std::min(docs, BlockDocsWithoutCodes());
  const int64_t step = (chunk_.rows + docs - 1) / docs;
  int64_t position = 0;
  for (int64_t first = 0; first < step && complete; ++first) {
    const IndexRange block{position, position + (chunk_.rows - first + step - 1) / step};
    position = block.end;
    screen_->SetBlock(SampleRows(first, step, block), {});
    // What is noticed is noticed again, and an error then has the right row.
    const std::vector<PrepareCounts> counts = CountsOfWorkers();
    pool_.Run([&](int worker) { PrepareBlock(block, worker); });
    for (size_t w = 0; w < workers_.size(); ++w) {
      complete = complete && workers_[w].status.ok();
      workers_[w].counts = counts[w];
    }
    if (complete) pool_.Run([&](int worker) { ScreenBlock(block, worker); });
    if (block.end >= kLeastJudgedSample || block.end == chunk_.rows) JudgeCodes({0, block.end});
    complete = complete && !progress_.cancelled();
  }
  return complete;
}

template <typename T>
MatrixView BatchSearch<T>::SampleRows(int64_t first, int64_t step, IndexRange block) {
  const int64_t stride = chunk_.row_stride_bytes;
  MatrixView rows{static_cast<const char*>(chunk_.data) + first * stride, chunk_.dtype,
                  block.size(), dim_, stride * step};
  if (fetched_from_ != nullptr) {
    rows = fetched_.Start(*fetched_from_,
                          {chunk_begin_ + first * fetch_step_, block.size(), fetch_step_ * step});
  }
  block_rows_.emplace(rows, params_.compute_dtype, block.begin);
  return rows;
}

template <typename T>
void BatchSearch<T>::KeepBestOfSample(CandidateList<T>& list, Worker& worker) const {
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
