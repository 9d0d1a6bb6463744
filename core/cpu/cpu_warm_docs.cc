#include "core/cpu/cpu_warm_docs.h"

#include <fmt/format.h>

#include <cstdint>
#include <memory>
#include <new>
#include <string>

#include "absl/status/status.h"
#include "core/cpu/int8_kernels.h"
#include "core/matrix/dtype.h"

namespace tiny_knn {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);
constexpr int64_t kBoundBytes = 3 * kFloatBytes;       // a doc's share of DocBoundArrays
constexpr int64_t kCodedBoundBytes = 6 * kFloatBytes;  // with codes, its scale included
constexpr int64_t kInverseNormBytes = kFloatBytes;     // with codes and cosine, besides

// For cosine the screen multiplies unit rows, for doubles rounded ones, and codes are no rows.
bool KeepsWorkingRows(const ProblemShape& shape, ScreenKind screen) {
  return screen == ScreenKind::kFloat32Gemm && shape.metric != Metric::kCosine &&
         WorkingDType(shape.compute_dtype) == DType::kFloat32;
}

}  // namespace

std::unique_ptr<CpuWarmDocs> CpuWarmDocs::Make(const ProblemShape& shape, const SearchPlan& plan) {
  if (shape.num_docs < 1 || shape.dim < 1 || plan.num_chunks != 1) return nullptr;
  const bool rescored_from_source = !KeepsWorkingRows(shape, plan.screen);
  if (rescored_from_source && shape.doc_buffer_bytes_per_row > 0) return nullptr;
  int64_t elements = 0;
  if (__builtin_mul_overflow(shape.num_docs, shape.dim, &elements)) return nullptr;
  // Far beyond any machine, and far enough from overflow for all that is added.
  if (elements > INT64_MAX / (8 * kBoundBytes)) return nullptr;
  return std::unique_ptr<CpuWarmDocs>(new CpuWarmDocs(shape, plan.screen));
}

CpuWarmDocs::CpuWarmDocs(const ProblemShape& shape, ScreenKind screen)
    : num_docs_(shape.num_docs),
      dim_(shape.dim),
      doc_dtype_(shape.doc_dtype),
      compute_dtype_(shape.compute_dtype),
      metric_(shape.metric),
      screen_(screen),
      are_working_rows_(KeepsWorkingRows(shape, screen)) {}

int64_t CpuWarmDocs::item_bytes() const {
  return HasCodes(screen_) ? CodeBytes(num_docs_, dim_, CodeDigits(screen_))
                           : num_docs_ * dim_ * kFloatBytes;
}

int64_t CpuWarmDocs::row_bytes() const { return HugePages::RoundUp(item_bytes()); }

int64_t CpuWarmDocs::bounds_bytes() const {
  if (!HasCodes(screen_)) return num_docs_ * kBoundBytes;
  return num_docs_ *
         (kCodedBoundBytes + (metric_ == Metric::kCosine ? kInverseNormBytes : int64_t{0}));
}

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
  if (!rows_.Allocate(item_bytes())) return false;
  try {
    bounds_.emplace(num_docs_, screen_, metric_);
    if (HasCodes(screen_)) {
      scales_.resize(static_cast<size_t>(num_docs_));
      centre_.resize(static_cast<size_t>(dim_));
    }
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
  scales_ = {};
  centre_ = {};
  counts_ = {};
  state_ = State::kEmpty;
}

KeptDocs CpuWarmDocs::KeptFrom(int64_t doc) {
  if (HasCodes(screen_)) {
    return {.codes = reinterpret_cast<uint8_t*>(rows_.data()) +
                     doc / kPanelDocs * PanelBytes(dim_, CodeDigits(screen_)),
            .scales = scales_.data() + doc,
            .centre = centre_.data()};
  }
  return {.rows = reinterpret_cast<float*>(rows_.data()) + doc * dim_};
}

MatrixView CpuWarmDocs::view() const {
  return {rows_.data(), DType::kFloat32, num_docs_, dim_, dim_ * kFloatBytes};
}

}  // namespace tiny_knn
