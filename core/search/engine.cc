#include "core/search/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/row_source.h"
#include "core/matrix/convert.h"
#include "core/search/float_environment.h"
#include "core/search/planner.h"
#include "core/search/search.h"
#include "core/search/search_state.h"

namespace tiny_knn {
namespace {

class SilentProgress : public Progress {
 public:
  void Report(int64_t, int64_t) override {}
  bool cancelled() const override { return false; }
};

// A batch's progress as part of the whole search's. Once cancelled, it stays so: threads that saw
// it have left their work undone.
class BatchProgress : public Progress {
 public:
  BatchProgress(Progress& whole, int64_t pairs_before, int64_t pairs_total)
      : whole_(whole), pairs_before_(pairs_before), pairs_total_(pairs_total) {}
  void Report(int64_t pairs_done, int64_t) override {
    whole_.Report(pairs_before_ + pairs_done, pairs_total_);
  }
  bool cancelled() const override {
    if (cancelled_.load(std::memory_order_relaxed)) return true;
    if (!whole_.cancelled()) return false;
    cancelled_.store(true, std::memory_order_relaxed);
    return true;
  }

 private:
  mutable std::atomic<bool> cancelled_ = false;
  Progress& whole_;
  const int64_t pairs_before_;
  const int64_t pairs_total_;
};

absl::Status CheckDType(const RowSource& source, const SearchParams& params) {
  const absl::Status status = CheckConversion(source.dtype(), params.compute_dtype);
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      fmt::format("{}: {}", source.name(), std::string(status.message())));
}

}  // namespace

absl::Status ValidateSearch(const RowSource& queries, const RowSource& docs,
                            const SearchParams& params) {
  if (queries.dim() != docs.dim()) {
    return absl::InvalidArgumentError(fmt::format(
        "dims differ: {} has dim={}, {} has dim={}; queries and docs must come from the "
        "same embedding",
        queries.name(), queries.dim(), docs.name(), docs.dim()));
  }
  if (docs.dim() < 1) {
    return absl::InvalidArgumentError(
        fmt::format("{}: rows have dim=0; there is nothing to compare", docs.name()));
  }
  for (const RowSource* source : {&queries, &docs}) {
    const absl::Status status = CheckDType(*source, params);
    if (!status.ok()) return status;
  }
  if (params.k < 1) {
    return absl::InvalidArgumentError(fmt::format("k={} must be at least 1", params.k));
  }
  if (docs.rows() == 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: there are no docs (shape (0, {}))", docs.name(), docs.dim()));
  }
  if (params.k > docs.rows()) {
    return absl::InvalidArgumentError(fmt::format("k={} exceeds the number of docs D={} in {}",
                                                  params.k, docs.rows(), docs.name()));
  }
  int64_t pairs = 0;
  if (__builtin_mul_overflow(queries.rows(), docs.rows(), &pairs)) {
    return absl::InvalidArgumentError(fmt::format(
        "{} queries in {} x {} docs in {} are more pairs than can be counted; search the "
        "queries in parts",
        queries.rows(), queries.name(), docs.rows(), docs.name()));
  }
  // A query whose own index is not a doc's loses nothing, but results have one k for all.
  const bool may_lose_one = params.first_doc == 0 || params.first_doc < queries.rows();
  if (params.exclude_self && may_lose_one && params.k > docs.rows() - 1) {
    return absl::InvalidArgumentError(
        fmt::format("k={} exceeds the number of docs D={} in {} less the query itself; with "
                    "--exclude-self k may be at most {}",
                    params.k, docs.rows(), docs.name(), docs.rows() - 1));
  }
  return absl::OkStatus();
}

