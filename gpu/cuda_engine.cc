#include "gpu/cuda_engine.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "core/cpu/cpu_engine.h"
#include "core/cpu/thread_pool.h"
#include "core/search/search.h"
#include "fmt/format.h"
#include "gpu/device_batch.h"
#include "gpu/device_context.h"
#include "gpu/device_docs.h"
#include "gpu/device_plan.h"
#include "gpu/device_plan_text.h"
#include "gpu/tuned_cuda_engine.h"

namespace tiny_knn {
namespace {

// Of the memory that is free, so much is left alone: other programs, and what the driver takes for
// kernels.
constexpr int64_t kLeastReserve = int64_t{64} << 20;
constexpr int64_t kReserveShare = 32;

constexpr int64_t kMostK = int64_t{1} << 30;
constexpr int64_t kMostDim = int64_t{1} << 30;
constexpr int64_t kMostDocs = (int64_t{1} << 32) - 1;
constexpr int64_t kManyQueries = std::numeric_limits<int64_t>::max();

// Whether the kernels' 32-bit numbers and float32 rows are enough.
bool IsForDevice(DType compute_dtype, int64_t k, int64_t num_docs, int64_t dim) {
  return WorkingDType(compute_dtype) == DType::kFloat32 && k < kMostK && num_docs < kMostDocs &&
         dim < kMostDim;
}

class CudaEngine : public Engine {
 public:
  CudaEngine(std::unique_ptr<DeviceContext> context, int64_t gpu_memory_bytes,
             const DeviceTuning& tuning)
      : context_(std::move(context)),
        gpu_memory_bytes_(gpu_memory_bytes),
        tuning_(tuning),
        resources_(*context_),
        kept_(std::make_shared<WarmDocsOnDevice>()),
        cpu_(MakeCpuEngine()) {}

  std::string_view device() const override { return "cuda"; }

  // As Allocate plans it: what others keep on the device gives way.
  absl::StatusOr<std::string> Describe(const ProblemShape& shape,
                                       const SearchPlan& plan) const override {
    if (!IsForDevice(shape.compute_dtype, shape.k, shape.num_docs, shape.dim)) {
      absl::StatusOr<std::string> text = cpu_->Describe(shape, plan);
      if (!text.ok()) return text;
      return *text + PlanLine("computed by", "the CPU, which this dtype or size is left to");
    }
    const absl::Status active = context_->Activate();
    if (!active.ok()) return active;
    DeviceSearch search;
    search.shape.num_queries = std::min(plan.query_batch, shape.num_queries);
    search.shape.num_docs = shape.num_docs;
    search.shape.dim = shape.dim;
    search.shape.k = shape.k;
    search.shape.doc_item_bytes = ItemSize(shape.doc_dtype);
    search.shape.format = ChooseRowFormat(shape.compute_dtype, shape.dim, shape.num_queries,
                                          context_->traits(), tuning_);
    const absl::StatusOr<int64_t> budget = TotalBudget();
    if (!budget.ok()) return budget.status();
    search.budget_bytes = *budget;
    absl::StatusOr<DevicePlan> planned =
        PlanOnDevice(search.shape, context_->traits(), *budget, tuning_);
    const int64_t all_docs = shape.num_docs * DeviceBytesPerDoc(search.shape.format, shape.dim);
    if (!planned.ok()) return planned.status();
    search.plan = *planned;
    if (planned->query_batch < shape.num_queries && all_docs <= *budget / 2) {
      DeviceShape resident = search.shape;
      resident.docs_are_resident = true;
      planned = PlanOnDevice(resident, context_->traits(), *budget - all_docs, tuning_);
      search.docs_stay = planned.ok();
      if (planned.ok()) search.plan = *planned;
    }
    return DescribeDeviceSearch(shape, plan, search);
  }

  // Docs that take at most half of the device's memory: the rest is for searching them.
  std::unique_ptr<WarmDocs> MakeWarmDocs(const ProblemShape& shape,
                                         const SearchPlan& /*plan*/) const override {
    if (shape.num_docs < 1 || shape.dim < 1) return nullptr;
    if (!IsForDevice(shape.compute_dtype, shape.k, shape.num_docs, shape.dim)) return nullptr;
    if (!context_->Activate().ok()) return nullptr;
    const RowFormat format =
        ChooseRowFormat(shape.compute_dtype, shape.dim, kManyQueries, context_->traits(), tuning_);
    const absl::StatusOr<int64_t> budget = TotalBudget();
    if (!budget.ok() || shape.num_docs > *budget / 2 / DeviceBytesPerDoc(format, shape.dim)) {
      return nullptr;
    }
    return std::make_unique<CudaWarmDocs>(shape, format, kept_);
  }

