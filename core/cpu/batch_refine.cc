// The part of BatchSearch for screens that are less exact than candidates want: what survives them
// is screened again, and where that is too much, codes of more digits or float32 take their place.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "core/cpu/batch_search.h"
#include "core/search/isa.h"
#include "core/search/screen_cost.h"

namespace tiny_knn {
namespace {

// While the first chunk's thresholds rise, so many times what Gaussian docs would leave is too
// much.
constexpr double kUnexpected = 2;

// Puts the last `added` candidates of the list, in their order, between the others: those that
// waited come after later ones.
template <typename T>
void MergeAdded(int64_t added, CandidateList<T>& list) {
  const int64_t before = list.size;
  list.size += added;
  if (added == 0 || before == 0 || list.doc[before - 1] < list.doc[before]) return;
  float lower[kMostRefined];
  int32_t doc[kMostRefined];
  std::copy_n(list.lower + before, added, lower);
  std::copy_n(list.doc + before, added, doc);
  int64_t old = before;
  for (int64_t i = added; i > 0;) {
    const bool take_old = old > 0 && list.doc[old - 1] > doc[i - 1];
    if (take_old) {
      --old;
    } else {
      --i;
    }
    list.lower[old + i] = take_old ? list.lower[old] : lower[i];
    list.doc[old + i] = take_old ? list.doc[old] : doc[i];
  }
}

}  // namespace

template <typename T>
void BatchSearch<T>::JudgeCodes(IndexRange block) {
  // Docs that are kept warm are kept as codes.
  if (screen_->refiner() == nullptr || warm_ != nullptr || !wrongly_guessed_.empty()) return;
  const int64_t survivors = SurvivorsSoFar();
  const int64_t new_survivors = survivors - judged_survivors_;
  judged_survivors_ = survivors;
  if (CodesPay(block, new_survivors, survivors)) return;
  if (Waits()) {
    pool_.Run([&](int w) {
      const IndexRange queries = PartOf(num_queries_, w, pool_.threads());
      for (int64_t query = queries.begin; query < queries.end && !progress_.cancelled(); ++query) {
        RefineAllWaiting(query, workers_[static_cast<size_t>(w)]);
      }
    });
  }
  const int64_t block_docs = BlockDocsWithoutCodes();
  if (!HasInt8Tiles() || !screen_->AddDigit(block_docs)) {
    SearchPlan plan = plan_;
    plan.screen = ScreenKind::kFloat32Gemm;
    plan.doc_block = block_docs;
    screen_.reset();  // its memory first
    screen_ = MakeScreen<T>(params_, plan, dim_);
    screen_->SetQueries(queries_);
  }
  for (int64_t split = 0; split < plan_.doc_splits; ++split) {
    for (int64_t query = 0; query < num_queries_; ++query) {
      QueryBounds& bounds = query_bounds_[static_cast<size_t>(ListOf(query, split))];
      const float threshold = bounds.threshold;
      bounds = screen_->InitialBounds(query);
      bounds.threshold = threshold;
    }
  }
}

template <typename T>
int64_t BatchSearch<T>::SurvivorsSoFar() const {
  int64_t survivors = 0;
  for (const Worker& worker : workers_) survivors += worker.survived;
  return survivors;
}

template <typename T>
bool BatchSearch<T>::CodesPay(IndexRange block, int64_t new_survivors, int64_t survivors) const {
  const double queries = static_cast<double>(num_queries_);
  const double pairs = queries * static_cast<double>(block.size());
  if (static_cast<double>(new_survivors) <= BreakEvenRefinedShare(dim_, HasInt8Tiles()) * pairs)
    return true;
  if (chunk_begin_ > 0) return false;
  const double expected =
      ExpectedSurvivors({.num_queries = num_queries_,
                         .num_docs = block.end,
                         .dim = dim_,
                         .k = params_.k,
                         .sample_docs = plan_.sample_docs,
                         .sample_rank = plan_.sample_rank,
                         .waiting_capacity = Waits() ? plan_.waiting_capacity : 0});
  return static_cast<double>(survivors) <= kUnexpected * queries * expected;
}

template <typename T>
void BatchSearch<T>::FindSurvivors(int64_t query, int64_t split, const ScoreRow& scores,
                                   int64_t first_doc, Survivors& survivors) const {
  survivors.count =
      scores.groups == 0
          ? 0
          : FilterScores(scores, 0, query_bounds_[static_cast<size_t>(ListOf(query, split))],
                         bounds_->At(first_doc), static_cast<int32_t>(first_doc),
                         survivors.lower.get(), survivors.doc.get(), scores.count)
                .kept;
  if (survivors.count == 0) return;
  screen_->refiner()->PrefetchQuery(query);
  if (each_from_ != nullptr) return;
  for (int64_t i = 0; i < std::min(survivors.count, kMostDots); ++i) {
    rows_to_refine().Prefetch(survivors.doc[static_cast<size_t>(i)]);
  }
}

template <typename T>
bool BatchSearch<T>::FindStoredRows(std::span<const int32_t> docs, const ChunkRows<T>& rows,
                                    Worker& worker, const void** stored) const {
  if (each_from_ == nullptr || sampling_) {
    for (size_t i = 0; i < docs.size(); ++i) stored[i] = rows.StoredRow(docs[i]);
    return true;
  }
  const int64_t row_bytes = dim_ * ItemSize(chunk_.dtype);
  int64_t wanted[kMostRefined];
  for (size_t i = 0; i < docs.size(); ++i) {
    wanted[i] = chunk_begin_ + docs[i];
    stored[i] = worker.fetched_rows.data() + static_cast<int64_t>(i) * row_bytes;
  }
  const absl::Status fetched =
      each_from_->FetchEach({wanted, docs.size()}, worker.fetched_rows.data());
  if (!fetched.ok()) worker.status = fetched;
  return fetched.ok();
}

template <typename T>
std::optional<int64_t> BatchSearch<T>::RefineDocs(int64_t query, float threshold,
                                                  std::span<const int32_t> docs, float* lower,
                                                  int32_t* doc, Worker& worker) const {
  const void* stored[kMostRefined];
  float refined[kMostRefined];
  if (!FindStoredRows(docs, rows_to_refine(), worker, stored)) return std::nullopt;
  screen_->refiner()->RefineScores(query, docs, stored, rows_to_refine(), *bounds_,
                                   worker.refiner_scratch, refined);
  worker.refined += static_cast<int64_t>(docs.size());
  return FilterScoresOf(docs.data(), refined, static_cast<int64_t>(docs.size()),
                        {threshold, screen_->CandidateErrorFactor(query), 0},
                        bounds_->CandidatesAt(0), lower, doc);
}

template <typename T>
bool BatchSearch<T>::RefineGroup(int64_t query, int64_t split, std::span<const int32_t> docs,
                                 Worker& worker) {
  const int64_t list_index = ListOf(query, split);
  CandidateList<T>& list = candidates_.list(list_index);
  const float threshold = query_bounds_[static_cast<size_t>(list_index)].threshold;
  const std::optional<int64_t> added =
      RefineDocs(query, threshold, docs, list.lower + list.size, list.doc + list.size, worker);
  if (added.has_value()) MergeAdded(*added, list);
  return added.has_value();
}

template <typename T>
void BatchSearch<T>::RefineSurvivors(int64_t query, int64_t split, Survivors& survivors,
                                     Worker& worker) {
  const CandidateList<T>& list = candidates_.list(ListOf(query, split));
  for (int64_t first = 0; first < survivors.count; first += kMostRefined) {
    const int64_t group = std::min(kMostRefined, survivors.count - first);
    const std::span<const int32_t> docs(survivors.doc.get() + first, static_cast<size_t>(group));
    if (!RefineGroup(query, split, docs, worker)) return;
    worker.survived += group;
    if (list.size < Capacity()) continue;
    if (progress_.cancelled()) return;
    Thin(query, split, worker);
    DropSurvivors(query, split, first + group, survivors);
  }
}

template <typename T>
bool BatchSearch<T>::IsBelowThreshold(int64_t query, int64_t split, float lower,
                                      int32_t doc) const {
  const QueryBounds& bounds = query_bounds_[static_cast<size_t>(ListOf(query, split))];
  return UpperBound(lower, doc, bounds_->ErrorOf(doc, bounds)) <
         static_cast<double>(bounds.threshold);
}

template <typename T>
void BatchSearch<T>::DropSurvivors(int64_t query, int64_t split, int64_t from,
                                   Survivors& survivors) const {
  int64_t kept = from;
  for (int64_t i = from; i < survivors.count; ++i) {
    const int32_t doc = survivors.doc[static_cast<size_t>(i)];
    const float lower = survivors.lower[static_cast<size_t>(i)];
    survivors.doc[static_cast<size_t>(kept)] = doc;
    survivors.lower[static_cast<size_t>(kept)] = lower;
    kept += IsBelowThreshold(query, split, lower, doc) ? 0 : 1;
  }
  survivors.count = kept;
}

template class BatchSearch<float>;
template class BatchSearch<double>;

}  // namespace tiny_knn
