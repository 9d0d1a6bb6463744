// The part of BatchSearch that goes from chunk to chunk, tells another process between two of them
// how far it is, and goes on where another one was: there the best docs of each query are all there
// is to know.
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/cpu/batch_search.h"

namespace tiny_knn {

template <typename T>
absl::Status BatchSearch<T>::SearchDocs(RowSource& docs, const SearchReport& before,
                                        BatchSaver* saver, SearchReport& report) {
  int64_t begin = 0;
  if (saver != nullptr && saver->docs_done() > 0) {
    RestoreBest(*saver);
    begin = saver->docs_done();
  }
  // Prepared docs are resident, whatever the plan has room for.
  const int64_t chunk = prepared_ ? docs.rows() : plan_.doc_chunk;
  while (begin < docs.rows()) {
    const int64_t end = std::min(begin + chunk, docs.rows());
    const absl::Status status = SearchChunk(docs, begin, end);
    chunk_rows_.reset();
    docs.Release();
    if (!status.ok()) return status;
    begin = end;
    if (saver == nullptr || begin == docs.rows() || !saver->Due()) continue;
    const absl::Status saved = SaveBest(begin, before, *saver);
    if (!saved.ok()) return saved;
  }
  if (warm_ != nullptr && !prepared_) {
    PrepareCounts seen;
    for (const Worker& worker : workers_) {
      seen.nonfinite_rows += worker.counts.nonfinite_rows;
      seen.convert.infs_made += worker.counts.convert.infs_made;
    }
    warm_->FinishFilling(seen);
  }
  AddCounts(report);
  return absl::OkStatus();
}

template <typename T>
void BatchSearch<T>::AddCounts(SearchReport& report) const {
  report.repeated_queries += repeated_queries_;
  PrepareCounts seen = prepared_ ? warm_->counts() : PrepareCounts();
  for (const Worker& worker : workers_) {
    report.rescored_pairs += worker.rescored;
    report.refined_pairs += worker.refined;
    seen.nonfinite_rows += worker.counts.nonfinite_rows;
    seen.convert.infs_made += worker.counts.convert.infs_made;
  }
  if (first_query_ > 0) return;  // every pass sees the same docs
  report.nonfinite_doc_rows += seen.nonfinite_rows;
  report.infs_made_in_docs += seen.convert.infs_made;
}

template <typename T>
void BatchSearch<T>::RestoreBest(const BatchSaver& saver) {
  for (int64_t query = 0; query < num_queries_; ++query) {
    std::vector<Ranked<T>> docs;
    for (const SavedDoc& doc : saver.BestOf(query)) {
      docs.push_back({static_cast<ScoreKey<T>>(doc.key), doc.index});
    }
    ExactTop<T>& exact = exact_[static_cast<size_t>(query)];
    exact.Restore(std::move(docs));
    if (!exact.full()) continue;
    const float threshold = screen_->ThresholdFor(query, exact.kth_score());
    for (int64_t split = 0; split < plan_.doc_splits; ++split) {
      RaiseThreshold(query, split, threshold);
    }
  }
}

template <typename T>
absl::Status BatchSearch<T>::SaveBest(int64_t docs_done, const SearchReport& before,
                                      BatchSaver& saver) const {
  SearchSpan span;
  span.num_queries = num_queries_;
  span.docs_done = docs_done;
  for (const ExactTop<T>& exact : exact_) {
    span.counts.push_back(static_cast<int64_t>(exact.docs().size()));
    for (const Ranked<T>& doc : exact.docs()) span.docs.push_back({doc.key, doc.index});
  }
  SearchReport so_far = before;
  AddCounts(so_far);
  return saver.Save(0, std::move(span), so_far);
}

template class BatchSearch<float>;
template class BatchSearch<double>;

}  // namespace tiny_knn
