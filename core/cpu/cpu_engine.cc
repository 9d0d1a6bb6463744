#include "core/cpu/cpu_engine.h"

#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "core/cpu/batch_search.h"
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

 protected:
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
    BatchSearch<T> batch(*pool_, params, plan, first_query, num_queries, docs.dim(), progress);
    absl::Status status = batch.LoadQueries(queries, report);
    if (status.ok()) status = batch.SearchDocs(docs, report);
    if (status.ok()) batch.Finish(out, report);
    return status;
  }

  std::unique_ptr<ThreadPool> pool_;
};

}  // namespace

std::unique_ptr<Engine> MakeCpuEngine() { return std::make_unique<CpuEngine>(); }

}  // namespace tiny_knn
