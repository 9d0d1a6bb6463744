// The vector loop that compares a row of approximate scores with a query's threshold and keeps what
// may still matter. Every instruction set through Highway's dynamic dispatch. Thread-safe.
#pragma once

#include <cstdint>

namespace tiny_knn {

// Per-doc numbers of the screen, for docs [0, n) of a tile. A doc that bypasses the screen has
// upper_offset = +inf and lower_offset = -inf.
struct DocBounds {
  const float* norm;
  const float* upper_offset;
  const float* lower_offset;
  const float* residual = nullptr;  // null: none
};

// Per-query numbers of the screen.
struct QueryBounds {
  float threshold = 0;  // an upper bound below it cannot reach the query's top k
  // The screen's error is at most error_factor * norm + residual_factor * residual + offsets.
  float error_factor = 0;
  float residual_factor = 0;
};

// Docs of a tile whose scores are written, or not, together. A tile has at most 64 groups.
inline constexpr int64_t kGroupDocs = 16;
inline constexpr int64_t kMostTileDocs = 64 * kGroupDocs;
// The groups of so many docs, all of them.
constexpr uint64_t AllGroups(int64_t docs) {
  const int64_t groups = (docs + kGroupDocs - 1) / kGroupDocs;
  return groups >= 64 ? ~uint64_t{0} : (uint64_t{1} << groups) - 1;
}

// What the scores of a tile are compared with.
struct TileBounds {
  const QueryBounds* queries;  // [queries of the tile]
  DocBounds docs;
};

// Where the scores of a tile go.
struct TileScores {
  float* scores;  // [queries of the tile, stride]
  int64_t stride;
  uint64_t*
      groups;  // [queries of the tile]: bit g, whether docs from g * kGroupDocs on may survive
};

// One query's scores in a tile: those of groups that may hold survivors.
struct ScoreRow {
  const float* scores;
  int64_t count;
  uint64_t groups;
};

struct FilterResult {
  int64_t next;  // the first score not looked at: less than the row's count when `room` ran out
  int64_t kept;  // entries written
};

// With E[j] = error_factor * norm[j] + residual_factor * residual[j]: keeps score j >= first of the
// row unless
//   score < (threshold - E[j]) - upper_offset[j]
// , an unordered comparison keeping it (so that NaN survives). For each kept score writes
//   lower = score + (lower_offset[j] - E[j])   (-inf where that is NaN)
//   doc   = first_doc + j
// in order. Writes at most `room` entries, and may overwrite up to kCandidatePadding beyond
// them.
FilterResult FilterScores(const ScoreRow& row, int64_t first, const QueryBounds& query,
                          const DocBounds& docs, int32_t first_doc, float* lower, int32_t* doc,
                          int64_t room);

// The same of `count` docs that lie apart: score i is of the doc docs[i] from where `bounds`
// starts. Returns the number kept; `doc` may be `docs`.
int64_t FilterScoresOf(const int32_t* docs, const float* scores, int64_t count,
                       const QueryBounds& query, const DocBounds& bounds, float* lower,
                       int32_t* doc);

// out[j] = float32(values[j] * factor), rounded once per operation. For rows of unit length.
void ScaleRow(const float* values, double factor, int64_t dim, float* out);
void ScaleRow(const double* values, double factor, int64_t dim, float* out);

}  // namespace tiny_knn
