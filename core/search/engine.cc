#include "core/search/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/row_source.h"
#include "core/matrix/convert.h"
#include "core/search/float_environment.h"
#include "core/search/planner.h"
#include "core/search/search.h"

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
  if (params.exclude_self && params.k > docs.rows() - 1) {
    return absl::InvalidArgumentError(
        fmt::format("k={} exceeds the number of docs D={} in {} less the query itself; with "
                    "--exclude-self k may be at most {}",
                    params.k, docs.rows(), docs.name(), docs.rows() - 1));
  }
  return absl::OkStatus();
}

absl::StatusOr<SearchReport> Engine::Search(RowSource& queries, RowSource& docs,
                                            const SearchParams& params, const SearchPlan& plan,
                                            Progress* progress, TopKSink& sink,
                                            WarmDocs* warm_docs) {
  const absl::Status valid = ValidateSearch(queries, docs, params);
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
                             sink);
  } catch (const std::bad_alloc&) {
    report = absl::ResourceExhaustedError(
        fmt::format("out of memory while searching {}; use a smaller --memory-limit, which is what "
                    "the search plans for",
                    docs.name()));
  }
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
                                                     TopKSink& sink) {
  const int64_t num_queries = queries.rows();
  const int64_t pairs_total = num_queries * docs.rows();

  const DType score_dtype = WorkingDType(params.compute_dtype);
  const int64_t largest_batch = std::min(plan.query_batch, num_queries);
  std::vector<int64_t> indices(static_cast<size_t>(largest_batch * params.k));
  std::vector<std::byte> scores(
      static_cast<size_t>(largest_batch * params.k * ItemSize(score_dtype)));
  SearchReport report;
  for (int64_t first = 0; first < num_queries; first += plan.query_batch) {
    if (progress.cancelled()) return absl::CancelledError("the search was interrupted");
    const int64_t count = std::min(plan.query_batch, num_queries - first);
    const TopKView out{count, params.k, score_dtype, scores.data(), indices.data()};
    BatchProgress batch_progress(progress, first * docs.rows(), pairs_total);
    const absl::Status searched =
        SearchBatch(queries, first, count, docs, params, plan, batch_progress, out, report);
    if (!searched.ok()) return searched;
    for (RowSource* source : {&queries, &docs}) {
      const absl::Status unchanged = source->CheckUnchanged();
      if (!unchanged.ok()) return unchanged;
    }
    const absl::Status taken = sink.Take(first, out);
    if (!taken.ok()) return taken;
  }
  return report;
}

}  // namespace tiny_knn
