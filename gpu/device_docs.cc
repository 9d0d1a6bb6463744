#include "gpu/device_docs.h"

#include <algorithm>
#include <string>

#include "core/matrix/dtype.h"
#include "fmt/format.h"

namespace tiny_knn {

absl::Status DocChunk::Allocate(const RowFormat& format, int64_t dim, int64_t capacity) {
  Release();
  format_ = format;
  stride_ = format.Stride(dim);
  absl::Status status =
      rows_.Allocate((capacity + RowsReadBehind(format.gemm)) * stride_ * format.row_item_bytes());
  if (status.ok() && format.has_rounded_copy()) status = rounded_.Allocate(capacity * stride_);
  if (status.ok()) status = screens_.Allocate(capacity);
  if (status.ok()) status = tails_.Allocate(capacity);
  if (!status.ok()) Release();
  return status;
}

void DocChunk::Release() {
  rows_.Release();
  rounded_.Release();
  screens_.Release();
  tails_.Release();
}

cudaError_t DocChunk::ClearBehind(int64_t doc, cudaStream_t stream) const {
  const int64_t bytes = RowsReadBehind(format_.gemm) * stride_ * format_.row_item_bytes();
  if (bytes == 0) return cudaSuccess;
  return cudaMemsetAsync(Rows(doc), 0, static_cast<size_t>(bytes), stream);
}

int64_t WarmDocsOnDevice::Free(int64_t needed, const CudaWarmDocs* keep) {
  int64_t freed = 0;
  while (freed < needed) {
    CudaWarmDocs* oldest = nullptr;
    for (CudaWarmDocs* docs : all_) {
      if (docs == keep || docs->empty()) continue;
      if (oldest == nullptr || docs->last_use() < oldest->last_use()) oldest = docs;
    }
    if (oldest == nullptr) break;
    freed += oldest->device_bytes();
    oldest->Clear();
  }
  return freed;
}

int64_t WarmDocsOnDevice::bytes() const {
  int64_t bytes = 0;
  for (const CudaWarmDocs* docs : all_) bytes += docs->empty() ? 0 : docs->device_bytes();
  return bytes;
}

CudaWarmDocs::CudaWarmDocs(const ProblemShape& shape, const RowFormat& format,
                           std::shared_ptr<WarmDocsOnDevice> device)
    : num_docs_(shape.num_docs),
      dim_(shape.dim),
      doc_dtype_(shape.doc_dtype),
      compute_dtype_(shape.compute_dtype),
      metric_(shape.metric),
      format_(format),
      device_(std::move(device)) {
  device_->Add(this);
}

CudaWarmDocs::~CudaWarmDocs() { device_->Remove(this); }

absl::Status CudaWarmDocs::CheckFits(const RowSource& docs, const SearchParams& params) const {
  if (docs.rows() == num_docs_ && docs.dim() == dim_ && docs.dtype() == doc_dtype_ &&
      params.metric == metric_ && params.compute_dtype == compute_dtype_) {
    return absl::OkStatus();
  }
  return absl::InternalError(
      fmt::format("{}: the warm docs given to this search are {} x {} {} docs for metric {} in {}, "
                  "it searches {} x {} "
                  "{} docs for metric {} in {}",
                  docs.name(), num_docs_, dim_, DTypeName(doc_dtype_), MetricName(metric_),
                  DTypeName(compute_dtype_), docs.rows(), docs.dim(), DTypeName(docs.dtype()),
                  MetricName(params.metric), DTypeName(params.compute_dtype)));
}

absl::Status CudaWarmDocs::Allocate() {
  const absl::Status status = chunk_.Allocate(format_, dim_, num_docs_);
  if (status.ok()) state_ = State::kFilling;
  return status;
}

void CudaWarmDocs::FinishFilling(const PrepareTally& tally) {
  tally_ = tally;
  state_ = State::kPrepared;
}

void CudaWarmDocs::Clear() {
  chunk_.Release();
  tally_ = {};
  state_ = State::kEmpty;
}

}  // namespace tiny_knn
