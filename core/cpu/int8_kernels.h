// The loops of the int8 screen: rows to codes, and products of codes. Thread-safe. Without
// HasInt8DotProducts (core/search/isa.h) they give the same numbers, slower than float32
// arithmetic.
//
// Codes of docs lie in panels of kPanelDocs docs, [steps][kPanelDocs][4] bytes, steps =
// CodeSteps(dim): four dims of one doc side by side, as a dot product instruction for 8-bit
// integers takes them. They are stored as code + 128, unsigned. Codes of queries lie in rows of 4 *
// steps signed bytes. What fills up the last step is a code of 0 on both sides.
#pragma once

#include <cstdint>

namespace tiny_knn {

inline constexpr int64_t kPanelDocs = 64;
inline constexpr int kGreatestCode = 127;
inline constexpr uint8_t kZeroCode = 128;  // a doc's code of 0 as it is stored

// Groups of four dims.
inline int64_t CodeSteps(int64_t dim) { return (dim + 3) / 4; }
inline int64_t PanelBytes(int64_t dim) { return CodeSteps(dim) * kPanelDocs * 4; }
// Of the panels that hold so many docs.
inline int64_t CodeBytes(int64_t docs, int64_t dim) {
  return (docs + kPanelDocs - 1) / kPanelDocs * PanelBytes(dim);
}

// out[j] = values[j] - centre[j] in float32, and the greatest magnitude among them (NaN and
// infinities: any value; such a row has no codes).
float CentreRow(const float* values, const float* centre, int64_t dim, float* out);

struct CodedRow {
  int64_t squared_codes = 0;   // sum of code^2
  float squared_residual = 0;  // sum of (value - scale * code)^2, in float32 arithmetic
};
// codes[j] ~ values[j] / scale, at most kGreatestCode in magnitude, stored as code + 128. `inverse`
// is about 1 / scale: which codes come out is no matter of correctness, what is returned is of
// those.
CodedRow EncodeRow(const float* values, float scale, float inverse, int64_t dim, uint8_t* codes);

// Codes [dim] of the panel's doc `doc` to where they belong. The last step is filled up.
void PutInPanel(const uint8_t* codes, int64_t dim, int64_t doc, uint8_t* panel);

// A query as the products take it.
struct CodedQuery {
  const int8_t* codes = nullptr;  // [4 * steps]
  int32_t offset = 0;             // -128 * the sum of its codes
  float scale = 0;
  float centre_dot = 0;  // what the score of a doc at the centre is
};

// scores[i * stride + d] = queries[i].centre_dot + (queries[i].scale * doc_scales[d]) * (sum of
// products of codes), for d in [0, num_docs): each operation rounded once, the last two fused. Docs
// [0, num_docs) begin at a panel.
void ScoreCodes(const CodedQuery* queries, int64_t num_queries, const uint8_t* panels,
                const float* doc_scales, int64_t num_docs, int64_t dim, float* scores,
                int64_t stride);

}  // namespace tiny_knn
