#include "core/cpu/int8_screen.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>

#include "core/matrix/convert.h"
#include "core/search/outward_rounding.h"
#include "core/search/row_kernels.h"

namespace tiny_knn {
namespace {

constexpr float kFloatInfinity = std::numeric_limits<float>::infinity();

// Of what is coded, as a scale of codes: beyond these, subnormals or infinities would count.
constexpr float kLeastScale = 0x1p-40F;
constexpr float kGreatestScale = 0x1p40F;
constexpr double kUnit = 0x1p-24;  // u
// Everything that is rounded on the way from codes to a comparison, as a share of |q| (|c| + |s a|
// + |e|): see docs/exactness.md.
constexpr double kRoundingSlack = 0x1p-19;
// Unit rows are rounded to float32: as in the float32 screen.
constexpr double kUnitRowSlack = 0x1p-21;

constexpr int64_t kFloatsOfLine = kCacheLineBytes / sizeof(float);
// Rows are fetched so many docs before they are coded.
constexpr int64_t kRowsAhead = 3;

// Unit rows are made for a doc outside these, whose norm could not be divided by in float32.
constexpr double kLeastNorm = 0x1p-60;
constexpr double kGreatestNorm = 0x1p60;

bool IsCodableScale(float scale) { return scale >= kLeastScale && scale <= kGreatestScale; }

// Upper bounds of norms: of what a row's codes stand for, of what its low digits do, and of what
// the codes leave of it.
struct CodedNorms {
  double coded = 0;
  double low = 0;
  double residual = 0;
};

CodedNorms NormsOf(const CodedRow& row, float scale, int64_t dim) {
  // The sums' own roundings: half of that is left of those in a root.
  const double n = static_cast<double>(dim);
  const double sum_slack = 1 + (n + 8) * kUnit;
  const auto root = [sum_slack](float sum) {
    return std::sqrt(static_cast<double>(sum)) * sum_slack;
  };
  CodedNorms norms;
  norms.low = static_cast<double>(scale * kLowDigit) * root(row.squared_low);
  norms.coded = static_cast<double>(scale) * root(row.squared_high) + norms.low;
  // Squares too small for float32, and the rounding of each residual.
  norms.residual = root(row.squared_residual) + std::sqrt(n) * 0x1p-23 * static_cast<double>(scale);
  norms.residual = (norms.residual + 3 * kUnit * norms.coded) * (1 + 4 * kUnit);
  return norms;
}

}  // namespace

Int8Screen::Int8Screen(const SearchParams& params, int64_t dim, int64_t max_block, int digits)
    : params_(params),
      dim_(dim),
      digits_(digits),
      code_stride_(QueryCodeBytes(dim, digits)),
      units_(params, dim, max_block),
      centre_(static_cast<size_t>(dim)),
      max_block_(max_block) {}

void Int8Screen::SetQueries(std::span<const PreparedQuery<float>> queries) {
  units_.SetQueries(queries);
  query_norms_.assign(queries.size(), 0);
  for (size_t i = 0; i < queries.size(); ++i) {
    query_norms_[i] = params_.metric == Metric::kCosine ? 1 + 0x1p-20 : queries[i].norm;
  }
  CodeQueries();
}

void Int8Screen::CodeQueries() {
  const size_t count = query_norms_.size();
  code_stride_ = QueryCodeBytes(dim_, digits_);
  query_codes_.assign(count * static_cast<size_t>(code_stride_), 0);
  queries_.assign(count, {});
  query_bounds_.assign(count, {});
  QueryScratch scratch;
  scratch.zeros.assign(static_cast<size_t>(dim_), 0);
  scratch.row.resize(static_cast<size_t>(dim_));
  scratch.codes.resize(static_cast<size_t>(digits_ * RowCodeBytes(dim_)));
  for (size_t i = 0; i < count; ++i) CodeQuery(static_cast<int64_t>(i), scratch);
}

bool Int8Screen::AddDigit(int64_t max_block) {
  if (digits_ == 2) return false;
  digits_ = 2;
  was_refined_ = true;
  max_block_ = max_block;
  // Their memory first.
  AlignedVector<uint8_t>().swap(block_panels_);
  AlignedVector<int8_t>().swap(query_codes_);
  CodeQueries();
  SetCentre();
  return true;
}

// The scale, the codes and what they leave.
void Int8Screen::CodeQuery(int64_t query, QueryScratch& scratch) {
  const size_t i = static_cast<size_t>(query);
  CodedQuery& coded = queries_[i];
  QueryBounds& bounds = query_bounds_[i];
  int8_t* const codes = query_codes_.data() + query * code_stride_;
  coded.codes = codes;
  bounds = units_.InitialBounds(query);
  if (std::isinf(bounds.error_factor)) return;  // every doc is kept for it
  const float* const row = units_.query_row(query);
  const float greatest = CentreRow(row, scratch.zeros.data(), dim_, scratch.row.data()).greatest;
  const bool integral = greatest <= kGreatestCode && std::all_of(row, row + dim_, [](float x) {
                          return x == std::nearbyint(x);
                        });
  const float scale = integral ? 1 : greatest / kGreatestCode;
  if (greatest > 0 && !IsCodableScale(scale)) {
    bounds.error_factor = kFloatInfinity;
    return;
  }
  CodedNorms norms;
  int32_t sums[2] = {};  // of high and of low digits
  if (greatest > 0) {
    const CodedRow coded_row =
        EncodeRow(scratch.row.data(), scale, 1 / scale, dim_, digits_, scratch.codes.data());
    norms = NormsOf(coded_row, scale, dim_);
    const uint8_t zero = StoredZero();
    for (int digit = 0; digit < digits_; ++digit) {
      const uint8_t* const stored = scratch.codes.data() + digit * RowCodeBytes(dim_);
      int8_t* const digits = codes + digit * QueryDigitBytes(dim_);
      std::transform(stored, stored + dim_, digits,
                     [zero](uint8_t byte) { return static_cast<int8_t>(byte ^ zero); });
      sums[digit] = std::accumulate(digits, digits + dim_, int32_t{0});
      FillQueryDigits(dim_, digits);
    }
  }
  coded.scale = scale;
  coded.offset = -128 * sums[0];
  coded.low_offset = -128 * (sums[0] + sums[1]);
  // Products of low digits, which are left out, are bounded by this and by what CodeDoc adds to the
  // norm that it is multiplied by.
  const double left =
      std::max(integral ? 0 : norms.residual, norms.low * static_cast<double>(kLowDigit));
  bounds.error_factor = RoundUp(left * (1 + 0x1p-20));
  bounds.residual_factor = RoundUp(query_norms_[i] * (1 + 0x1p-20));
}

void Int8Screen::StartChunk(const MatrixView& sample, const KeptDocs& kept) {
  // The mean of a sample, finite rows only. Any centre is right; a good one makes short rows. So a
  // row that cannot be converted is left to PrepareDocs to complain of.
  std::vector<double> sum(static_cast<size_t>(dim_), 0.0);
  std::vector<float> row(static_cast<size_t>(dim_));
  int64_t taken = 0;
  for (int64_t doc = 0; doc < sample.rows; ++doc) {
    ConvertCounts ignored;
    const absl::Status converted =
        ConvertRows<float>(sample.Slice(doc, doc + 1), params_.compute_dtype, /*first_row=*/0,
                           row.data(), dim_, ignored);
    if (!converted.ok()) continue;
    const double squared_norm = SquaredNorm(row.data(), dim_);
    if (!std::isfinite(squared_norm)) continue;
    if (params_.metric == Metric::kCosine) units_.MakeUnitRow(row.data(), squared_norm, row.data());
    for (int64_t j = 0; j < dim_; ++j) {
      sum[static_cast<size_t>(j)] += static_cast<double>(row[static_cast<size_t>(j)]);
    }
    ++taken;
  }
  for (int64_t j = 0; j < dim_; ++j) {
    const size_t i = static_cast<size_t>(j);
    centre_[i] = taken == 0 ? 0 : static_cast<float>(sum[i] / static_cast<double>(taken));
    if (HasIntegralRows(sample.dtype)) centre_[i] = std::nearbyint(centre_[i]);
  }
  const double squared_norm = SquaredNorm(centre_.data(), dim_);
  if (!(NormUpperBound(squared_norm, dim_) < 0x1p60))
    std::fill(centre_.begin(), centre_.end(), 0.F);
  if (kept.centre != nullptr) std::copy(centre_.begin(), centre_.end(), kept.centre);
  SetCentre();
}

void Int8Screen::StartPreparedChunk(const KeptDocs& kept) {
  std::copy(kept.centre, kept.centre + dim_, centre_.begin());
  SetCentre();
}

void Int8Screen::SetCentre() {
  centre_norm_ = NormUpperBound(SquaredNorm(centre_.data(), dim_), dim_);
  for (size_t i = 0; i < queries_.size(); ++i) {
    const float* const query = units_.query_row(static_cast<int64_t>(i));
    const void* const centre = centre_.data();
    double dot = 0;
    Dots(query, &centre, DType::kFloat32, 1, dim_, &dot);
    queries_[i].centre_dot =
        std::isinf(query_bounds_[i].error_factor) ? 0 : static_cast<float>(dot);
  }
}

void Int8Screen::SetBlock(const MatrixView& rows, const KeptDocs& kept) {
  block_ = rows;
  if (kept.codes != nullptr) return SetPreparedBlock(kept);
  assert(rows.rows <= max_block_);
  block_panels_.resize(static_cast<size_t>(CodeBytes(max_block_, dim_, digits_)));
  block_scales_.resize(static_cast<size_t>(max_block_));
  panels_ = block_panels_.data();
  scales_ = block_scales_.data();
}

void Int8Screen::SetPreparedBlock(const KeptDocs& kept) {
  panels_ = kept.codes;
  scales_ = kept.scales;
}

bool Int8Screen::HasIntegralRows(DType docs) const {
  return params_.metric != Metric::kCosine && (docs == DType::kInt8 || docs == DType::kUInt8);
}

void Int8Screen::CodeDoc(int64_t doc, float greatest, RowAhead ahead, const DocScratch& scratch,
                         uint8_t* codes, int64_t bound_index, DocBoundArrays& bounds) {
  const size_t at = static_cast<size_t>(bound_index);
  float scale = 0;
  CodedNorms norms;
  bool coded = std::isfinite(bounds.upper_offset[at]);
  if (coded) {
    // Small integers are codes themselves, and nothing is left out.
    scale =
        HasIntegralRows(block_.dtype) && greatest <= kGreatestCode ? 1.F : greatest / kGreatestCode;
    if (greatest == 0) {
      std::fill_n(codes, digits_ * RowCodeBytes(dim_), StoredZero());
    } else if (IsCodableScale(scale)) {
      const CodedRow coded_row =
          EncodeRow(scratch.centred.data(), scale, 1 / scale, dim_, digits_, codes, ahead);
      norms = NormsOf(coded_row, scale, dim_);
    } else {
      coded = false;
    }
  }
  if (!coded) {
    std::fill_n(codes, digits_ * RowCodeBytes(dim_), StoredZero());
    scale = 0;
    norms.residual = std::numeric_limits<double>::infinity();  // kept, and refined
  }
  double residual = norms.residual;
  residual += kRoundingSlack * (centre_norm_ + norms.coded + residual);
  if (params_.metric == Metric::kCosine) {
    residual += kUnitRowSlack + static_cast<double>(dim_) * 0x1p-50;
  }
  residual += 0x1p-100;
  // With the query's error factor: what its digits leave times this row's, and its low digits times
  // this row's low ones.
  bounds.coded_norm[at] = RoundUpLoosely(norms.coded + norms.low / static_cast<double>(kLowDigit));
  bounds.residual[at] = RoundUpLoosely(residual);
  scales_[doc] = scale;
}

void Int8Screen::MakeUnitRow(const float* row, DocScratch& scratch, int64_t bound_index,
                             DocBoundArrays& bounds, PrepareCounts& counts) const {
  const double squared_norm = SquaredNorm(row, dim_);
  const bool finite = std::isfinite(squared_norm);
  if (!finite) ++counts.nonfinite_rows;
  units_.SetBounds(squared_norm, finite, bound_index, bounds);
  const double norm = std::sqrt(squared_norm);
  bounds.inverse_norm[static_cast<size_t>(bound_index)] =
      norm > kLeastNorm && norm < kGreatestNorm ? static_cast<float>(1 / norm) : 0;
  if (finite) units_.MakeUnitRow(row, squared_norm, scratch.row.data());
}

absl::Status Int8Screen::PrepareDocs(IndexRange docs, int64_t first_row, int64_t chunk_offset,
                                     DocBoundArrays& bounds, PrepareCounts& counts) {
  const int64_t code_bytes = digits_ * RowCodeBytes(dim_);
  DocScratch scratch;
  scratch.row.resize(static_cast<size_t>(dim_));
  scratch.centred.resize(static_cast<size_t>(dim_));
  scratch.codes.resize(static_cast<size_t>(std::min(docs.size(), kLaneDocs) * code_bytes));
  const bool in_place = AreWorkingRows<float>(block_, params_.compute_dtype);
  const bool unit_rows = params_.metric == Metric::kCosine;
  int64_t first_of_lanes = docs.begin;  // of those not in their panel yet
  for (int64_t doc = docs.begin; doc < docs.end; ++doc) {
    const float* row = scratch.row.data();
    if (in_place) {
      row = static_cast<const float*>(block_.Row(doc));
    } else {
      const absl::Status converted =
          ConvertRows<float>(block_.Slice(doc, doc + 1), params_.compute_dtype, first_row + doc,
                             scratch.row.data(), dim_, counts.convert);
      if (!converted.ok()) return converted;
    }
    if (unit_rows) {
      MakeUnitRow(row, scratch, chunk_offset + doc, bounds, counts);
      row = scratch.row.data();
    }
    const CentredRow centred = CentreRow(row, centre_.data(), dim_, scratch.centred.data());
    if (!unit_rows) {
      units_.SetBoundsBySum(row, centred.squared_norm, chunk_offset + doc, bounds, counts);
    }
    RowAhead ahead;
    if (doc + kRowsAhead < docs.end) {
      ahead = {block_.Row(doc + kRowsAhead), ItemSize(block_.dtype)};
    }
    CodeDoc(doc, centred.greatest, ahead, scratch,
            scratch.codes.data() + (doc - first_of_lanes) * code_bytes, chunk_offset + doc, bounds);
    if ((doc + 1) % kLaneDocs != 0 && doc + 1 < docs.end) continue;
    PutInPanel(scratch.codes.data(), dim_, digits_, first_of_lanes % kPanelDocs,
               doc + 1 - first_of_lanes,
               panels_ + first_of_lanes / kPanelDocs * PanelBytes(dim_, digits_));
    first_of_lanes = doc + 1;
  }
  return absl::OkStatus();
}

void Int8Screen::ScoreTile(IndexRange queries, IndexRange docs, const TileBounds& bounds,
                           const TileScores& scores) const {
  const CodedDocs coded{panels_ + docs.begin / kPanelDocs * PanelBytes(dim_, digits_),
                        scales_ + docs.begin, docs.size(), digits_};
  ScoreCodes(queries_.data() + queries.begin, queries.size(), coded, dim_, bounds, scores);
}

void Int8Screen::RefineScores(int64_t query, std::span<const int32_t> docs,
                              const void* const* stored, const ChunkRows<float>& rows,
                              const DocBoundArrays& bounds, Scratch& scratch, float* scores) const {
  const bool unit_rows = params_.metric == Metric::kCosine;
  const float* const query_row = units_.query_row(query);
  if (rows.are_widened_exactly() && !unit_rows) {
    Float32Dots(query_row, stored, rows.stored_dtype(), static_cast<int64_t>(docs.size()), dim_,
                scores);
    return;
  }
  const void* group_rows[kMostDots];
  // As many as there is scratch memory for.
  for (size_t first = 0; first < docs.size(); first += kMostDots) {
    const size_t count = std::min(docs.size() - first, size_t{kMostDots});
    float factors[kMostDots];
    for (size_t i = 0; i < count; ++i) {
      std::vector<float>& row_scratch = scratch.rows[i];
      const int32_t doc = docs[first + i];
      const float* row = rows.WorkingRow(stored[first + i], row_scratch);
      group_rows[i] = row;
      if (!unit_rows) continue;
      factors[i] = bounds.inverse_norm[static_cast<size_t>(doc)];
      if (factors[i] != 0) continue;
      row_scratch.resize(static_cast<size_t>(dim_));
      units_.MakeUnitRow(row, SquaredNorm(row, dim_), row_scratch.data());
      group_rows[i] = row_scratch.data();
      factors[i] = 1;
    }
    Float32Dots(query_row, group_rows, DType::kFloat32, static_cast<int64_t>(count), dim_,
                scores + first);
    if (!unit_rows) continue;
    for (size_t i = 0; i < count; ++i) scores[first + i] *= factors[i];
  }
}

void Int8Screen::PrefetchQuery(int64_t query) const {
  const float* const row = units_.query_row(query);
  for (int64_t j = 0; j < dim_; j += kFloatsOfLine) __builtin_prefetch(row + j);
}

QueryBounds Int8Screen::InitialBounds(int64_t query) const {
  return query_bounds_[static_cast<size_t>(query)];
}

float Int8Screen::CandidateErrorFactor(int64_t query) const {
  return digits_ == 1 || was_refined_ ? units_.CandidateErrorFactor(query) : 0;
}

float Int8Screen::ThresholdFor(int64_t query, float score) const {
  return units_.ThresholdFor(query, score);
}

float Int8Screen::CertainScore(int64_t query, float lower) const {
  return units_.CertainScore(query, lower);
}

}  // namespace tiny_knn
