#include "core/search/search.h"

namespace tiny_knn {

std::string_view MetricName(Metric metric) {
  switch (metric) {
    case Metric::kInnerProduct:
      return "ip";
    case Metric::kCosine:
      return "cosine";
    case Metric::kL2:
      return "l2";
  }
  return "ip";
}

std::optional<Metric> ParseMetric(std::string_view name) {
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    if (name == MetricName(metric)) return metric;
  }
  return std::nullopt;
}

}  // namespace tiny_knn
