// From a query's sums to what kernels ask of it.
#pragma once

#include <cstdint>

#include "core/search/search.h"
#include "gpu/cublas_gemm.h"
#include "gpu/device_types.h"

namespace tiny_knn {

struct QueryBounds {
  QueryScreen screen;
  QueryUnits units;
  QueryNorms norms;
};

// `sums`: of the query in float64, as PrepareRows makes them. docs/exactness.md has the derivation.
QueryBounds BoundsOfQuery(const RowSums& sums, Metric metric, GemmKind gemm, int64_t dim);

}  // namespace tiny_knn
