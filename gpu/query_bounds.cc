#include "gpu/query_bounds.h"

#include <cmath>
#include <limits>

#include "core/search/rounded_score.h"
#include "core/search/screen_rules.h"
#include "gpu/row_bounds.h"

namespace tiny_knn {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Covers the roundings of E and of what is compared with it, as a share of E.
constexpr double kErrorSlack = 1 + 0x1p-19;
// Roundings of s that grow with |q| |d|: of scales, of the product with them, of int32 to float32.
constexpr double kScoreSlack = 0x1p-20;
// Cosine: the float64 norms behind the scales, and what underflows of products of rows whose norms
// are at least kLeastCosineNorm, both for each dim.
constexpr double kCosineSlackPerDim = 0x1p-50 + 0x1p-44;

}  // namespace

QueryBounds BoundsOfQuery(const RowSums& sums, Metric metric, GemmKind gemm, int64_t dim) {
  const bool is_cosine = metric == Metric::kCosine;
  const double n = static_cast<double>(dim);
  const double norm = NormUpperBound(sums.squared_norm, dim);
  const RowBounds row = BoundsOfRow(is_cosine, norm, NormUpperBound(sums.squared_residual, dim),
                                    std::sqrt(sums.squared_norm));
  QueryBounds query;
  query.norms = {norm, sums.squared_norm};
  double share = GemmError(gemm, dim) * (1 + 0x1p-10) + kScoreSlack + kEvaluationSlack;
  double factor = 0;
  if (is_cosine) {
    share += n * kCosineSlackPerDim;
    factor = share * row.gemm_norm + row.residual;
  } else {
    const double root = std::sqrt(n) * (1 + 0x1p-50);
    factor = share * row.gemm_norm + row.residual + kUnderflow * root;
    query.units.absolute_error = kUnderflow * (root * row.gemm_norm + n);
    query.units.is_l2 = metric == Metric::kL2;
    SetSquaredNorm(sums.squared_norm, dim, query.units);
  }
  query.screen.scale = row.scale;
  query.screen.error_factor = row.screened ? RoundUp(factor * kErrorSlack) : kInfinity;
  query.screen.residual_factor = row.screened ? RoundUp(row.norm * kErrorSlack) : 0;
  query.units.screened = query.screen.error_factor < kInfinity;
  return query;
}

}  // namespace tiny_knn
