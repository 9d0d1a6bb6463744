#include "capi/handles.h"

#include <algorithm>
#include <array>
#include <optional>

#include "core/job/job_spec.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr std::array<std::pair<tknn_dtype, DType>, 10> kDTypes = {{
    {TKNN_DTYPE_FLOAT32, DType::kFloat32},
    {TKNN_DTYPE_FLOAT64, DType::kFloat64},
    {TKNN_DTYPE_FLOAT16, DType::kFloat16},
    {TKNN_DTYPE_BFLOAT16, DType::kBFloat16},
    {TKNN_DTYPE_INT8, DType::kInt8},
    {TKNN_DTYPE_UINT8, DType::kUInt8},
    {TKNN_DTYPE_INT16, DType::kInt16},
    {TKNN_DTYPE_INT32, DType::kInt32},
    {TKNN_DTYPE_INT64, DType::kInt64},
    {TKNN_DTYPE_BOOL, DType::kBool},
}};

}  // namespace

absl::StatusOr<Metric> MetricOf(tknn_metric metric) {
  switch (metric) {
    case TKNN_METRIC_IP:
      return Metric::kInnerProduct;
    case TKNN_METRIC_COSINE:
      return Metric::kCosine;
    case TKNN_METRIC_L2:
      return Metric::kL2;
    default:
      return absl::InvalidArgumentError(
          fmt::format("metric {} is none; expected a TKNN_METRIC_...", metric));
  }
}

absl::StatusOr<DType> DTypeOf(tknn_dtype dtype) {
  const auto* const found = std::find_if(kDTypes.begin(), kDTypes.end(),
                                         [&](const auto& pair) { return pair.first == dtype; });
  if (found != kDTypes.end()) return found->second;
  return absl::InvalidArgumentError(
      fmt::format("dtype {} is none; expected a TKNN_DTYPE_...", dtype));
}

tknn_dtype FromDType(DType dtype) {
  const auto* const found = std::find_if(kDTypes.begin(), kDTypes.end(),
                                         [&](const auto& pair) { return pair.second == dtype; });
  return found->first;
}

absl::StatusOr<std::optional<DType>> StoredDTypeOf(tknn_dtype dtype) {
  if (dtype == TKNN_DTYPE_AS_STORED) return std::nullopt;
  const absl::StatusOr<DType> given = DTypeOf(dtype);
  if (!given.ok()) return given.status();
  return std::optional<DType>(*given);
}

absl::StatusOr<SearchParams> ParamsOf(const tknn_search_params& params) {
  const absl::StatusOr<Metric> metric = MetricOf(params.metric);
  if (!metric.ok()) return metric.status();
  const absl::StatusOr<DType> dtype = DTypeOf(params.compute_dtype);
  if (!dtype.ok()) return dtype.status();
  return SearchParams{params.k, *metric, *dtype, params.exclude_self != 0};
}

absl::StatusOr<SearchLimits> LimitsOf(const tknn_search_params& params) {
  if (params.threads < 0 || params.threads > kMostThreads) {
    return absl::InvalidArgumentError(fmt::format(
        "threads={}: must be 1 to {}, or 0 for one per CPU", params.threads, kMostThreads));
  }
  if (params.memory_limit_bytes < 0) {
    return absl::InvalidArgumentError(
        fmt::format("memory_limit_bytes={}: must be at least 1, or 0 for 75% of what is available",
                    params.memory_limit_bytes));
  }
  if (params.batch_size < 0) {
    return absl::InvalidArgumentError(fmt::format(
        "batch_size={}: must be at least 1, or 0 for as many queries as fit", params.batch_size));
  }
  return SearchLimits{params.threads, params.memory_limit_bytes, params.batch_size};
}

tknn_report FromReport(const SearchReport& report) {
  tknn_report out = {};
  out.nonfinite_query_rows = report.nonfinite_query_rows;
  out.nonfinite_doc_rows = report.nonfinite_doc_rows;
  out.infs_made_in_queries = report.infs_made_in_queries;
  out.infs_made_in_docs = report.infs_made_in_docs;
  out.queries_with_tie_at_k = report.queries_with_tie_at_k;
  out.rescored_pairs = report.rescored_pairs;
  return out;
}

absl::Status CheckGiven(std::initializer_list<std::pair<const char*, const void*>> pointers) {
  for (const auto& [name, pointer] : pointers) {
    if (pointer == nullptr) return absl::InvalidArgumentError(fmt::format("{} is NULL", name));
  }
  return absl::OkStatus();
}

}  // namespace tiny_knn