 protected:
  absl::Status StartWarmSearch(WarmDocs& warm_docs, const RowSource& docs,
                               const SearchParams& params, const SearchPlan& plan) override {
    auto* const warm = dynamic_cast<CudaWarmDocs*>(&warm_docs);
    if (warm == nullptr) return Engine::StartWarmSearch(warm_docs, docs, params, plan);
    absl::Status status = warm->CheckFits(docs, params);
    if (status.ok()) status = context_->Activate();
    if (!status.ok()) return status;
    warm->Use();
    if (warm->empty() && !AllocateWarm(*warm)) return absl::OkStatus();
    warm_ = warm;
    return absl::OkStatus();
  }

  void EndWarmSearch(bool complete) override {
    CudaWarmDocs* const warm = std::exchange(warm_, nullptr);
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
    if (!IsForDevice(params.compute_dtype, params.k, docs.rows(), docs.dim())) {
      return SearchBatchOn(*cpu_, queries, first_query, num_queries, docs, params, plan, progress,
                           out, report);
    }
    if (num_queries == 0) return absl::OkStatus();
    absl::Status status = context_->Activate();
    if (status.ok()) status = StartPool(plan.threads);
    if (!status.ok()) return status;
    // Batches of one search come in order; later ones find the docs where an earlier one left them,
    // if they fit.
    if (first_query == 0) {
      own_docs_.reset();
      may_not_keep_ = false;
    }
    int64_t done = 0;
    while (done < num_queries) {
      Part part{queries, docs, params, progress};
      part.first_query = first_query + done;
      part.num_queries = num_queries - done;
      part.first_row = done;
      // Docs are searched in chunks between which the state can be saved, so none are kept.
      if (batch_saver() != nullptr) part.most_chunk_docs = plan.doc_chunk;
      status = SearchPart(part, out, report);
      if (!status.ok()) return status;
      done += part.num_queries;
    }
    if (first_query + num_queries == queries.rows()) own_docs_.reset();
    return absl::OkStatus();
  }

 private:
  // Queries of a batch that are searched in one pass over the docs.
  struct Part {
    RowSource& queries;
    RowSource& docs;
    const SearchParams& params;
    Progress& batch_progress;
    int64_t first_query = 0;  // of the file
    int64_t num_queries =
        0;  // all that are left; SearchPart takes as many as the device has room for
    int64_t first_row = 0;        // of the batch's results
    int64_t most_chunk_docs = 0;  // 0: as many as there is room for, which may be kept
  };

  // A part of a batch's progress as the batch's.
  class PartProgress : public Progress {
   public:
    PartProgress(Progress& batch, int64_t pairs_before)
        : batch_(batch), pairs_before_(pairs_before) {}
    void Report(int64_t pairs_done, int64_t pairs_total) override {
      batch_.Report(pairs_before_ + pairs_done, pairs_before_ + pairs_total);
    }
    bool cancelled() const override { return batch_.cancelled(); }

   private:
    Progress& batch_;
    const int64_t pairs_before_;
  };

  absl::Status StartPool(int threads) {
    if (pool_ != nullptr && pool_->threads() == threads) return absl::OkStatus();
    pool_.reset();
    auto pool = ThreadPool::Start(threads);
    if (!pool.ok()) return pool.status();
    pool_ = *std::move(pool);
    return absl::OkStatus();
  }

  // Device memory that this engine may use now, beside what it uses.
  absl::StatusOr<int64_t> FreeBudget() const {
    if (tuning_.claimed_free_bytes > 0) return tuning_.claimed_free_bytes;
    const absl::StatusOr<int64_t> free_bytes = context_->FreeBytes();
    if (!free_bytes.ok()) return free_bytes.status();
    // Plans count what batches share; it is reserved from the first one on.
    return *free_bytes + resources_.uploader.device_bytes() + resources_.doubts.device_bytes() -
           std::max(kLeastReserve, *free_bytes / kReserveShare);
  }

  // And all told; what is kept could be given up.
  absl::StatusOr<int64_t> TotalBudget() const {
    absl::StatusOr<int64_t> budget = FreeBudget();
    if (!budget.ok()) return budget;
    const int64_t total = *budget + kept_->bytes();
    return gpu_memory_bytes_ > 0 ? std::min(total, gpu_memory_bytes_) : total;
  }

