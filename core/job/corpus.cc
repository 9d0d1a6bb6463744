#include "core/job/corpus.h"

#include <new>
#include <utility>

#include "absl/status/status.h"
#include "core/job/copy_sink.h"

namespace tiny_knn {

absl::StatusOr<std::unique_ptr<Corpus>> Corpus::Make(std::unique_ptr<RowSource>&& docs,
                                                     const CorpusParams& params) {
  // What holds for the docs as queries of themselves, for the least k, holds for them.
  const absl::Status valid = ValidateSearch(
      *docs, *docs, {.k = 1, .metric = params.metric, .compute_dtype = params.compute_dtype});
  if (!valid.ok()) return valid;
  return std::unique_ptr<Corpus>(new Corpus(std::move(docs), params));
}

absl::StatusOr<SearchReport> Corpus::Search(RowSource& queries, int64_t k, bool exclude_self,
                                            const SearchLimits& limits, Engine& engine,
                                            Progress* progress, const TopKView& out) {
  const SearchParams params{k, params_.metric, params_.compute_dtype, exclude_self};
  absl::Status status = ValidateSearch(queries, *docs_, params);
  if (status.ok()) status = CheckOutput(queries, params, out);
  if (!status.ok()) return status;
  const absl::StatusOr<Chosen> chosen =
      Choose(ShapeOf(queries, *docs_, params), WithDefaults(limits, out, kept_bytes()), engine);
  if (!chosen.ok()) return chosen.status();
  CopySink sink(out);
  absl::StatusOr<SearchReport> report =
      engine.Search(queries, *docs_, params, chosen->plan, progress, sink, chosen->warm);
  if (absl::IsResourceExhausted(report.status())) Forget();
  std::erase_if(kept_, [](const auto& kept) { return !kept.second->filled(); });
  return report;
}

absl::StatusOr<Corpus::Chosen> Corpus::Choose(const ProblemShape& shape, const SearchLimits& limits,
                                              const Engine& engine) {
  const int64_t budget = limits.memory_limit_bytes;
  absl::StatusOr<SearchPlan> plan = PlanRows(shape, limits, DocsUse::kKept);
  if (!plan.ok()) return plan.status();
  const auto found = kept_.find(plan->screen);
  WarmDocs* warm = found == kept_.end() ? nullptr : found->second.get();
  std::unique_ptr<WarmDocs> made;
  if (warm == nullptr) {
    try {
      made = engine.MakeWarmDocs(shape, *plan);
    } catch (const std::bad_alloc&) {
      // Then nothing is kept.
    }
    warm = made.get();
  }
  const ScreenKind screen = plan->screen;
  if (warm != nullptr && MakeRoomForKeptDocs(shape, limits, warm->bytes(), budget, *plan) &&
      plan->screen == screen) {
    const int64_t others = kept_bytes() - (warm->filled() ? warm->bytes() : 0);
    if (others > budget - plan->memory.total() - warm->bytes()) DropOthers(warm);
    if (made != nullptr) kept_[screen] = std::move(made);
    return Chosen{*plan, warm};
  }
  // What pays for docs that are kept need not pay for one search.
  plan = PlanRows(shape, limits);
  if (!plan.ok()) return plan.status();
  if (kept_bytes() > budget - plan->memory.total()) Forget();
  return Chosen{*plan, nullptr};
}

void Corpus::DropOthers(const WarmDocs* wanted) {
  std::erase_if(kept_, [&](const auto& kept) { return kept.second.get() != wanted; });
}

int64_t Corpus::kept_bytes() const {
  int64_t bytes = 0;
  for (const auto& [screen, kept] : kept_) bytes += kept->filled() ? kept->bytes() : 0;
  return bytes;
}

}  // namespace tiny_knn
