// The part of BatchSearch that tells another process how far it is, and goes on where another one
// was: between chunks the best docs of each query are all there is to know.
#include <cstdint>
#include <utility>
#include <vector>

#include "core/cpu/batch_search.h"

namespace tiny_knn {

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
