// The part of BatchSearch for screens that are less exact than candidates want: what survives them
// is screened again, and where that is too much, float32 takes their place.
#include <algorithm>
#include <cstdint>

#include "core/cpu/batch_search.h"
#include "core/search/screen_cost.h"

namespace tiny_knn {
namespace {

// In a sample, whose thresholds have yet to rise, a large share says less than in other docs.
constexpr double kJudgedShareOfSample = 0.5;

}  // namespace

template <typename T>
void BatchSearch<T>::JudgeCodes(IndexRange block) {
  // Docs that are kept warm are kept as codes.
  if (screen_->refiner() == nullptr || warm_ != nullptr || !wrongly_guessed_.empty()) return;
  int64_t refined = 0;
  for (const Worker& worker : workers_) refined += worker.refined;
  const double pairs = static_cast<double>(num_queries_ * block.size());
  const double most = sampling_ ? kJudgedShareOfSample : BreakEvenRefinedShare(dim_);
  const bool pays = static_cast<double>(refined - judged_pairs_) <= most * pairs;
  judged_pairs_ = refined;
  if (pays || !CanJudgeCodes(block)) return;
  SearchPlan plan = plan_;
  plan.screen = ScreenKind::kFloat32Gemm;
  plan.doc_block = BlockDocsWithoutCodes();
  screen_.reset();  // its memory first
  screen_ = MakeScreen<T>(params_, plan, dim_);
  screen_->SetQueries(queries_);
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
void BatchSearch<T>::FindSurvivors(int64_t query, int64_t split, const float* scores,
                                   IndexRange docs, Survivors& survivors) const {
  survivors.count =
      FilterScores(scores, docs.size(), query_bounds_[static_cast<size_t>(ListOf(query, split))],
                   bounds_->At(docs.begin), static_cast<int32_t>(docs.begin),
                   survivors.lower.data(), survivors.doc.data(), docs.size())
          .kept;
  if (survivors.count == 0) return;
  screen_->refiner()->PrefetchQuery(query);
  for (int64_t i = 0; i < std::min(survivors.count, kMostDots); ++i) {
    rows_to_refine().Prefetch(survivors.doc[static_cast<size_t>(i)]);
  }
}

template <typename T>
void BatchSearch<T>::RefineSurvivors(int64_t query, int64_t split, Survivors& survivors,
                                     Worker& worker) {
  const int64_t list_index = ListOf(query, split);
  CandidateList<T>& list = candidates_.list(list_index);
  const QueryBounds& bounds = query_bounds_[static_cast<size_t>(list_index)];
  const float factor = screen_->CandidateErrorFactor(query);
  int32_t* const docs = survivors.doc.data();
  float refined[kMostRefined];
  for (int64_t first = 0; first < survivors.count; first += kMostRefined) {
    const int64_t group = std::min(kMostRefined, survivors.count - first);
    screen_->refiner()->RefineScores(query, {docs + first, static_cast<size_t>(group)},
                                     rows_to_refine(), *bounds_, worker.refiner_scratch, refined);
    worker.refined += group;
    const QueryBounds candidate_bounds{bounds.threshold, factor, 0};
    list.size +=
        FilterScoresOf(docs + first, refined, group, candidate_bounds, bounds_->CandidatesAt(0),
                       list.lower + list.size, list.doc + list.size);
    if (list.size < Capacity()) continue;
    if (progress_.cancelled()) return;
    Thin(query, split, worker);
    DropSurvivors(query, split, first + group, survivors);
  }
}

template <typename T>
void BatchSearch<T>::DropSurvivors(int64_t query, int64_t split, int64_t from,
                                   Survivors& survivors) const {
  const QueryBounds& bounds = query_bounds_[static_cast<size_t>(ListOf(query, split))];
  int64_t kept = from;
  for (int64_t i = from; i < survivors.count; ++i) {
    const int32_t doc = survivors.doc[static_cast<size_t>(i)];
    const float lower = survivors.lower[static_cast<size_t>(i)];
    survivors.doc[static_cast<size_t>(kept)] = doc;
    survivors.lower[static_cast<size_t>(kept)] = lower;
    kept += UpperBound(lower, doc, bounds_->ErrorOf(doc, bounds)) <
                    static_cast<double>(bounds.threshold)
                ? 0
                : 1;
  }
  survivors.count = kept;
}

template class BatchSearch<float>;
template class BatchSearch<double>;

}  // namespace tiny_knn
