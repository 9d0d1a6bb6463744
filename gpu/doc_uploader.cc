#include "gpu/doc_uploader.h"

#include <cstring>
#include <vector>

#include "core/cpu/index_range.h"
#include "core/matrix/dtype.h"
#include "core/matrix/matrix_view.h"
#include "gpu/prepare_kernels.h"

namespace tiny_knn {
namespace {

void PackRows(const MatrixView& rows, IndexRange part, std::byte* packed) {
  const int64_t row_bytes = rows.dim * ItemSize(rows.dtype);
  if (rows.row_stride_bytes == row_bytes) {
    std::memcpy(packed + part.begin * row_bytes, rows.Row(part.begin),
                static_cast<size_t>(part.size() * row_bytes));
    return;
  }
  for (int64_t i = part.begin; i < part.end; ++i) {
    std::memcpy(packed + i * row_bytes, rows.Row(i), static_cast<size_t>(row_bytes));
  }
}

}  // namespace

absl::Status DocUploader::Reserve(int64_t slice_bytes) {
  absl::Status status;
  for (Slot& slot : slots_) {
    if (status.ok()) status = slot.pinned.Reserve(slice_bytes);
    if (status.ok()) status = slot.staged.Reserve(slice_bytes);
    if (has_events_) continue;
    if (status.ok()) status = slot.copied.Create();
    if (status.ok()) status = slot.prepared.Create();
  }
  has_events_ = has_events_ || status.ok();
  return status;
}

absl::Status DocUploader::Stage(RowSource& docs, int64_t begin, int64_t end, ThreadPool& pool) {
  Slot& slot = slots_[static_cast<size_t>(num_staged_ % 2)];
  FirstError error;
  if (num_staged_ >= 2) error(cudaEventSynchronize(slot.copied.get()), "waiting for a copy");
  if (!error.ok()) return error.Take();
  const absl::StatusOr<std::vector<MatrixView>> views = docs.StartRows(begin, end);
  if (!views.ok()) return views.status();
  const int64_t row_bytes = docs.dim() * ItemSize(docs.dtype());
  std::vector<absl::Status> read(static_cast<size_t>(pool.threads()));
  pool.Run([&](int worker) {
    const IndexRange part = PartOf(end - begin, worker, pool.threads());
    if (part.size() == 0) return;
    if (docs.needs_fetch()) {
      read[static_cast<size_t>(worker)] = docs.Fetch({begin + part.begin, part.size()},
                                                     slot.pinned.data() + part.begin * row_bytes);
    } else {
      PackRows(views->front(), part, slot.pinned.data());
    }
  });
  docs.Release();
  for (const absl::Status& status : read) {
    if (!status.ok()) return status;
  }
  const absl::Status unchanged = docs.CheckUnchanged();
  if (!unchanged.ok()) return unchanged;
  slot.num_docs = end - begin;
  const size_t bytes = static_cast<size_t>(slot.num_docs * docs.dim() * ItemSize(docs.dtype()));
  if (num_staged_ >= 2) {
    error(cudaStreamWaitEvent(context_.copies(), slot.prepared.get(), 0), "queueing a wait");
  }
  error(cudaMemcpyAsync(slot.staged.data(), slot.pinned.data(), bytes, cudaMemcpyHostToDevice,
                        context_.copies()),
        "copying docs to the device");
  error(cudaEventRecord(slot.copied.get(), context_.copies()), "recording an event");
  ++num_staged_;
  return error.Take();
}

absl::Status DocUploader::Prepare(const SearchParams& params, DType doc_dtype, int64_t dim,
                                  DocChunk& chunk, int64_t chunk_doc, PrepareTally* tally) {
  Slot& slot = slots_[static_cast<size_t>(num_prepared_ % 2)];
  FirstError error;
  error(cudaStreamWaitEvent(context_.compute(), slot.copied.get(), 0), "queueing a wait");
  PrepareRowsArgs args;
  args.source = slot.staged.data();
  args.source_dtype = doc_dtype;
  args.compute_dtype = params.compute_dtype;
  args.num_rows = slot.num_docs;
  args.dim = static_cast<int32_t>(dim);
  args.stride = static_cast<int32_t>(chunk.stride());
  args.is_cosine = params.metric == Metric::kCosine;
  args.is_l2 = params.metric == Metric::kL2;
  args.row_type = chunk.format().row_type;
  args.rows = chunk.Rows(chunk_doc);
  args.rounded_rows = chunk.RoundedRows(chunk_doc);
  args.screens = chunk.screens() + chunk_doc;
  args.tails = chunk.tails() + chunk_doc;
  args.tally = tally;
  error(PrepareRows(args, context_.compute()), "preparing docs");
  error(chunk.ClearBehind(chunk_doc + slot.num_docs, context_.compute()), "clearing rows");
  error(cudaEventRecord(slot.prepared.get(), context_.compute()), "recording an event");
  ++num_prepared_;
  return error.Take();
}

void DocUploader::Reset() {
  num_staged_ = 0;
  num_prepared_ = 0;
}

}  // namespace tiny_knn
