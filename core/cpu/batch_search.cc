#include "core/cpu/batch_search.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "core/matrix/convert.h"
#include "core/matrix/finite.h"

namespace tiny_knn {
namespace {

// The most docs that were prepared before are screened between two reports of progress: some
// milliseconds of work.
constexpr int64_t kPairsPerPreparedBlock = int64_t{1} << 20;
constexpr int64_t kPreparedBlockBytes = int64_t{256} << 20;
// A list that thinning leaves fuller than this share would be thinned again at once: its candidates
// are rescored instead.
constexpr int64_t kLeastRoomShare = 4;
// Floats of a cache line: both float and double rows of a multiple of it fill whole lines.
constexpr int64_t kRowUnit = kCacheLineBytes / sizeof(float);

}  // namespace

template <typename T>
BatchSearch<T>::BatchSearch(ThreadPool& pool, const SearchParams& params, const SearchPlan& plan,
                            int64_t first_query, int64_t num_queries, int64_t dim,
                            CpuWarmDocs* warm, Progress& progress)
    : pool_(pool),
      params_(params),
      plan_(plan),
      progress_(progress),
      first_query_(first_query),
      num_queries_(num_queries),
      dim_(dim),
      query_stride_((dim + kRowUnit - 1) / kRowUnit * kRowUnit),
      query_parts_(std::max<int64_t>(1, pool.threads() / plan.doc_splits)),
      query_values_(static_cast<size_t>(num_queries * query_stride_)),
      screen_(MakeScreen<T>(params, plan, dim)),
      warm_(warm),
      prepared_(warm != nullptr && warm->prepared()),
      own_bounds_(warm != nullptr ? 0 : plan.doc_chunk,
                  std::is_same_v<T, float> ? plan.screen : ScreenKind::kFloat32Gemm),
      bounds_(warm != nullptr ? warm->bounds() : own_bounds_),
      candidates_(num_queries * plan.doc_splits, plan.candidate_capacity),
      query_bounds_(static_cast<size_t>(num_queries * plan.doc_splits)),
      exact_(static_cast<size_t>(num_queries), ExactTop<T>(params.k)),
      workers_(static_cast<size_t>(pool.threads())) {
  // All of a thread's memory now, as the plan counts it, so that none is asked for while searching.
  const size_t candidates = static_cast<size_t>(plan.doc_splits * plan.candidate_capacity);
  const size_t found = candidates + static_cast<size_t>(params.k + 1);
  for (Worker& worker : workers_) {
    worker.tile.resize(static_cast<size_t>(plan.query_tile * plan.doc_tile));
    worker.lowers.reserve(candidates);
    worker.select_scratch.reserve(candidates);
    worker.found.reserve(found);
    worker.sort_scratch.reserve(found);
  }
}

template <typename T>
absl::Status BatchSearch<T>::LoadQueries(RowSource& queries, SearchReport& report) {
  auto view = queries.Rows(first_query_, first_query_ + num_queries_);
  if (!view.ok()) return view.status();
  if constexpr (std::is_same_v<T, float>) query_wide_.resize(query_values_.size());
  queries_.resize(static_cast<size_t>(num_queries_));
  pool_.Run([&](int w) {
    Worker& worker = workers_[static_cast<size_t>(w)];
    const IndexRange part = PartOf(num_queries_, w, pool_.threads());
    if (part.size() == 0) return;
    worker.status = ConvertRows<T>(
        view->Slice(part.begin, part.end), params_.compute_dtype, first_query_ + part.begin,
        query_values_.data() + part.begin * query_stride_, query_stride_, worker.counts.convert);
    for (int64_t i = part.begin; i < part.end; ++i) {
      const T* values = query_values_.data() + i * query_stride_;
      const double* wide = nullptr;
      if constexpr (std::is_same_v<T, double>) {
        wide = values;
      } else {
        std::copy(values, values + dim_, query_wide_.begin() + i * query_stride_);
        wide = query_wide_.data() + i * query_stride_;
      }
      queries_[static_cast<size_t>(i)] = PrepareQuery<T>(values, wide, dim_);
      if (!IsFiniteRow(values, dim_)) ++worker.counts.nonfinite_rows;
    }
  });
  queries.Release();
  for (Worker& worker : workers_) {
    if (!worker.status.ok()) return worker.status;
    report.nonfinite_query_rows += worker.counts.nonfinite_rows;
    report.infs_made_in_queries += worker.counts.convert.infs_made;
    worker.counts = {};
  }
  screen_->SetQueries(queries_);
  for (int64_t split = 0; split < plan_.doc_splits; ++split) {
    for (int64_t query = 0; query < num_queries_; ++query) {
      query_bounds_[static_cast<size_t>(ListOf(query, split))] = screen_->InitialBounds(query);
    }
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status BatchSearch<T>::SearchDocs(RowSource& docs, SearchReport& report) {
  // Prepared docs are resident, whatever the plan has room for.
  const int64_t chunk = prepared_ ? docs.rows() : plan_.doc_chunk;
  for (int64_t begin = 0; begin < docs.rows(); begin += chunk) {
    const absl::Status status = SearchChunk(docs, begin, std::min(begin + chunk, docs.rows()));
    chunk_rows_.reset();
    docs.Release();
    if (!status.ok()) return status;
  }
  PrepareCounts seen = prepared_ ? warm_->counts() : PrepareCounts();
  for (const Worker& worker : workers_) {
    report.rescored_pairs += worker.rescored;
    seen.nonfinite_rows += worker.counts.nonfinite_rows;
    seen.convert.infs_made += worker.counts.convert.infs_made;
  }
  if (warm_ != nullptr && !prepared_) warm_->FinishFilling(seen);
  if (first_query_ > 0) return absl::OkStatus();  // every pass sees the same docs
  report.nonfinite_doc_rows += seen.nonfinite_rows;
  report.infs_made_in_docs += seen.convert.infs_made;
  return absl::OkStatus();
}

template <typename T>
absl::Status BatchSearch<T>::OpenChunk(RowSource& docs, int64_t begin, int64_t end) {
  chunk_begin_ = begin;
  const bool values_kept = warm_ != nullptr && warm_->are_working_rows();
  if (prepared_ && values_kept) {
    chunk_ = warm_->view();
  } else {
    auto rows = docs.Rows(begin, end);
    if (!rows.ok()) return rows.status();
    chunk_ = *rows;
  }
  // Candidates have been prepared when they are scored, so what is kept of them is there.
  chunk_rows_ = values_kept ? std::make_unique<ChunkRows<T>>(warm_->view(), DType::kFloat32)
                            : std::make_unique<ChunkRows<T>>(chunk_, params_.compute_dtype);
  const KeptDocs kept = warm_ == nullptr ? KeptDocs() : warm_->KeptFrom(begin);
  if (!prepared_) return screen_->StartChunk(chunk_, begin, kept);
  screen_->StartPreparedChunk(kept);
  return absl::OkStatus();
}

template <typename T>
int64_t BatchSearch<T>::BlockDocs() const {
  // Threads that screen different queries stay close together, so that docs are fetched once. Each
  // with docs of its own, they need to meet for the sake of progress only.
  if (!prepared_ || query_parts_ > 1) return plan_.doc_block;
  const int64_t docs = std::min(kPairsPerPreparedBlock / num_queries_,
                                kPreparedBlockBytes / (dim_ * int64_t{sizeof(float)}));
  return std::max(docs / kTileDocs * kTileDocs, plan_.doc_block);
}

template <typename T>
absl::Status BatchSearch<T>::StartBlock(IndexRange block) {
  const KeptDocs kept = warm_ == nullptr ? KeptDocs() : warm_->KeptFrom(chunk_begin_ + block.begin);
  if (prepared_) {
    screen_->SetPreparedBlock(kept);
    return absl::OkStatus();
  }
  screen_->SetBlock(chunk_.Slice(block.begin, block.end), kept);
  pool_.Run([&](int worker) { PrepareBlock(block, worker); });
  for (const Worker& worker : workers_) {
    if (!worker.status.ok()) return worker.status;
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status BatchSearch<T>::SearchChunk(RowSource& docs, int64_t begin, int64_t end) {
  const absl::Status opened = OpenChunk(docs, begin, end);
  if (!opened.ok()) return opened;
  const int64_t block_docs = BlockDocs();
  for (int64_t first = 0; first < chunk_.rows; first += block_docs) {
    const IndexRange block{first, std::min(first + block_docs, chunk_.rows)};
    const absl::Status started = StartBlock(block);
    if (!started.ok()) return started;
    pool_.Run([&](int worker) { ScreenBlock(block, worker); });
    if (progress_.cancelled()) return absl::CancelledError("the search was interrupted");
    const absl::Status unchanged = docs.CheckUnchanged();
    if (!unchanged.ok()) return unchanged;
    // A chunk is done when its survivors are rescored.
    if (block.end == chunk_.rows) break;
    progress_.Report(num_queries_ * (begin + block.end), num_queries_ * docs.rows());
  }
  pool_.Run([&](int worker) { RescoreChunk(worker); });
  if (progress_.cancelled()) return absl::CancelledError("the search was interrupted");
  progress_.Report(num_queries_ * end, num_queries_ * docs.rows());
  return absl::OkStatus();
}

template <typename T>
void BatchSearch<T>::PrepareBlock(IndexRange block, int w) {
  Worker& worker = workers_[static_cast<size_t>(w)];
  const IndexRange part = PartOf(block.size(), w, pool_.threads());
  worker.status =
      screen_->PrepareDocs(part, chunk_begin_ + block.begin, block.begin, bounds_, worker.counts);
}

template <typename T>
void BatchSearch<T>::ScreenBlock(IndexRange block, int w) {
  const int64_t split = w / query_parts_;
  if (split >= plan_.doc_splits) return;
  Worker& worker = workers_[static_cast<size_t>(w)];
  const IndexRange queries = PartOf(num_queries_, w % query_parts_, query_parts_);
  const IndexRange tiles =
      PartOf((block.size() + kTileDocs - 1) / kTileDocs, split, plan_.doc_splits);
  const IndexRange docs{tiles.begin * kTileDocs, std::min(tiles.end * kTileDocs, block.size())};
  for (int64_t d = docs.begin; d < docs.end; d += plan_.doc_tile) {
    for (int64_t q = queries.begin; q < queries.end; q += plan_.query_tile) {
      if (progress_.cancelled()) return;
      ScreenTile({q, std::min(q + plan_.query_tile, queries.end)},
                 {d, std::min(d + plan_.doc_tile, docs.end)}, block.begin, split, worker);
    }
  }
}

template <typename T>
void BatchSearch<T>::ScreenTile(IndexRange queries, IndexRange docs, int64_t block_begin,
                                int64_t split, Worker& worker) {
  screen_->ScoreTile(queries, docs, worker.tile.data(), plan_.doc_tile);
  for (int64_t query = queries.begin; query < queries.end; ++query) {
    const float* scores = worker.tile.data() + (query - queries.begin) * plan_.doc_tile;
    const int64_t list_index = ListOf(query, split);
    CandidateList<T>& list = candidates_.list(list_index);
    const int64_t first = block_begin + docs.begin;
    int64_t done = 0;
    while (true) {
      const FilterResult result = FilterScores(
          scores + done, docs.size() - done, query_bounds_[static_cast<size_t>(list_index)],
          bounds_.At(first + done), static_cast<int32_t>(first + done), list.lower + list.size,
          list.doc + list.size, candidates_.capacity() - list.size);
      list.size += result.kept;
      done += result.consumed;
      if (done == docs.size()) break;
      if (progress_.cancelled()) return;
      Thin(query, split, worker);
    }
  }
}

template <typename T>
void BatchSearch<T>::RemoveSelf(int64_t query, CandidateList<T>& list) const {
  if (!params_.exclude_self) return;
  const int64_t self = first_query_ + query - chunk_begin_;
  const auto end = list.doc + list.size;
  const auto found = std::lower_bound(list.doc, end, self);
  if (found == end || *found != self) return;
  const int64_t at = found - list.doc;
  std::copy(list.doc + at + 1, end, list.doc + at);
  std::copy(list.lower + at + 1, list.lower + list.size, list.lower + at);
  --list.size;
}

template <typename T>
void BatchSearch<T>::RaiseThreshold(int64_t query, int64_t split, float threshold) {
  float& current = query_bounds_[static_cast<size_t>(ListOf(query, split))].threshold;
  current = std::max(current, threshold);
}

template <typename T>
void BatchSearch<T>::DropBelowThreshold(int64_t query, int64_t split,
                                        CandidateList<T>& list) const {
  const QueryBounds& bounds = query_bounds_[static_cast<size_t>(ListOf(query, split))];
  const double threshold = static_cast<double>(bounds.threshold);
  int64_t kept = 0;
  for (int64_t i = 0; i < list.size; ++i) {
    const size_t doc = static_cast<size_t>(list.doc[i]);
    // The lower bound plus the width of the interval. Infinite offsets make a NaN, which is kept.
    const double upper = static_cast<double>(list.lower[i]) +
                         (static_cast<double>(bounds_.upper_offset[doc]) -
                          static_cast<double>(bounds_.lower_offset[doc])) +
                         2 * bounds_.ErrorOf(list.doc[i], bounds);
    list.lower[kept] = list.lower[i];
    list.doc[kept] = list.doc[i];
    kept += upper < threshold ? 0 : 1;
  }
  list.size = kept;
}

template <typename T>
void BatchSearch<T>::Thin(int64_t query, int64_t split, Worker& worker) {
  CandidateList<T>& list = candidates_.list(ListOf(query, split));
  RemoveSelf(query, list);
  if (list.size >= params_.k) {
    const float lower =
        KthLargest({list.lower, static_cast<size_t>(list.size)}, params_.k, worker.select_scratch);
    RaiseThreshold(query, split, screen_->ThresholdFor(query, screen_->CertainScore(query, lower)));
  }
  DropBelowThreshold(query, split, list);
  if (!HasRoom(list)) RescoreNow(query, split, worker);
}

template <typename T>
bool BatchSearch<T>::HasRoom(const CandidateList<T>& list) const {
  const int64_t least_room = std::max<int64_t>(1, candidates_.capacity() / kLeastRoomShare);
  return list.size <= candidates_.capacity() - least_room;
}

template <typename T>
void BatchSearch<T>::Finish(const TopKView& out, SearchReport& report) {
  pool_.Run([&](int w) {
    Worker& worker = workers_[static_cast<size_t>(w)];
    const IndexRange queries = PartOf(num_queries_, w, pool_.threads());
    for (int64_t query = queries.begin; query < queries.end; ++query) {
      const bool tied = exact_[static_cast<size_t>(query)].Write(
          static_cast<T*>(out.scores) + query * params_.k, out.indices + query * params_.k);
      worker.tied += tied ? 1 : 0;
    }
  });
  for (const Worker& worker : workers_) report.queries_with_tie_at_k += worker.tied;
}

// What stands here; the rest in batch_rescore.cc.
template class BatchSearch<float>;
template class BatchSearch<double>;

}  // namespace tiny_knn
