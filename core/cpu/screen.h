// Screening: approximate scores at the machine's cheapest rate, each with a proved error bound.
//
// A screen works in units of its own, G, monotone in the score for a given query:
//   ip      G = q.d                    score = G
//   cosine  G = q.d / (|q| |d|)        score = G
//   l2      G = q.d - |d|^2 / 2        score = 2 G - |q|^2
// and gives for each pair an approximation s of q.d (of unit rows for cosine) with
//   s + lower_offset - E  <=  G  <=  s + upper_offset + E
//   E = error_factor * norm + residual_factor * residual      (norm, residual: of the doc)
// up to an absolute term that ThresholdFor and CertainScore add. docs/exactness.md derives the
// numbers; core/cpu/screen_kernels.h evaluates them. Each arithmetic is a subclass.
//
// What survives is a candidate, with the same bounds. A screen that is less exact has a
// CandidateRefiner: its survivors are screened again, and candidates have the bounds of float32
// arithmetic,
//   E = CandidateErrorFactor * norm
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/cpu/chunk_rows.h"
#include "core/cpu/float32_dots.h"
#include "core/cpu/index_range.h"
#include "core/cpu/screen_kernels.h"
#include "core/matrix/convert.h"
#include "core/matrix/matrix_view.h"
#include "core/search/planner.h"
#include "core/search/rounded_score.h"
#include "core/search/search.h"

namespace tiny_knn {

// Per-doc numbers of a chunk, [capacity] each.
struct DocBoundArrays {
  // For docs of that metric and screen.
  DocBoundArrays(int64_t capacity, ScreenKind screen, Metric metric)
      : norm(static_cast<size_t>(capacity)),
        upper_offset(static_cast<size_t>(capacity)),
        lower_offset(static_cast<size_t>(capacity)) {
    if (!HasCodes(screen)) return;
    coded_norm.resize(static_cast<size_t>(capacity));
    residual.resize(static_cast<size_t>(capacity));
    if (metric == Metric::kCosine) inverse_norm.resize(static_cast<size_t>(capacity));
  }

  DocBounds At(int64_t doc) const {
    return {(coded_norm.empty() ? norm.data() : coded_norm.data()) + doc, upper_offset.data() + doc,
            lower_offset.data() + doc, residual.empty() ? nullptr : residual.data() + doc};
  }

  // The same for candidates of float32 arithmetic.
  DocBounds CandidatesAt(int64_t doc) const {
    return {norm.data() + doc, upper_offset.data() + doc, lower_offset.data() + doc};
  }

  // E of what At is for.
  double ErrorOf(int64_t doc, const QueryBounds& query) const {
    const DocBounds at = At(doc);
    const double error = static_cast<double>(query.error_factor) * static_cast<double>(*at.norm);
    if (at.residual == nullptr) return error;
    return error + static_cast<double>(query.residual_factor) * static_cast<double>(*at.residual);
  }

  std::vector<float> norm;  // upper bound on the row's norm where the metric needs it
  std::vector<float> upper_offset;
  std::vector<float> lower_offset;
  // Of screens with codes, else empty: upper bounds on the norms of what a row's codes stand for,
  // and of what they leave. Then the first stands for `norm` in E.
  std::vector<float> coded_norm;
  std::vector<float> residual;
  // Of screens with codes and cosine, else empty: about 1 / |d|, or 0 where that or what is
  // multiplied by it could leave the range of float32.
  std::vector<float> inverse_norm;
};

// Where a screen leaves what it made of docs, for other searches: of the docs from a first one on,
// which is a multiple of kTileDocs. Null pointers: nowhere. What a screen does not make stays
// unused.
struct KeptDocs {
  float* rows = nullptr;     // [docs, dim]
  uint8_t* codes = nullptr;  // panels, core/cpu/int8_kernels.h
  float* scales = nullptr;   // [docs]
  float* centre = nullptr;   // [dim], of all docs
};

// What preparing docs noticed.
struct PrepareCounts {
  int64_t nonfinite_rows = 0;
  ConvertCounts convert;
};

// At most so many docs make a screen's sample of a chunk.
inline constexpr int64_t kChunkSampleDocs = 256;

// Where tiles of docs may begin.
inline constexpr int64_t kTileDocs = 64;

// As many docs as are refined at once.
inline constexpr int64_t kMostRefined = 32;

// Screens docs one by one, in float32, as candidates want it.
template <typename T>
class CandidateRefiner {
 public:
  virtual ~CandidateRefiner() = default;

  // What one thread needs for itself.
  struct Scratch {
    std::vector<T> rows[kMostDots];
  };

  // scores[i] ~ query, doc docs[i] of the chunk whose bounds are given: stored[i] is its row, there
  // or elsewhere, as the chunk's `rows` are stored. Any thread.
  virtual void RefineScores(int64_t query, std::span<const int32_t> docs, const void* const* stored,
                            const ChunkRows<T>& rows, const DocBoundArrays& bounds,
                            Scratch& scratch, float* scores) const = 0;

