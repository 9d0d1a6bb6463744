// The part of BatchSearch for few queries, which are bound by how fast docs come from memory: each
// doc is prepared and scored while it is at hand, so that it is read once.
#include <algorithm>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/cpu/batch_search.h"

namespace tiny_knn {

template <typename T>
void BatchSearch<T>::ScreenInOnePass(IndexRange block, int w) {
  Worker& worker = workers_[static_cast<size_t>(w)];
  worker.status = absl::OkStatus();
  const IndexRange part = PartOf(block.size(), w, pool_.threads());
  for (IndexRange docs{part.begin, 0}; docs.begin < part.end; docs.begin = docs.end) {
    if (progress_.cancelled()) return;
    docs.end = std::min(docs.begin + plan_.doc_tile, part.end);
    worker.status = PrepareAndScore(docs, part, block, worker);
    if (!worker.status.ok()) return;
    for (int64_t query = 0; query < num_queries_; ++query) {
      const ScoreRow scores{worker.tile.data() + query * plan_.doc_tile, docs.size(),
                            AllGroups(docs.size())};
      TakeCandidates(query, /*split=*/w, scores, block.begin + docs.begin, worker);
      if (!worker.status.ok()) return;
    }
  }
}

template <typename T>
absl::Status BatchSearch<T>::PrepareAndScore(IndexRange docs, IndexRange part, IndexRange block,
                                             Worker& worker) {
  const bool fetches = fetched_from_ != nullptr;
  const int64_t piece_docs = fetches ? std::min(fetched_.piece_rows(), part.size()) : docs.size();
  for (IndexRange piece{docs.begin, 0}; piece.begin < docs.end; piece.begin = piece.end) {
    piece.end = std::min(piece.begin + piece_docs, docs.end);
    const IndexRange of_chunk{block.begin + piece.begin, block.begin + piece.end};
    MatrixView rows;
    if (fetches) {
      // Always to the same place, which stays in the core's cache.
      const absl::StatusOr<MatrixView> fetched = fetched_.FetchTo(part.begin, piece);
      if (!fetched.ok()) return fetched.status();
      rows = *fetched;
    } else {
      rows = chunk_.Slice(of_chunk.begin, of_chunk.end);
    }
    const int64_t first = chunk_begin_ + of_chunk.begin;
    const absl::Status scored = screen_->PrepareAndScore(
        rows, params_.first_doc + first, warm_ == nullptr ? KeptDocs() : warm_->KeptFrom(first),
        of_chunk.begin, *bounds_, worker.counts, worker.tile.data() + piece.begin - docs.begin,
        plan_.doc_tile);
    if (!scored.ok()) return scored;
  }
  return absl::OkStatus();
}

template class BatchSearch<float>;
template class BatchSearch<double>;

}  // namespace tiny_knn
