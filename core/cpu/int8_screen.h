// The int8 screen: rows as 8-bit codes with a scale each, multiplied in integers without error.
// What a code leaves of its row, the residual, is known by its norm, and so is how far a sum of
// products can be from the dot product. docs/exactness.md derives the bound.
//
//   q.d  =  q.c + t s (b.a) + f.(s a) + q.e       |f.(s a) + q.e|  <=  |f| |s a| + |q| |e|
//
// c: the centre of the docs, d - c = s a + e with codes a, q = t b + f with codes b. Integers that
// fit are codes themselves, with a scale of 1 and no residual: docs of int8 and uint8 files, less a
// centre of integers, and queries that are integers in any dtype.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/cpu/float32_screen.h"
#include "core/cpu/int8_kernels.h"
#include "core/cpu/screen.h"
#include "core/matrix/aligned_vector.h"

namespace tiny_knn {

// Dims for which sums of products fit in 32 bits.
inline constexpr int64_t kMostInt8Dim = 65536;

// For working type float. What is the same for every arithmetic, the units G and which threshold
// follows from which score, is the float32 screen's.
class Int8Screen : public Screen<float>, private CandidateRefiner<float> {
 public:
  // Holds codes of up to `max_block` docs, with one or two digits. REQUIRES: dim <= kMostInt8Dim.
  Int8Screen(const SearchParams& params, int64_t dim, int64_t max_block, int digits);

  void SetQueries(std::span<const PreparedQuery<float>> queries) override;
  void StartChunk(const MatrixView& sample, const KeptDocs& kept) override;
  bool wants_sample() const override { return true; }
  void StartPreparedChunk(const KeptDocs& kept) override;
  void SetBlock(const MatrixView& rows, const KeptDocs& kept) override;
  void SetPreparedBlock(const KeptDocs& kept) override;
  absl::Status PrepareDocs(IndexRange docs, int64_t first_row, int64_t chunk_offset,
                           DocBoundArrays& bounds, PrepareCounts& counts) override;
  void ScoreTile(IndexRange queries, IndexRange docs, const TileBounds& bounds,
                 const TileScores& scores) const override;
  QueryBounds InitialBounds(int64_t query) const override;
  bool AddDigit(int64_t max_block) override;
  const CandidateRefiner<float>* refiner() const override { return digits_ == 1 ? this : nullptr; }
  float CandidateErrorFactor(int64_t query) const override;
  bool candidates_are_coded() const override { return digits_ == 2; }
  float ThresholdFor(int64_t query, float score) const override;
  float CertainScore(int64_t query, float lower) const override;

 private:
  struct DocScratch {
    AlignedVector<float> row;      // where converted, or made of unit length for cosine
    AlignedVector<float> centred;  // less the centre
    AlignedVector<uint8_t> codes;  // [up to kLaneDocs, digits_, RowCodeBytes(dim)]
  };
  struct QueryScratch {
    AlignedVector<float> zeros;    // [dim]
    AlignedVector<float> row;      // [dim]
    AlignedVector<uint8_t> codes;  // [digits_, RowCodeBytes(dim)]
  };
  void CodeQueries();
  void CodeQuery(int64_t query, QueryScratch& scratch);
  // Whether rows of docs of that dtype are integers as the metric wants them.
  bool HasIntegralRows(DType docs) const;
  void SetCentre();  // to centre_: what else follows from it
  // The doc's values as the metric wants them, less the centre, are in scratch.centred, none
  // greater than that. Writes codes [digits_, RowCodeBytes(dim)].
  void CodeDoc(int64_t doc, float greatest, RowAhead ahead, const DocScratch& scratch,
               uint8_t* codes, int64_t bound_index, DocBoundArrays& bounds);
  // For cosine: sets the bounds, and makes the row one of unit length, in scratch.row, unless it is
  // not finite.
  void MakeUnitRow(const float* row, DocScratch& scratch, int64_t bound_index,
                   DocBoundArrays& bounds, PrepareCounts& counts) const;
  void RefineScores(int64_t query, std::span<const int32_t> docs, const void* const* stored,
                    const ChunkRows<float>& rows, const DocBoundArrays& bounds, Scratch& scratch,
                    float* scores) const override;
  void PrefetchQuery(int64_t query) const override;

  const SearchParams params_;
  const int64_t dim_;
  int digits_;
  bool was_refined_ = false;  // by one digit, before there was another
  int64_t code_stride_;       // of queries
  Float32Screen<float> units_;
  AlignedVector<int8_t> query_codes_;  // [num_queries, code_stride_]
  std::vector<CodedQuery> queries_;
  std::vector<QueryBounds> query_bounds_;
  std::vector<double> query_norms_;
  AlignedVector<float> centre_;  // [dim]
  double centre_norm_ = 0;       // upper bound
  MatrixView block_;
  uint8_t* panels_ = nullptr;  // of the block
  float* scales_ = nullptr;    // [docs of the block]
  // Where nobody else keeps them.
  int64_t max_block_;
  AlignedVector<uint8_t> block_panels_;
  std::vector<float> block_scales_;
};

}  // namespace tiny_knn