absl::StatusOr<SearchReport> Engine::Search(RowSource& queries, RowSource& docs,
                                            const SearchParams& params, const SearchPlan& plan,
                                            Progress* progress, TopKSink& sink, WarmDocs* warm_docs,
                                            SearchSaver* saver) {
  absl::Status valid = ValidateSearch(queries, docs, params);
  if (valid.ok() && saver != nullptr) {
    valid = warm_docs != nullptr
                ? absl::InternalError("docs are not kept by a search that is saved")
                : CheckState(saver->start(), queries.rows(), docs.rows(), params);
  }
  if (!valid.ok()) return valid;
  const ScopedFloatEnvironment environment;
  if (warm_docs != nullptr) {
    const absl::Status started = StartWarmSearch(*warm_docs, docs, params, plan);
    if (!started.ok()) return started;
  }
  SilentProgress silent;
  absl::StatusOr<SearchReport> report;
  try {
    report = SearchInBatches(queries, docs, params, plan, progress == nullptr ? silent : *progress,
                             sink, saver);
  } catch (const std::bad_alloc&) {
    report = absl::ResourceExhaustedError(
        fmt::format("out of memory while searching {}; use a smaller --memory-limit, which is what "
                    "the search plans for",
                    docs.name()));
  }
  batch_saver_ = nullptr;
  if (warm_docs != nullptr) EndWarmSearch(report.ok());
  return report;
}

absl::StatusOr<std::string> Engine::Describe(const ProblemShape& shape,
                                             const SearchPlan& plan) const {
  return DescribePlan(shape, plan);
}

std::unique_ptr<WarmDocs> Engine::MakeWarmDocs(const ProblemShape& /*shape*/,
                                               const SearchPlan& /*plan*/) const {
  return nullptr;
}

absl::Status Engine::StartWarmSearch(WarmDocs& /*warm_docs*/, const RowSource& docs,
                                     const SearchParams& /*params*/, const SearchPlan& /*plan*/) {
  return absl::InternalError(
      fmt::format("{}: this engine was given warm docs of another one", docs.name()));
}

void Engine::EndWarmSearch(bool /*complete*/) {}

absl::StatusOr<SearchReport> Engine::SearchInBatches(RowSource& queries, RowSource& docs,
                                                     const SearchParams& params,
                                                     const SearchPlan& plan, Progress& progress,
                                                     TopKSink& sink, SearchSaver* saver) {
  const int64_t num_queries = queries.rows();
  const int64_t num_docs = docs.rows();
  const int64_t pairs_total = num_queries * num_docs;
  const SearchState beginning;
  const SearchState& start = saver == nullptr ? beginning : saver->start();

  const DType score_dtype = WorkingDType(params.compute_dtype);
  const int64_t largest_batch = std::min(plan.query_batch, num_queries);
  std::vector<int64_t> indices(static_cast<size_t>(largest_batch * params.k));
  std::vector<std::byte> scores(
      static_cast<size_t>(largest_batch * params.k * ItemSize(score_dtype)));
  SearchReport report = start.report;
  size_t next_span = 0;
  for (int64_t first = start.finished_queries; first < num_queries;) {
    if (progress.cancelled()) return absl::CancelledError("the search was interrupted");
    // Queries of one batch stand at the same doc.
    const SearchSpan* const span =
        next_span < start.spans.size() ? &start.spans[next_span] : nullptr;
    const int64_t end =
        std::min(first + plan.query_batch, span == nullptr ? num_queries : span->end_query());
    const TopKView out{end - first, params.k, score_dtype, scores.data(), indices.data()};
    SearchSpan from;
    if (span != nullptr) from = span->Part(first - span->first_query, end - span->first_query);
    if (span != nullptr && span->docs_done == num_docs) {
      WriteRows(from, out);
    } else {
      std::optional<BatchSaver> batch_saver;
      if (saver != nullptr) {
        batch_saver.emplace(*saver, first, out, num_docs, std::move(from));
        batch_saver_ = &*batch_saver;
      }
      BatchProgress batch_progress(progress, first * num_docs, pairs_total);
      const absl::Status searched =
          SearchBatch(queries, first, end - first, docs, params, plan, batch_progress, out, report);
      batch_saver_ = nullptr;
      if (!searched.ok()) return searched;
    }
    for (RowSource* source : {&queries, &docs}) {
      const absl::Status unchanged = source->CheckUnchanged();
      if (!unchanged.ok()) return unchanged;
    }
    const absl::Status taken = sink.Take(first, out);
    if (!taken.ok()) return taken;
    first = end;
    if (span != nullptr && first == span->end_query()) ++next_span;
    if (saver == nullptr || first == num_queries || !saver->Due()) continue;
    SearchState state{.finished_queries = first, .spans = {}, .report = report};
    AppendSpansFrom(start, first, state);
    const absl::Status saved = saver->Save(state);
    if (!saved.ok()) return saved;
  }
  return report;
}

}  // namespace tiny_knn
