#include "core/cpu/cpu_warm_docs.h"

#include <fmt/format.h>

#include <cstdint>
#include <memory>
#include <new>
#include <string>

#include "absl/status/status.h"
#include "core/matrix/dtype.h"

namespace tiny_knn {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);
constexpr int64_t kBoundBytes = 3 * kFloatBytes;  // a doc's share of DocBoundArrays

// For cosine the screen multiplies unit rows, for doubles rounded ones.
bool KeepsWorkingRows(Metric metric, DType compute_dtype) {
  return metric != Metric::kCosine && WorkingDType(compute_dtype) == DType::kFloat32;
}

}  // namespace

std::unique_ptr<CpuWarmDocs> CpuWarmDocs::Make(const ProblemShape& shape, const SearchPlan& plan) {
  if (shape.num_docs < 1 || shape.dim < 1 || plan.num_chunks != 1) return nullptr;
  const bool rescored_from_source = !KeepsWorkingRows(shape.metric, shape.compute_dtype);
  if (rescored_from_source && shape.doc_buffer_bytes_per_row > 0) return nullptr;
  int64_t elements = 0;
  if (__builtin_mul_overflow(shape.num_docs, shape.dim, &elements)) return nullptr;
  // Far beyond any machine, and far enough from overflow for all that is added.
  if (elements > INT64_MAX / (8 * kBoundBytes)) return nullptr;
  return std::unique_ptr<CpuWarmDocs>(new CpuWarmDocs(shape));
}

CpuWarmDocs::CpuWarmDocs(const ProblemShape& shape)
    : num_docs_(shape.num_docs),
      dim_(shape.dim),
      doc_dtype_(shape.doc_dtype),
      compute_dtype_(shape.compute_dtype),
      metric_(shape.metric),
      are_working_rows_(KeepsWorkingRows(shape.metric, shape.compute_dtype)) {}

int64_t CpuWarmDocs::row_bytes() const {
  return HugePages::RoundUp(num_docs_ * dim_ * kFloatBytes);
}

int64_t CpuWarmDocs::bounds_bytes() const { return num_docs_ * kBoundBytes; }

int64_t CpuWarmDocs::bytes() const { return row_bytes() + bounds_bytes(); }

int64_t CpuWarmDocs::allocated_bytes() const {
  return rows_.bytes() + (bounds_.has_value() ? bounds_bytes() : 0);
}

absl::Status CpuWarmDocs::CheckFits(const RowSource& docs, const SearchParams& params) const {
  if (docs.rows() == num_docs_ && docs.dim() == dim_ && docs.dtype() == doc_dtype_ &&
      params.metric == metric_ && params.compute_dtype == compute_dtype_) {
    return absl::OkStatus();
  }
  const auto describe = [](int64_t rows, int64_t dim, DType dtype, Metric metric, DType compute) {
    return fmt::format("{} x {} {} docs for metric {} in {}", rows, dim, DTypeName(dtype),
                       MetricName(metric), DTypeName(compute));
  };
  return absl::InternalError(fmt::format(
      "{}: the warm docs given to this search are {}, it searches {}", docs.name(),
      describe(num_docs_, dim_, doc_dtype_, metric_, compute_dtype_),
      describe(docs.rows(), docs.dim(), docs.dtype(), params.metric, params.compute_dtype)));
}

bool CpuWarmDocs::Allocate() {
  if (!rows_.Allocate(num_docs_ * dim_ * kFloatBytes)) return false;
  try {
    bounds_.emplace(num_docs_);
  } catch (const std::bad_alloc&) {
    Clear();
    return false;
  }
  state_ = State::kFilling;
  return true;
}

void CpuWarmDocs::FinishFilling(const PrepareCounts& counts) {
  counts_ = counts;
  state_ = State::kPrepared;
}

void CpuWarmDocs::Clear() {
  rows_.Release();
  bounds_.reset();
  counts_ = {};
  state_ = State::kEmpty;
}

MatrixView CpuWarmDocs::view() const {
  return {rows_.data(), DType::kFloat32, num_docs_, dim_, dim_ * kFloatBytes};
}

}  // namespace tiny_knn
