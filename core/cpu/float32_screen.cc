#include "core/cpu/float32_screen.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "core/cpu/float32_squares.h"
#include "core/cpu/gemm.h"
#include "core/cpu/index_range.h"
#include "core/cpu/int8_screen.h"
#include "core/matrix/convert.h"
#include "core/matrix/finite.h"
#include "core/search/outward_rounding.h"
#include "core/search/planner.h"
#include "core/search/row_kernels.h"
#include "core/search/screen_rules.h"

namespace tiny_knn {
namespace {

// Whose docs the planner splits, one pass scores.
static_assert(kFewQueriesPerThread == kFewQueries);

constexpr float kFloatInfinity = std::numeric_limits<float>::infinity();

// Squared norms of doubles in this range are known to full relative accuracy.
constexpr double kLeastSquaredNorm = 0x1p-900;
constexpr double kGreatestSquaredNorm = 0x1p900;
// Rounding both rows to float32 (doubles, and unit rows for cosine): twice 2^-24, doubled.
constexpr double kConversionSlack = 0x1p-22;

// In one pass, rows are scored so many at a time: long streams. And rows that are converted so many
// bytes at a time, which stay in a core's first cache with the queries.
constexpr int64_t kOnePassDocs = 512;
constexpr int64_t kConvertedBytes = int64_t{16} << 10;
// As many of them as are multiplied together, or a multiple.
constexpr int64_t kDocsAtOnce = 4;
// Docs with norms outside these are scored as unit rows for cosine: else a product could leave the
// range of float32, or what underflows be more than the slack of unit rows.
constexpr double kLeastDividedNorm = 0x1p-60;
constexpr double kGreatestDividedNorm = 0x1p60;

// IsFiniteRow for a row whose float64 sum of squares is known. It is finite if and only if a row of
// floats is; doubles may overflow it.
template <typename T>
bool IsFiniteByNorm(const T* row, int64_t dim, double squared_norm) {
  if (std::isfinite(squared_norm)) return true;
  if constexpr (std::is_same_v<T, float>) return false;
  return IsFiniteRow(row, dim);
}

template <typename T>
bool HasAccurateNorm(double squared_norm) {
  return std::is_same_v<T, float> ||
         (squared_norm > kLeastSquaredNorm && squared_norm < kGreatestSquaredNorm);
}

// The row divided by its norm in float32; a zero row stays zero.
template <typename T>
void UnitRow(const T* row, double squared_norm, int64_t dim, float* out) {
  const double norm = std::sqrt(squared_norm);
  ScaleRow(row, norm == 0 ? 0.0 : 1 / norm, dim, out);
}

}  // namespace

template <typename T>
Float32Screen<T>::Float32Screen(const SearchParams& params, int64_t dim, int64_t max_block)
    : params_(params),
      dim_(dim),
      gamma_(Float32DotError(dim)),
      // For the error of the squared norm, half of which is that of the norm, and for rounding that
      // to float32.
      norm_slack_(1 + kSquaredNormError + static_cast<double>(dim + 8) * 0x1p-52),
      max_block_(max_block) {}

template <typename T>
void Float32Screen<T>::SetQueries(std::span<const PreparedQuery<T>> queries) {
  const double root = std::sqrt(static_cast<double>(dim_)) * (1 + 0x1p-50);
  const double n = static_cast<double>(dim_);
  queries_.resize(queries.size() * static_cast<size_t>(dim_));
  query_units_.assign(queries.size(), {});
  error_factors_.assign(queries.size(), 0);
  for (size_t i = 0; i < queries.size(); ++i) {
    const PreparedQuery<T>& query = queries[i];
    QueryUnits& units = query_units_[i];
    float* row = queries_.data() + static_cast<int64_t>(i) * dim_;
    const bool finite = IsFiniteByNorm(query.values, dim_, query.squared_norm);
    bool screened = finite;
    double factor = 0;
    if (params_.metric == Metric::kCosine) {
      screened = finite && HasAccurateNorm<T>(query.squared_norm);
      UnitRow(query.values, screened ? query.squared_norm : 0, dim_, row);
      factor = gamma_ * (1 + 0x1p-10) + 2 * kEvaluationSlack + n * 0x1p-50;
      units.absolute_error = kUnderflow * (3 * root + n);
    } else {
      ScaleRow(query.values, 1, dim_, row);
      screened = finite && query.norm < kNormLimit;
      const double conversion = std::is_same_v<T, double> ? kConversionSlack : 0;
      factor =
          (gamma_ * (1 + 0x1p-10) + kEvaluationSlack + conversion) * query.norm + kUnderflow * root;
      units.absolute_error = kUnderflow * (root * query.norm + n);
      units.is_l2 = params_.metric == Metric::kL2;
      SetSquaredNorm(query.squared_norm, dim_, units);
    }
    error_factors_[i] = screened ? RoundUp(factor) : kFloatInfinity;
    units.screened = error_factors_[i] < kFloatInfinity;
  }
  const int64_t count = static_cast<int64_t>(queries.size());
  few_queries_.Set(queries_.data(), dim_, count <= kFewQueries ? count : 0, dim_);
}

template <typename T>
void Float32Screen<T>::StartChunk(const MatrixView&, const KeptDocs&) {}

template <typename T>
void Float32Screen<T>::StartPreparedChunk(const KeptDocs&) {}

template <typename T>
void Float32Screen<T>::MakeUnitRow(const T* row, double squared_norm, float* out) const {
  UnitRow(row, squared_norm, dim_, out);
}

template <typename T>
bool Float32Screen<T>::AreFloatRows(const MatrixView& rows) const {
  // The GEMM wants rows that do not overlap; repeated rows (stride 0) are copied.
  return std::is_same_v<T, float> && AreWorkingRows<T>(rows, params_.compute_dtype) &&
         rows.row_stride_bytes >= rows.dim * static_cast<int64_t>(sizeof(float));
}

template <typename T>
void Float32Screen<T>::SetBlock(const MatrixView& rows, const KeptDocs& kept) {
  block_ = rows;
  in_place_ = kept.rows == nullptr && params_.metric != Metric::kCosine && AreFloatRows(rows);
  if (in_place_) {
    prepared_rows_ = nullptr;
    screen_rows_ = static_cast<const float*>(rows.data);
    screen_stride_ = rows.row_stride_bytes / static_cast<int64_t>(sizeof(float));
    return;
  }
  prepared_rows_ = kept.rows;
  if (kept.rows == nullptr) {
    block_rows_.resize(static_cast<size_t>(max_block_ * dim_));
    prepared_rows_ = block_rows_.data();
  }
  screen_rows_ = prepared_rows_;
  screen_stride_ = dim_;
}

template <typename T>
void Float32Screen<T>::SetPreparedBlock(const KeptDocs& kept) {
  screen_rows_ = kept.rows;
  screen_stride_ = dim_;
}

template <typename T>
void Float32Screen<T>::SetBounds(double squared_norm, bool finite, int64_t doc,
                                 DocBoundArrays& bounds, double norm_error) const {
  const size_t i = static_cast<size_t>(doc);
  DocOffsets offsets;
  bool screened = finite;
  if (params_.metric == Metric::kCosine) {
    screened = finite && HasAccurateNorm<T>(squared_norm);
    bounds.norm[i] = 1;
  } else {
    const double norm = NormUpperBound(squared_norm * (1 + norm_error), dim_);
    screened = finite && norm < kNormLimit;
    bounds.norm[i] = finite ? RoundUp(norm) : kFloatInfinity;
  }
  if (!screened) {
    offsets = OffsetsOfBypass();
  } else if (params_.metric == Metric::kL2) {
    offsets = OffsetsForL2(squared_norm, dim_, norm_error);
  }
  bounds.upper_offset[i] = offsets.upper;
  bounds.lower_offset[i] = offsets.lower;
}

template <typename T>
double Float32Screen<T>::SetBoundsBySum(const float* row, double sum, int64_t doc,
                                        DocBoundArrays& bounds, PrepareCounts& counts) const {
  const bool close = IsSquaredNorm(sum);
  if (close && params_.metric == Metric::kInnerProduct) {
    // As SetBounds, in a fraction of its time: the norm is far below kNormLimit.
    const size_t at = static_cast<size_t>(doc);
    bounds.norm[at] = static_cast<float>(std::sqrt(sum) * norm_slack_);
    bounds.upper_offset[at] = 0;
    bounds.lower_offset[at] = 0;
    return sum;
  }
  const double squared_norm = close ? sum : SquaredNorm(row, dim_);
  const bool finite = std::isfinite(squared_norm);
  if (!finite) ++counts.nonfinite_rows;
  SetBounds(squared_norm, finite, doc, bounds, close ? kSquaredNormError : 0);
  return squared_norm;
}

template <typename T>
absl::Status Float32Screen<T>::PrepareDocs(IndexRange docs, int64_t first_row, int64_t chunk_offset,
                                           DocBoundArrays& bounds, PrepareCounts& counts) {
  return PrepareRows(block_.Slice(docs.begin, docs.end), first_row + docs.begin,
                     in_place_ ? nullptr : prepared_rows_ + docs.begin * dim_,
                     chunk_offset + docs.begin, bounds, counts);
}

template <typename T>
absl::Status Float32Screen<T>::PrepareRows(const MatrixView& rows, int64_t first_row, float* out,
                                           int64_t first_bound, DocBoundArrays& bounds,
                                           PrepareCounts& counts) const {
  std::vector<double> wide_row;
  if constexpr (std::is_same_v<T, double>) wide_row.resize(static_cast<size_t>(dim_));
  for (int64_t doc = 0; doc < rows.rows; ++doc) {
    const T* row = nullptr;
    float* screen_row = out == nullptr ? nullptr : out + doc * dim_;
    if constexpr (std::is_same_v<T, double>) {
      row = wide_row.data();
      const absl::Status converted =
          ConvertRows<double>(rows.Slice(doc, doc + 1), params_.compute_dtype, first_row + doc,
                              wide_row.data(), dim_, counts.convert);
      if (!converted.ok()) return converted;
    } else if (out == nullptr) {
      row = static_cast<const float*>(rows.Row(doc));
    } else {
      row = screen_row;
      const absl::Status converted =
          ConvertRows<float>(rows.Slice(doc, doc + 1), params_.compute_dtype, first_row + doc,
                             screen_row, dim_, counts.convert);
      if (!converted.ok()) return converted;
    }
    const double squared_norm = SquaredNorm(row, dim_);
    const bool finite = IsFiniteByNorm(row, dim_, squared_norm);
    if (!finite) ++counts.nonfinite_rows;
    SetBounds(squared_norm, finite, first_bound + doc, bounds);
    if (params_.metric == Metric::kCosine) {
      const bool accurate = finite && HasAccurateNorm<T>(squared_norm);
      UnitRow(row, accurate ? squared_norm : 0, dim_, screen_row);
    } else if constexpr (std::is_same_v<T, double>) {
      ScaleRow(row, 1, dim_, screen_row);
    }
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status Float32Screen<T>::PrepareAndScore(const MatrixView& rows, int64_t first_row,
                                               const KeptDocs& kept, int64_t first_bound,
                                               DocBoundArrays& bounds, PrepareCounts& counts,
                                               float* scores, int64_t stride) const {
  if (kept.rows == nullptr && AreFloatRows(rows)) {
    ScoreFloatRows(rows, first_bound, bounds, counts, scores, stride);
    return absl::OkStatus();
  }
  const int64_t row_bytes = dim_ * static_cast<int64_t>(sizeof(float));
  const int64_t group =
      std::max(kDocsAtOnce, kConvertedBytes / row_bytes / kDocsAtOnce * kDocsAtOnce);
  AlignedVector<float> converted(static_cast<size_t>(kept.rows == nullptr ? group * dim_ : 0));
  for (int64_t doc = 0; doc < rows.rows; doc += group) {
    const int64_t end = std::min(doc + group, rows.rows);
    float* const out = kept.rows == nullptr ? converted.data() : kept.rows + doc * dim_;
    const absl::Status prepared =
        PrepareRows(rows.Slice(doc, end), first_row + doc, out, first_bound + doc, bounds, counts);
    if (!prepared.ok()) return prepared;
    few_queries_.Multiply(out, dim_, end - doc, scores + doc, stride, nullptr);
  }
  return absl::OkStatus();
}

template <typename T>
void Float32Screen<T>::ScoreFloatRows(const MatrixView& rows, int64_t first_bound,
                                      DocBoundArrays& bounds, PrepareCounts& counts, float* scores,
                                      int64_t stride) const {
  AlignedVector<float> unit_row;
  double squared_norms[kOnePassDocs];
  for (int64_t first = 0; first < rows.rows; first += kOnePassDocs) {
    const int64_t count = std::min(kOnePassDocs, rows.rows - first);
    few_queries_.Multiply(static_cast<const float*>(rows.Row(first)),
                          rows.row_stride_bytes / static_cast<int64_t>(sizeof(float)), count,
                          scores + first, stride, squared_norms);
    for (int64_t i = 0; i < count; ++i) {
      const float* const row = static_cast<const float*>(rows.Row(first + i));
      const double squared_norm =
          SetBoundsBySum(row, squared_norms[i], first_bound + first + i, bounds, counts);
      if (params_.metric != Metric::kCosine) continue;
      DivideByNorm(row, squared_norm, scores + first + i, stride, unit_row);
    }
  }
}

template <typename T>
void Float32Screen<T>::DivideByNorm(const float* row, double squared_norm, float* scores,
                                    int64_t stride, AlignedVector<float>& scratch) const {
  const double norm = std::sqrt(squared_norm);
  if (norm > kLeastDividedNorm && norm < kGreatestDividedNorm) {
    const float inverse = static_cast<float>(1 / norm);
    for (int64_t query = 0; query < few_queries_.count(); ++query) {
      scores[query * stride] *= inverse;
    }
  } else if (std::isfinite(squared_norm)) {
    scratch.resize(static_cast<size_t>(dim_));
    UnitRow(row, squared_norm, dim_, scratch.data());
    few_queries_.Multiply(scratch.data(), dim_, 1, scores, stride, nullptr);
  }
}

template <typename T>
void Float32Screen<T>::ScoreTile(IndexRange queries, IndexRange docs, const TileBounds&,
                                 const TileScores& scores) const {
  std::fill(scores.groups, scores.groups + queries.size(), AllGroups(docs.size()));
  MultiplyByTransposed(queries_.data() + queries.begin * dim_, dim_, queries.size(),
                       screen_rows_ + docs.begin * screen_stride_, screen_stride_, docs.size(),
                       dim_, scores.scores, scores.stride);
}

template <typename T>
QueryBounds Float32Screen<T>::InitialBounds(int64_t query) const {
  return {-kFloatInfinity, error_factors_[static_cast<size_t>(query)], 0};
}

template <typename T>
float Float32Screen<T>::ThresholdFor(int64_t query, T score) const {
  return tiny_knn::ThresholdFor(query_units_[static_cast<size_t>(query)], score);
}

template <typename T>
T Float32Screen<T>::CertainScore(int64_t query, float lower) const {
  return tiny_knn::CertainScore<T>(query_units_[static_cast<size_t>(query)], lower);
}

template class Float32Screen<float>;
template class Float32Screen<double>;

template <typename T>
std::unique_ptr<Screen<T>> MakeScreen(const SearchParams& params, const SearchPlan& plan,
                                      int64_t dim) {
  switch (plan.screen) {
    case ScreenKind::kFloat32Gemm:
      break;
    case ScreenKind::kInt8Codes:
    case ScreenKind::kInt16Codes:
      if constexpr (std::is_same_v<T, float>) {
        return std::make_unique<Int8Screen>(params, dim, plan.doc_block, CodeDigits(plan.screen));
      }
      break;  // there are no codes of doubles
  }
  return std::make_unique<Float32Screen<T>>(params, dim, plan.doc_block);
}

template std::unique_ptr<Screen<float>> MakeScreen<float>(const SearchParams&, const SearchPlan&,
                                                          int64_t);
template std::unique_ptr<Screen<double>> MakeScreen<double>(const SearchParams&, const SearchPlan&,
                                                            int64_t);

}  // namespace tiny_knn