  // What a search may use beside `docs` (may be null) that are kept for it. Others' make room as
  // soon as they would leave it less than half.
  absl::StatusOr<int64_t> SearchBudget(const CudaWarmDocs* docs) const {
    const absl::StatusOr<int64_t> total = TotalBudget();
    if (!total.ok()) return total;
    if (*total - kept_->bytes() < *total / 2) kept_->Free(kept_->bytes(), docs);
    return std::max<int64_t>(0, *total - kept_->bytes());
  }

  // False where there is no room: the search goes on as if there were nothing to fill.
  bool AllocateWarm(CudaWarmDocs& warm) {
    const absl::StatusOr<int64_t> total = TotalBudget();
    if (!total.ok() || warm.device_bytes() > *total / 2) return false;
    if (kept_->bytes() + warm.device_bytes() > *total / 2) kept_->Free(kept_->bytes(), &warm);
    if (warm.Allocate().ok()) return true;
    kept_->Free(std::numeric_limits<int64_t>::max(), &warm);
    return warm.Allocate().ok();
  }

  // Docs of a search that takes several passes stay, if they leave half of the memory.
  void KeepOwnDocs(const Part& part, const RowFormat& format) {
    const RowSource& docs = part.docs;
    ProblemShape shape;
    shape.num_docs = docs.rows();
    shape.dim = docs.dim();
    shape.metric = part.params.metric;
    shape.doc_dtype = docs.dtype();
    shape.compute_dtype = part.params.compute_dtype;
    own_docs_ = std::make_unique<CudaWarmDocs>(shape, format, kept_);
    if (!AllocateWarm(*own_docs_)) own_docs_.reset();
  }

  // Everything a part needs on the device.
  struct Allocated {
    DevicePlan plan;
    DocChunk own_chunk;
    std::unique_ptr<DeviceBatch> batch;
  };

  // With less and less where an allocation fails, which happens when others take memory, or when it
  // is in pieces.
  absl::Status Allocate(Part& part, Progress& progress, Allocated& allocated) {
    DeviceShape shape;
    shape.num_queries = part.num_queries;
    shape.num_docs = part.docs.rows();
    shape.dim = part.docs.dim();
    shape.k = part.params.k;
    shape.doc_item_bytes = ItemSize(part.docs.dtype());
    int64_t most_bytes = std::numeric_limits<int64_t>::max();
    while (true) {
      const CudaWarmDocs* const kept = KeptDocs();
      shape.docs_are_resident = kept != nullptr;
      shape.format = kept != nullptr
                         ? kept->format()
                         : ChooseRowFormat(part.params.compute_dtype, shape.dim,
                                           part.queries.rows(), context_->traits(), tuning_);
      const absl::StatusOr<int64_t> budget = SearchBudget(kept);
      if (!budget.ok()) return budget.status();
      absl::StatusOr<DevicePlan> plan =
          PlanOnDevice(shape, context_->traits(), std::min(*budget, most_bytes), tuning_);
      if (!plan.ok() && kept != nullptr && kept == own_docs_.get()) {
        // They leave too little for the search: again without keeping them.
        own_docs_.reset();
        continue;
      }
      if (!plan.ok()) return plan.status();
      if (part.most_chunk_docs > 0) {
        plan->doc_chunk = std::min(plan->doc_chunk, part.most_chunk_docs);
      } else if (kept == nullptr && plan->query_batch < part.queries.rows() - part.first_query &&
                 own_docs_ == nullptr && !may_not_keep_) {
        KeepOwnDocs(part, shape.format);
        may_not_keep_ = true;
        continue;
      }
      allocated.plan = *plan;
      allocated.batch = std::make_unique<DeviceBatch>(
          resources_, *pool_, part.params, *plan, shape.format, part.first_query,
          std::min(plan->query_batch, part.num_queries), shape.dim, progress);
      absl::Status status;
      // Docs first: they are the largest piece.
      if (kept == nullptr) {
        status = allocated.own_chunk.Allocate(shape.format, shape.dim, plan->doc_chunk);
      }
      if (status.ok()) status = allocated.batch->Allocate();
      if (!absl::IsResourceExhausted(status)) return status;
      allocated.batch.reset();
      allocated.own_chunk.Release();
      if (kept_->Free(std::numeric_limits<int64_t>::max(), KeptDocs()) > 0) continue;
      if (plan->query_batch == 1 && plan->doc_chunk == 1) return status;
      most_bytes = plan->bytes - (plan->bytes - plan->fixed_bytes) / 2;
    }
  }