  // Starts to fetch the query into cache. Any thread.
  virtual void PrefetchQuery(int64_t query) const = 0;
};

// `T` is the working type: float, or double for compute dtype float64. Methods that say so may run
// on several threads at once; the others are called from one thread between them.
template <typename T>
class Screen {
 public:
  virtual ~Screen() = default;

  // Takes a batch of queries, [num_queries, dim]. They must outlive their use.
  virtual void SetQueries(std::span<const PreparedQuery<T>> queries) = 0;

  // Starts a chunk of docs: blocks come from it until the next one. `sample`: rows of the file's
  // dtype that stand for it, spread over it; none where wants_sample() is false.
  virtual void StartChunk(const MatrixView& sample, const KeptDocs& kept) = 0;
  virtual bool wants_sample() const { return false; }

  // Starts a chunk whose docs were all prepared before.
  virtual void StartPreparedChunk(const KeptDocs& kept) = 0;

  // Starts a block of docs to be prepared: rows of the file's dtype, valid until the next block.
  // What is made of them is written to `kept`, which may serve SetPreparedBlock as long as it
  // lives, or where null to memory of the screen's own, if it has to be written at all.
  virtual void SetBlock(const MatrixView& rows, const KeptDocs& kept) = 0;

  // Starts a block of docs that a screen of the same metric, dim and compute dtype prepared
  // before: `kept` as it was written then, the bounds as they were filled then.
  virtual void SetPreparedBlock(const KeptDocs& kept) = 0;

  // Prepares docs `docs` of the block: converts where needed, fills the bounds of those docs at
  // `bounds` + `chunk_offset` + doc. `first_row` is the block's first doc in the file, for
  // messages. Any thread, disjoint docs.
  virtual absl::Status PrepareDocs(IndexRange docs, int64_t first_row, int64_t chunk_offset,
                                   DocBoundArrays& bounds, PrepareCounts& counts) = 0;

  // Row i of scores, j ~ query queries.begin + i, doc docs.begin + j of the block, as far as they
  // may survive the bounds: of those queries, and of docs from docs.begin on. docs.begin is a
  // multiple of kTileDocs, docs.size() at most kMostTileDocs. Any thread.
  virtual void ScoreTile(IndexRange queries, IndexRange docs, const TileBounds& bounds,
                         const TileScores& scores) const = 0;

  // Whether PrepareAndScore may take the place of SetBlock, PrepareDocs and ScoreTile: where
  // queries are few, and reading the docs is what takes the time.
  virtual bool scores_in_one_pass() const { return false; }

  // Prepares docs and scores them for all queries while their rows are at hand: `rows` of the
  // file's dtype, the first of them row `first_row` of the file. Writes the bounds of those docs
  // from `first_bound` on, what is made of them to `kept` unless null, and scores[i * stride + j] ~
  // query i, doc j. Any thread, disjoint docs. REQUIRES: scores_in_one_pass().
  virtual absl::Status PrepareAndScore(const MatrixView& /*rows*/, int64_t /*first_row*/,
                                       const KeptDocs& /*kept*/, int64_t /*first_bound*/,
                                       DocBoundArrays& /*bounds*/, PrepareCounts& /*counts*/,
                                       float* /*scores*/, int64_t /*stride*/) const {
    return absl::InternalError("this screen does not score docs while it prepares them");
  }

  // With a threshold of -inf. Any thread.
  virtual QueryBounds InitialBounds(int64_t query) const = 0;

  // Goes on with a screen of the same kind that needs no refiner: from the next block on, which has
  // at most `max_block` docs. False where there is none. What it changes is in InitialBounds.
  virtual bool AddDigit(int64_t /*max_block*/) { return false; }

  // Null where what is compared is as exact as candidates want it.
  virtual const CandidateRefiner<T>* refiner() const { return nullptr; }

  // The error factor of candidates with the bounds of float32 arithmetic. 0 where there are none.
  // Any thread.
  virtual float CandidateErrorFactor(int64_t query) const = 0;
  // Whether candidates, but for those of before AddDigit, have the bounds that At gives.
  virtual bool candidates_are_coded() const { return false; }

  // The threshold in G below which no upper bound can belong to a doc whose score ranks at or above
  // `score`, a correctly rounded score; ties are kept. -inf when nothing may be dropped. Any
  // thread.
  virtual float ThresholdFor(int64_t query, T score) const = 0;

  // A score that every doc with at least this lower bound certainly reaches. Any thread.
  virtual T CertainScore(int64_t query, float lower) const = 0;
};

// The screen that the plan asks for.
template <typename T>
std::unique_ptr<Screen<T>> MakeScreen(const SearchParams& params, const SearchPlan& plan,
                                      int64_t dim);

}  // namespace tiny_knn
