// The loops of the int8 screen: rows to codes, and products of codes. Thread-safe. Without
// HasInt8DotProducts (core/search/isa.h) they give the same numbers, slower than float32
// arithmetic.
//
// A row's code has one digit or two, of eight bits: code = high + low / 256. Codes of docs lie in
// panels of kPanelDocs docs, for each digit [kPanelDocs / kLaneDocs][steps][kLaneDocs][4] bytes,
// steps = CodeSteps(dim): four dims of one doc side by side, as a dot product instruction for 8-bit
// integers takes them.
// Where tiles multiply them (HasInt8Tiles) they are stored as they are, else as digit + 128,
// unsigned: StoredZero. Codes of queries lie in rows of signed bytes. What fills up the last step
// is a digit of 0 on both sides.
#pragma once

#include <cstdint>

#include "core/cpu/screen_kernels.h"
#include "core/search/isa.h"

namespace tiny_knn {

inline constexpr int64_t kPanelDocs = 64;
inline constexpr int64_t kLaneDocs = 16;  // of a vector
inline constexpr int64_t kStepBytes = 4 * kLaneDocs;
inline constexpr int kGreatestCode = 127;    // of one digit
inline constexpr float kLowDigit = 0x1p-8F;  // what a low digit counts

// A doc's digit of 0 as it is stored, and what any digit as a byte is xored with.
inline uint8_t StoredZero() { return HasInt8Tiles() ? 0 : 0x80; }

// Groups of four dims.
inline int64_t CodeSteps(int64_t dim) { return (dim + 3) / 4; }
// Of one digit.
inline int64_t DigitBytes(int64_t dim) { return CodeSteps(dim) * kPanelDocs * 4; }
// From the codes of a doc to those of the one kLaneDocs on in its panel.
inline int64_t LaneBytes(int64_t dim) { return CodeSteps(dim) * kStepBytes; }
inline int64_t PanelBytes(int64_t dim, int digits) { return digits * DigitBytes(dim); }
// Of the panels that hold so many docs.
inline int64_t CodeBytes(int64_t docs, int64_t dim, int digits) {
  return (docs + kPanelDocs - 1) / kPanelDocs * PanelBytes(dim, digits);
}

struct CentredRow {
  float greatest = 0;       // magnitude of a component; any value where one is not finite
  double squared_norm = 0;  // of the row as it was: core/cpu/float32_squares.h
};
// out[j] = values[j] - centre[j] in float32.
CentredRow CentreRow(const float* values, const float* centre, int64_t dim, float* out);

// Of one digit of a doc on its way to a panel: `dim`, and what fills up a line, of which the last
// step's are digits of 0.
inline int64_t RowCodeBytes(int64_t dim) {
  constexpr int64_t kLine = 64;
  return (dim + kLine - 1) / kLine * kLine;
}

// Sums in float32, in no particular order, of at most dim + 8 terms.
struct CodedRow {
  float squared_high = 0;      // of high^2
  float squared_low = 0;       // of low^2; 0 of codes with one digit
  float squared_residual = 0;  // of (value - scale * code)^2
};
// A row that is fetched into cache while another one is coded.
struct RowAhead {
  const void* row = nullptr;  // [dim]; null: none
  int64_t item_bytes = 0;
};
// values[j] ~ scale * code, digits of at most kGreatestCode in magnitude, stored as
// codes[digit * RowCodeBytes(dim) + j]. `inverse` is about 1 / scale: which codes come out is no
// matter of correctness, what is returned is of those. REQUIRES: |values[j]| <= kGreatestCode *
// scale, but for some roundings.
CodedRow EncodeRow(const float* values, float scale, float inverse, int64_t dim, int digits,
                   uint8_t* codes, RowAhead ahead = {});

// Bytes of a query's digits: those, and zeros up to a multiple of kQueryCodeLine; then, where zeros
// were added to rows longer than that, the row's last kQueryCodeLine bytes once more, with zeros
// for what is in whole lines before; an odd number of lines in all, so that rows spread over a
// cache.
inline constexpr int64_t kQueryCodeLine = 64;
inline int64_t QueryDigitBytes(int64_t dim) {
  const int64_t bytes = 4 * CodeSteps(dim);
  const int64_t lines = (bytes + kQueryCodeLine - 1) / kQueryCodeLine;
  const bool has_tail = bytes % kQueryCodeLine != 0 && lines > 1;
  return ((lines + (has_tail ? 1 : 0)) | 1) * kQueryCodeLine;
}
inline int64_t QueryCodeBytes(int64_t dim, int digits) { return digits * QueryDigitBytes(dim); }
// What follows the first `dim` bytes of a query's digits, which are there.
void FillQueryDigits(int64_t dim, int8_t* codes);

// Codes [count, digits, RowCodeBytes(dim)] of the panel's docs from `first` on to where they
// belong: of docs that share lanes, all kLaneDocs of them in less time than each alone.
void PutInPanel(const uint8_t* codes, int64_t dim, int digits, int64_t first, int64_t count,
                uint8_t* panel);

// A query as the products take it.
struct CodedQuery {
  const int8_t* codes = nullptr;  // [digits, QueryDigitBytes]
  int32_t offset = 0;             // of docs stored unsigned: -128 * the sum of its high digits
  int32_t low_offset = 0;         // the same: -128 * the sum of all its digits
  float scale = 0;
  float centre_dot = 0;  // what the score of a doc at the centre is
};

// Docs as the products take them.
struct CodedDocs {
  const uint8_t* panels = nullptr;
  const float* scales = nullptr;
  int64_t count = 0;
  int digits = 1;
};

// Row i of out.scores, d: queries[i].centre_dot + (queries[i].scale * docs.scales[d]) * products,
// each operation rounded once, the last two fused. `products` is the exact sum of products of high
// digits, as a float; with two digits, to which kLowDigit times that of a high and a low one is
// added, fused: products of low digits are left out. Docs begin at a panel; the queries' codes lie
// QueryCodeBytes apart, in their order. Scores of a group without a survivor need not be written.
void ScoreCodes(const CodedQuery* queries, int64_t num_queries, const CodedDocs& docs, int64_t dim,
                const TileBounds& bounds, const TileScores& out);

}  // namespace tiny_knn
