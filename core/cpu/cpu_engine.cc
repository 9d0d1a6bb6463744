#include "core/cpu/cpu_engine.h"

#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "core/cpu/batch_search.h"
#include "core/cpu/cpu_warm_docs.h"
#include "core/cpu/thread_pool.h"
#include "core/io/row_source.h"
#include "core/search/engine.h"
#include "core/search/planner.h"
#include "core/search/search.h"

namespace tiny_knn {
namespace {

class CpuEngine : public Engine {
 public:
  std::string_view device() const override { return "cpu"; }

  std::unique_ptr<WarmDocs> MakeWarmDocs(const ProblemShape& shape,
                                         const SearchPlan& plan) const override {
    return CpuWarmDocs::Make(shape, plan);
  }

 protected:
  absl::Status StartWarmSearch(WarmDocs& warm_docs, const RowSource& docs,
                               const SearchParams& params, const SearchPlan& plan) override {
    auto* const warm = dynamic_cast<CpuWarmDocs*>(&warm_docs);
    if (warm == nullptr) return Engine::StartWarmSearch(warm_docs, docs, params, plan);
    const absl::Status fits = warm->CheckFits(docs, params);
    if (!fits.ok()) return fits;
    // What another arithmetic made of them is of no use.
    if (plan.screen != warm->screen()) return absl::OkStatus();
    // Where they cannot be used, filled, or given memory, the search goes on as if there were none.
    if (!warm->are_working_rows() && docs.buffer_bytes_per_row() > 0) return absl::OkStatus();
    if (!warm->filled() && (plan.doc_chunk < docs.rows() || !warm->Allocate())) {
      return absl::OkStatus();
    }
    warm_ = warm;
    return absl::OkStatus();
  }

  void EndWarmSearch(bool complete) override {
    CpuWarmDocs* const warm = std::exchange(warm_, nullptr);
    if (warm == nullptr || warm->filled()) return;
    if (complete && warm->prepared()) {
      warm->MarkFilled();
    } else {
      warm->Clear();
    }
  }

  absl::Status SearchBatch(RowSource& queries, int64_t first_query, int64_t num_queries,
                           RowSource& docs, const SearchParams& params, const SearchPlan& plan,
                           Progress& progress, const TopKView& out, SearchReport& report) override {
    if (plan.threads < plan.doc_splits) {
      return absl::InternalError("the plan splits docs between more threads than it has");
    }
    if (pool_ == nullptr || pool_->threads() != plan.threads) {
      pool_.reset();
      auto pool = ThreadPool::Start(plan.threads);
      if (!pool.ok()) return pool.status();
      pool_ = *std::move(pool);
    }
    if (WorkingDType(params.compute_dtype) == DType::kFloat64) {
      return SearchBatchAs<double>(queries, first_query, num_queries, docs, params, plan, progress,
                                   out, report);
    }
    return SearchBatchAs<float>(queries, first_query, num_queries, docs, params, plan, progress,
                                out, report);
  }

 private:
  template <typename T>
  absl::Status SearchBatchAs(RowSource& queries, int64_t first_query, int64_t num_queries,
                             RowSource& docs, const SearchParams& params, const SearchPlan& plan,
                             Progress& progress, const TopKView& out, SearchReport& report) {
    BatchSearch<T> batch(*pool_, params, plan, first_query, num_queries, docs.dim(), warm_,
                         progress);
    const SearchReport before = report;
    absl::Status status = batch.LoadQueries(queries, report);
    docs.ReadPastCache(plan.reads_past_cache);
    if (status.ok()) status = batch.SearchDocs(docs, before, batch_saver(), report);
    if (status.ok()) batch.Finish(out, report);
    return status;
  }

  std::unique_ptr<ThreadPool> pool_;
  CpuWarmDocs* warm_ = nullptr;  // of the search that is under way
};

}  // namespace

std::unique_ptr<Engine> MakeCpuEngine() { return std::make_unique<CpuEngine>(); }

}  // namespace tiny_knn