  // The docs that this search finds or leaves on the device; null: none.
  CudaWarmDocs* KeptDocs() const {
    if (warm_ != nullptr) return warm_;
    return own_docs_ != nullptr && !own_docs_->empty() ? own_docs_.get() : nullptr;
  }

  // Of part.num_queries, as many as there is room for.
  absl::Status SearchPart(Part& part, const TopKView& out, SearchReport& report) {
    const int64_t num_docs = part.docs.rows();
    PartProgress progress(part.batch_progress, part.first_row * num_docs);
    Allocated allocated;
    absl::Status status = Allocate(part, progress, allocated);
    if (!status.ok()) return status;
    DeviceBatch& batch = *allocated.batch;
    part.num_queries = std::min(allocated.plan.query_batch, part.num_queries);
    const SearchReport before = report;
    status = batch.LoadQueries(part.queries, report);
    BatchSaver* const saver = batch_saver();
    const int64_t begin = saver == nullptr ? 0 : saver->docs_done();
    if (status.ok() && begin > 0) status = batch.RestoreBest(*saver, part.first_row);
    if (!status.ok()) return status;
    CudaWarmDocs* const kept = KeptDocs();
    PrepareTally tally;
    if (kept != nullptr && kept->prepared()) {
      tally = kept->tally();
      status = batch.SearchPreparedDocs(part.docs, kept->chunk());
    } else if (kept != nullptr) {
      status = batch.SearchDocs(part.docs, 0, kept->chunk(), tally, nullptr);
      if (status.ok()) kept->FinishFilling(tally);
    } else {
      DeviceBatch::AtBorder at_border;
      if (saver != nullptr) {
        at_border = [&](int64_t docs_done, const PrepareTally& so_far) {
          return Save(part, docs_done, before, so_far, batch);
        };
      }
      status = batch.SearchDocs(part.docs, begin, allocated.own_chunk, tally, at_border);
    }
    if (!status.ok()) return status;
    AddTally(part, tally, report);
    const TopKView rows{part.num_queries, out.k, out.score_dtype,
                        static_cast<float*>(out.scores) + part.first_row * out.k,
                        out.indices + part.first_row * out.k};
    return batch.Finish(num_docs, rows, report);
  }

  // Every pass sees the same docs: the first one counts.
  static void AddTally(const Part& part, const PrepareTally& tally, SearchReport& report) {
    if (part.first_query > 0) return;
    report.nonfinite_doc_rows += static_cast<int64_t>(tally.nonfinite_rows);
    report.infs_made_in_docs += static_cast<int64_t>(tally.infs_made);
  }

  // Between two chunks, if it is time. `before`: the report before the part's queries were loaded.
  absl::Status Save(const Part& part, int64_t docs_done, const SearchReport& before,
                    const PrepareTally& tally, DeviceBatch& batch) {
    if (!batch_saver()->Due()) return absl::OkStatus();
    absl::StatusOr<SearchSpan> span = batch.ReadBest();
    if (!span.ok()) return span.status();
    span->docs_done = docs_done;
    SearchReport report = before;
    AddTally(part, tally, report);
    const absl::Status added = batch.AddWork(report);
    if (!added.ok()) return added;
    return batch_saver()->Save(part.first_row, *std::move(span), report);
  }

  const std::unique_ptr<DeviceContext> context_;
  const int64_t gpu_memory_bytes_;
  const DeviceTuning tuning_;
  BatchResources resources_;
  const std::shared_ptr<WarmDocsOnDevice> kept_;
  const std::unique_ptr<Engine> cpu_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<CudaWarmDocs> own_docs_;
  CudaWarmDocs* warm_ = nullptr;  // of the search that is under way
  bool may_not_keep_ = false;     // this search has tried
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> MakeTunedCudaEngine(int device_index,
                                                            int64_t gpu_memory_bytes,
                                                            const DeviceTuning& tuning) {
  auto context = DeviceContext::Open(device_index);
  if (!context.ok()) return context.status();
  return std::unique_ptr<Engine>(
      std::make_unique<CudaEngine>(*std::move(context), gpu_memory_bytes, tuning));
}

absl::StatusOr<std::unique_ptr<Engine>> MakeCudaEngine(int device_index, int64_t gpu_memory_bytes) {
  return MakeTunedCudaEngine(device_index, gpu_memory_bytes, {});
}

}  // namespace tiny_knn
