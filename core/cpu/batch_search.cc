#include "core/cpu/batch_search.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/matrix/convert.h"
#include "core/matrix/finite.h"
#include "core/search/screen_cost.h"

namespace tiny_knn {
namespace {

// The most docs that were prepared before are screened between two reports of progress: some
// milliseconds of work.
constexpr int64_t kPairsPerPreparedBlock = int64_t{1} << 20;
constexpr int64_t kPreparedBlockBytes = int64_t{256} << 20;
// A list that thinning leaves fuller than this share would be thinned again at once: its candidates
// are rescored instead.
constexpr int64_t kLeastRoomShare = 4;
// Candidates of a sample beyond one and a half times the rank: more, and thresholds rise late.
constexpr int64_t kExtraOfSample = 32;
// The first block of a chunk is so small, and each so many times as large as all before it, so that
// little is lost before codes are judged, wherever docs begin to be hard for them.
constexpr int64_t kTrialDocs = 128;
constexpr int64_t kTrialGrowth = 3;
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
      own_bounds_(warm != nullptr ? 0 : plan.doc_chunk, BoundsKind(), params.metric),
      candidates_(num_queries * plan.doc_splits, plan.candidate_capacity),
      query_bounds_(static_cast<size_t>(num_queries * plan.doc_splits)),
      exact_(static_cast<size_t>(num_queries), ExactTop<T>(params.k)),
      workers_(static_cast<size_t>(pool.threads())),
      bounds_(warm != nullptr ? &warm->bounds() : &own_bounds_),
      rank_(params.k),
      guesses_(static_cast<size_t>(num_queries), -std::numeric_limits<T>::infinity()) {
  // All of a thread's memory now, as the plan counts it, so that none is asked for while searching.
  const size_t candidates = static_cast<size_t>(plan.doc_splits * plan.candidate_capacity);
  const size_t found = candidates + static_cast<size_t>(params.k + 1);
  size_t lowers = candidates;
  if (screen_->refiner() != nullptr && plan.waiting_capacity > 0) {
    lowers += static_cast<size_t>(plan.doc_splits * plan.waiting_capacity);
    for (int64_t i = 0; i < num_queries * plan.doc_splits; ++i) {
      waiting_.emplace_back(plan.waiting_capacity);
    }
  }
  for (Worker& worker : workers_) {
    worker.tile.resize(static_cast<size_t>(plan.query_tile * plan.doc_tile));
    worker.groups.resize(static_cast<size_t>(plan.query_tile));
    if (screen_->refiner() != nullptr) {
      for (int i = 0; i < 2; ++i) worker.survivors.emplace_back(plan.doc_tile);
    }
    worker.lowers.reserve(lowers);
    worker.select_scratch.reserve(lowers);
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
absl::Status BatchSearch<T>::OpenChunk(RowSource& docs, int64_t begin, int64_t end) {
  chunk_begin_ = begin;
  const bool values_kept = warm_ != nullptr && warm_->are_working_rows();
  std::vector<MatrixView> pieces;
  if (prepared_ && values_kept) {
    chunk_ = warm_->view();
  } else {
    absl::StatusOr<std::vector<MatrixView>> rows = docs.StartRows(begin, end);
    if (!rows.ok()) return rows.status();
    // Where there are several pieces, rows are fetched, or scored by chunk_rows_.
    chunk_ = rows->front();
    chunk_.rows = end - begin;
    pieces = *std::move(rows);
    const bool fetches = docs.needs_fetch() && (prepared_ || !docs.IsBetterReadInPlace());
    fetched_from_ = fetches ? &docs : nullptr;
    block_rows_.reset();
    if (FetchesEach(docs)) {
      each_from_ = &docs;
      const int64_t bytes = kMostRefined * dim_ * ItemSize(docs.dtype());
      for (Worker& worker : workers_) worker.fetched_rows.resize(static_cast<size_t>(bytes));
    }
  }
  // Candidates have been prepared when they are scored, so what is kept of them is there.
  chunk_rows_ = values_kept
                    ? std::make_unique<ChunkRows<T>>(warm_->view(), DType::kFloat32)
                    : std::make_unique<ChunkRows<T>>(std::move(pieces), params_.compute_dtype);
  const KeptDocs kept = warm_ == nullptr ? KeptDocs() : warm_->KeptFrom(begin);
  if (!prepared_) return StartScreenChunk(docs, kept);
  screen_->StartPreparedChunk(kept);
  return absl::OkStatus();
}

template <typename T>
absl::Status BatchSearch<T>::StartScreenChunk(RowSource& docs, const KeptDocs& kept) {
  MatrixView sample;
  if (screen_->wants_sample()) {
    // No more than a block, which there is memory for.
    const int64_t most = std::min(kChunkSampleDocs, plan_.doc_block);
    const int64_t step = (chunk_.rows + most - 1) / most;
    const int64_t count = (chunk_.rows + step - 1) / step;
    sample = {chunk_.data, chunk_.dtype, count, dim_, chunk_.row_stride_bytes * step};
    if (fetched_from_ != nullptr) {
      sample = fetched_.Start(docs, {chunk_begin_, count, step});
      const absl::Status fetched = fetched_.Fetch({0, count});
      if (!fetched.ok()) return fetched;
    }
  }
  screen_->StartChunk(sample, kept);
  return absl::OkStatus();
}

template <typename T>
int64_t BatchSearch<T>::BlockDocs(int64_t first) const {
  if (screen_->refiner() == nullptr && BoundsKind() == ScreenKind::kInt8Codes) {
    return BlockDocsWithoutCodes();
  }
  if (screen_->refiner() != nullptr && !prepared_ && !sampling_) {
    return std::min(std::max(kTrialDocs, kTrialGrowth * first / kTileDocs * kTileDocs),
                    plan_.doc_block);
  }
  // Where nothing has to stay in cache for a second pass, threads meet as seldom.
  const bool one_pass = ScoresInOnePass() && fetched_from_ == nullptr;
  // Threads that screen different queries stay close together, so that docs are fetched once. Each
  // with docs of its own, they need to meet for the sake of progress only.
  if (!one_pass && (!prepared_ || sampling_ || query_parts_ > 1)) return plan_.doc_block;
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
  const MatrixView rows = RowsOf(block);
  if (ScoresInOnePass()) return absl::OkStatus();
  screen_->SetBlock(rows, kept);
  pool_.Run([&](int worker) { PrepareBlock(block, worker); });
  return StatusOfWorkers();
}

template <typename T>
absl::Status BatchSearch<T>::StatusOfWorkers() const {
  for (const Worker& worker : workers_) {
    if (!worker.status.ok()) return worker.status;
  }
  return absl::OkStatus();
}

template <typename T>
MatrixView BatchSearch<T>::RowsOf(IndexRange block) {
  if (fetched_from_ == nullptr) return chunk_.Slice(block.begin, block.end);
  const MatrixView rows = fetched_.Start(
      *fetched_from_, {chunk_begin_ + block.begin * fetch_step_, block.size(), fetch_step_});
  block_rows_.emplace(rows, params_.compute_dtype, block.begin);
  return rows;
}

template <typename T>
absl::Status BatchSearch<T>::SearchChunk(RowSource& docs, int64_t begin, int64_t end) {
  absl::Status status = OpenChunk(docs, begin, end);
  if (!status.ok()) return status;
  if (begin == 0 && plan_.sample_docs > 0) GuessThresholds();
  status = ScreenChunk(docs, begin);
  if (!status.ok()) return status;
  if (begin == 0) {
    FindWrongGuesses();
    repeated_queries_ += static_cast<int64_t>(wrongly_guessed_.size());
    if (!wrongly_guessed_.empty()) {
      const std::vector<PrepareCounts> counts = CountsOfWorkers();
      status = ScreenChunk(docs, begin);
      wrongly_guessed_.clear();
      for (size_t w = 0; w < workers_.size(); ++w) workers_[w].counts = counts[w];
      if (!status.ok()) return status;
    }
  }
  progress_.Report(num_queries_ * end, num_queries_ * docs.rows());
  return absl::OkStatus();
}

template <typename T>
absl::Status BatchSearch<T>::ScreenChunk(RowSource& docs, int64_t begin) {
  judged_survivors_ = SurvivorsSoFar();
  for (IndexRange block{0, 0}; block.begin < chunk_.rows; block.begin = block.end) {
    block.end = std::min(block.begin + BlockDocs(block.begin), chunk_.rows);
    const absl::Status started = StartBlock(block);
    if (!started.ok()) return started;
    const bool one_pass = ScoresInOnePass();
    pool_.Run([&](int worker) {
      if (one_pass) return ScreenInOnePass(block, worker);
      ScreenBlock(block, worker);
    });
    if (progress_.cancelled()) return absl::CancelledError("the search was interrupted");
    const absl::Status read = StatusOfWorkers();
    if (!read.ok()) return read;
    JudgeCodes(block);
    const absl::Status unchanged = docs.CheckUnchanged();
    if (!unchanged.ok()) return unchanged;
    // A chunk is done when its survivors are rescored.
    if (block.end == chunk_.rows) break;
    progress_.Report(num_queries_ * (begin + block.end), num_queries_ * docs.rows());
  }
  pool_.Run([&](int worker) { RescoreChunk(worker); });
  if (progress_.cancelled()) return absl::CancelledError("the search was interrupted");
  return StatusOfWorkers();
}

template <typename T>
void BatchSearch<T>::PrepareBlock(IndexRange block, int w) {
  Worker& worker = workers_[static_cast<size_t>(w)];
  const IndexRange part = PartOf(block.size(), w, pool_.threads());
  const bool fetches = fetched_from_ != nullptr;
  const int64_t piece_docs = fetches ? fetched_.piece_rows() : part.size();
  worker.status = absl::OkStatus();
  for (IndexRange piece{part.begin, 0}; piece.begin < part.end && worker.status.ok();
       piece.begin = piece.end) {
    piece.end = std::min(piece.begin + piece_docs, part.end);
    if (fetches) worker.status = fetched_.Fetch(piece);
    if (!worker.status.ok()) return;
    worker.status = screen_->PrepareDocs(piece, params_.first_doc + chunk_begin_ + block.begin,
                                         block.begin, *bounds_, worker.counts);
  }
}

template <typename T>
void BatchSearch<T>::ScreenBlock(IndexRange block, int w) {
  const int64_t split = w / query_parts_;
  if (split >= plan_.doc_splits) return;
  Worker& worker = workers_[static_cast<size_t>(w)];
  const bool once_more = !wrongly_guessed_.empty();
  const int64_t num_queries =
      once_more ? static_cast<int64_t>(wrongly_guessed_.size()) : num_queries_;
  const IndexRange queries = PartOf(num_queries, w % query_parts_, query_parts_);
  const int64_t query_tile = once_more ? 1 : plan_.query_tile;
  const IndexRange tiles =
      PartOf((block.size() + kTileDocs - 1) / kTileDocs, split, plan_.doc_splits);
  const IndexRange docs{tiles.begin * kTileDocs, std::min(tiles.end * kTileDocs, block.size())};
  for (int64_t d = docs.begin; d < docs.end; d += plan_.doc_tile) {
    for (int64_t q = queries.begin; q < queries.end; q += query_tile) {
      if (progress_.cancelled() || !worker.status.ok()) return;
      const int64_t query = once_more ? wrongly_guessed_[static_cast<size_t>(q)] : q;
      ScreenTile({query, query + std::min(query_tile, queries.end - q)},
                 {d, std::min(d + plan_.doc_tile, docs.end)}, block.begin, split, worker);
    }
  }
}

template <typename T>
void BatchSearch<T>::ScreenTile(IndexRange queries, IndexRange docs, int64_t block_begin,
                                int64_t split, Worker& worker) {
  const IndexRange chunk_docs{block_begin + docs.begin, block_begin + docs.end};
  const TileBounds tile_bounds{query_bounds_.data() + ListOf(queries.begin, split),
                               bounds_->At(chunk_docs.begin)};
  screen_->ScoreTile(queries, docs, tile_bounds,
                     {worker.tile.data(), plan_.doc_tile, worker.groups.data()});
  const auto scores_of = [&](int64_t query) {
    const int64_t row = query - queries.begin;
    return ScoreRow{worker.tile.data() + row * plan_.doc_tile, docs.size(),
                    worker.groups[static_cast<size_t>(row)]};
  };
  if (screen_->refiner() == nullptr || sampling_) {
    for (int64_t query = queries.begin; query < queries.end; ++query) {
      TakeCandidates(query, split, scores_of(query), chunk_docs.begin, worker);
    }
    return;
  }
  if (Waits()) {
    for (int64_t query = queries.begin; query < queries.end; ++query) {
      TakeSurvivors(query, split, scores_of(query), chunk_docs.begin, worker);
    }
    return;
  }
  // One query behind, so that rows come from memory meanwhile.
  for (int64_t query = queries.begin; query <= queries.end; ++query) {
    if (query < queries.end) {
      FindSurvivors(query, split, scores_of(query), chunk_docs.begin, worker.survivors[query % 2]);
    }
    if (query > queries.begin) {
      RefineSurvivors(query - 1, split, worker.survivors[(query - 1) % 2], worker);
    }
  }
}

template <typename T>
void BatchSearch<T>::TakeCandidates(int64_t query, int64_t split, const ScoreRow& scores,
                                    int64_t first_doc, Worker& worker) {
  const int64_t list_index = ListOf(query, split);
  CandidateList<T>& list = candidates_.list(list_index);
  const DocBounds docs =
      screen_->candidates_are_coded() ? bounds_->At(first_doc) : bounds_->CandidatesAt(first_doc);
  for (int64_t next = 0;;) {
    const FilterResult result =
        FilterScores(scores, next, query_bounds_[static_cast<size_t>(list_index)], docs,
                     static_cast<int32_t>(first_doc), list.lower + list.size, list.doc + list.size,
                     Capacity() - list.size);
    list.size += result.kept;
    next = result.next;
    if (next == scores.count || progress_.cancelled()) return;
    Thin(query, split, worker);
  }
}

template <typename T>
void BatchSearch<T>::RemoveSelf(int64_t query, CandidateList<T>& list) const {
  RemoveSelf(query, list.lower, list.doc, list.size);
}

template <typename T>
void BatchSearch<T>::RemoveSelf(int64_t query, float* lower, int32_t* doc, int64_t& size) const {
  if (!params_.exclude_self) return;
  const int64_t self = first_query_ + query - params_.first_doc - chunk_begin_;
  int32_t* const end = doc + size;
  int32_t* const found = std::lower_bound(doc, end, self);
  if (found == end || *found != self) return;
  const int64_t at = found - doc;
  std::copy(doc + at + 1, end, doc + at);
  std::copy(lower + at + 1, lower + size, lower + at);
  --size;
}

template <typename T>
void BatchSearch<T>::RaiseThreshold(int64_t query, int64_t split, float threshold) {
  float& current = query_bounds_[static_cast<size_t>(ListOf(query, split))].threshold;
  current = std::max(current, threshold);
}

template <typename T>
void BatchSearch<T>::DropBelowThreshold(int64_t query, int64_t split,
                                        CandidateList<T>& list) const {
  const double threshold =
      static_cast<double>(query_bounds_[static_cast<size_t>(ListOf(query, split))].threshold);
  const double factor = static_cast<double>(screen_->CandidateErrorFactor(query));
  const bool coded = screen_->candidates_are_coded();
  const QueryBounds bounds = screen_->InitialBounds(query);
  int64_t kept = 0;
  for (int64_t i = 0; i < list.size; ++i) {
    const int32_t doc = list.doc[i];
    double error = factor * static_cast<double>(bounds_->norm[static_cast<size_t>(doc)]);
    // Either may be the greater one, of docs that were refined before codes got another digit. A
    // NaN of codes stays one.
    if (coded) error = std::max(bounds_->ErrorOf(doc, bounds), error);
    const double upper = UpperBound(list.lower[i], doc, error);
    list.lower[kept] = list.lower[i];
    list.doc[kept] = list.doc[i];
    kept += upper < threshold ? 0 : 1;
  }
  list.size = kept;
}

template <typename T>
void BatchSearch<T>::Thin(int64_t query, int64_t split, Worker& worker) {
  CandidateList<T>& list = candidates_.list(ListOf(query, split));
  if (sampling_) return RaiseThreshold(query, split, KeepBestOfSample(list, worker));
  RemoveSelf(query, list);
  if (list.size >= rank_) {
    const float lower =
        KthLargest({list.lower, static_cast<size_t>(list.size)}, rank_, worker.select_scratch);
    RaiseThreshold(query, split, screen_->ThresholdFor(query, screen_->CertainScore(query, lower)));
  }
  DropBelowThreshold(query, split, list);
  if (!HasRoom(list)) RescoreNow(query, split, worker);
}

template <typename T>
int64_t BatchSearch<T>::Capacity() const {
  if (sampling_) return std::min(candidates_.capacity(), rank_ + rank_ / 2 + kExtraOfSample);
  if (screen_->refiner() == nullptr) return candidates_.capacity();
  return std::min(candidates_.capacity(), CodedCandidates(params_.k, chunk_.rows));
}

template <typename T>
bool BatchSearch<T>::HasRoom(const CandidateList<T>& list) const {
  return list.size <= Capacity() - std::max<int64_t>(1, Capacity() / kLeastRoomShare);
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

// What stands here; the rest in batch_state.cc, batch_guess.cc, batch_one_pass.cc and
// batch_rescore.cc.
template class BatchSearch<float>;
template class BatchSearch<double>;

}  // namespace tiny_knn
