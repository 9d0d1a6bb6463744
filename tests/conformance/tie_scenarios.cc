// Ties and near-ties, midpoints, cancellation, order: what a screen, a rounding or a selection gets
// wrong in the last place.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "tests/conformance/float_scenarios.h"
#include "tests/conformance/generator.h"

namespace tiny_knn::conformance {
namespace {

void Uniform(Problem& p, Random& r) { FillUniform(p, r); }

void Bell(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t, int64_t) { return r.Bell(); });
  FillDocs(p, [&](int64_t, int64_t) { return r.Bell(); });
}

// Docs are one row with single elements moved by a few ulps.
void NearTies(Problem& p, Random& r) {
  std::vector<Value> base(p.dim);
  for (Value& value : base) value = r.Unit();
  FillQueries(p, [&](int64_t, int64_t) { return r.Unit(); });
  FillDocs(p, [&](int64_t, int64_t j) { return Step(base[j], p.doc_dtype, 0); });
  for (int64_t i = 0; i < p.num_docs; ++i) {
    const int64_t j = r.Below(p.dim);
    p.d(i, j) = Step(base[j], p.doc_dtype, r.Below(5) - 2);
  }
}

// The same far from zero: the differences lie below what a float32 sum resolves.
void NearTiesOffCentre(Problem& p, Random& r) {
  const Value offset = p.doc_dtype == DType::kFloat16 ? 1000 : 1e6L;
  FillQueries(p, [&](int64_t, int64_t) { return 1 + r.Unit() / 64; });
  FillDocs(p, [&](int64_t, int64_t) { return offset; });
  for (int64_t i = 0; i < p.num_docs; ++i) {
    p.d(i, r.Below(p.dim)) = Step(offset, p.doc_dtype, r.Below(9) - 4);
  }
}

// Neighbouring docs' scores are neighbouring numbers of the doc's dtype: sorting finest of all.
void UlpLadder(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t, int64_t j) { return j == 0 ? Value{1} : Value{0}; });
  FillDocs(p, [&](int64_t i, int64_t j) {
    return j == 0 ? Step(1, p.doc_dtype, (i * 37) % p.num_docs) : r.Unit();
  });
}

void AllEqualRows(Problem& p, Random& r) {
  std::vector<Value> row(p.dim);
  for (Value& value : row) value = r.Unit();
  FillQueries(p, [&](int64_t, int64_t) { return r.Unit(); });
  FillDocs(p, [&](int64_t, int64_t j) { return row[j]; });
}

void AllZero(Problem&, Random&) {}

void ZeroQueries(Problem& p, Random& r) {
  FillDocs(p, [&](int64_t, int64_t) { return r.Unit(); });
}

void ZeroRowsAmongOthers(Problem& p, Random& r) {
  FillUniform(p, r);
  for (int64_t i = 0; i < p.num_docs; i += 3) {
    for (int64_t j = 0; j < p.dim; ++j) p.d(i, j) = i % 2 == 0 ? Value{0} : -Value{0};
  }
  for (int64_t j = 0; j < p.dim; ++j) p.q(p.num_queries - 1, j) = -Value{0};
}

void SignedZeros(Problem& p, Random& r) {
  const std::array<Value, 4> values = {Value{0}, -Value{0}, Value{1}, -Value{1}};
  FillQueries(p, [&](int64_t, int64_t) { return values[r.Below(4)]; });
  FillDocs(p, [&](int64_t, int64_t) { return values[r.Below(4)]; });
}

// Scores of exactly zero reached from both sides: one tie, no -0.
void ZeroScores(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t i, int64_t j) { return j % 2 == 0 ? (i % 2 == 0 ? 1 : -1) : 0; });
  FillDocs(p, [&](int64_t, int64_t j) { return j % 2 == 0 ? (r.OneIn(2) ? 0.0L : -0.0L) : -1.0L; });
}

// Docs are one direction at many lengths, with and without the last bit changed: cosines near 1.
void ParallelRows(Problem& p, Random& r) {
  std::vector<Value> base(p.dim);
  for (Value& value : base) value = Step(r.Unit(), p.doc_dtype, 0);
  FillQueries(p, [&](int64_t, int64_t j) { return base[j]; });
  for (int64_t i = 0; i < p.num_docs; ++i) {
    const Value scale = r.OneIn(2) ? PowerOfTwo(static_cast<int>(r.Below(9)) - 4) : r.Unit();
    for (int64_t j = 0; j < p.dim; ++j) p.d(i, j) = base[j] * scale;
    if (r.OneIn(2)) p.d(i, 0) = Step(p.d(i, 0), p.doc_dtype, 1);
  }
}

void OneHot(Problem& p, Random& r) {
  for (int64_t i = 0; i < p.num_queries; ++i) p.q(i, i % p.dim) = 1;
  for (int64_t i = 0; i < p.num_docs; ++i) p.d(i, r.Below(p.dim)) = r.OneIn(2) ? 1 : -1;
}

void Sparse(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t, int64_t) { return r.OneIn(8) ? r.Unit() : 0; });
  FillDocs(p, [&](int64_t, int64_t) { return r.OneIn(20) ? r.Unit() : 0; });
}

// Every doc beats all before it: nothing the screen learned helps.
void Ascending(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t, int64_t) { return Value{1} + r.Unit() / 4; });
  FillDocs(p, [&](int64_t i, int64_t) { return (Value{1} + i) / 1024; });
}

void Descending(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t, int64_t) { return Value{1} + r.Unit() / 4; });
  FillDocs(p, [&](int64_t i, int64_t) { return Value{1} - (Value{1} + i) / 1024; });
}

// Five rows again and again, so that ties cross every border of tile, block and chunk.
void Duplicates(Problem& p, Random& r) {
  std::vector<Value> rows(5 * p.dim);
  for (Value& value : rows) value = r.Unit();
  FillQueries(p, [&](int64_t, int64_t) { return r.Unit(); });
  FillDocs(p, [&](int64_t i, int64_t j) { return rows[(i % 5) * p.dim + j]; });
}

void SignFlipped(Problem& p, Random& r) {
  std::vector<Value> base(p.dim);
  for (Value& value : base) value = r.Unit();
  FillQueries(p, [&](int64_t i, int64_t j) { return i % 2 == 0 ? base[j] : -base[j]; });
  for (int64_t i = 0; i < p.num_docs; ++i) {
    const int sign = r.OneIn(2) ? 1 : -1;
    for (int64_t j = 0; j < p.dim; ++j) p.d(i, j) = sign * base[j];
  }
}

void AllScoresNegative(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t, int64_t) { return 2 + r.Unit(); });
  FillDocs(p, [&](int64_t, int64_t) { return -2 + r.Unit(); });
}

// Negative near-ties: rounding a bound the wrong way moves it towards zero here.
void NegativeNearTies(Problem& p, Random& r) {
  NearTies(p, r);
  FillQueries(p, [&](int64_t, int64_t) { return 1 + r.Unit() / 8; });
  for (Value& value : p.docs) value = -std::fabs(value) - 1;
  for (int64_t i = 0; i < p.num_docs; ++i) {
    const int64_t j = r.Below(p.dim);
    p.d(i, j) = Step(p.d(i, j), p.doc_dtype, r.Below(5));
  }
}

// The dot is exactly zero, term by huge term.
void ExactCancellation(Problem& p, Random& r) {
  const Value big = p.doc_dtype == DType::kFloat16 ? 200 : 1e12L;
  for (int64_t i = 0; i < p.num_queries; ++i) {
    for (int64_t j = 0; j + 1 < p.dim; j += 2) p.q(i, j) = p.q(i, j + 1) = big * r.Unit();
  }
  for (int64_t i = 0; i < p.num_docs; ++i) {
    for (int64_t j = 0; j + 1 < p.dim; j += 2) {
      p.d(i, j) = big * r.Unit();
      p.d(i, j + 1) = -p.d(i, j);
    }
  }
}

// The same with a remainder far below the terms.
void TinyRemainder(Problem& p, Random& r) {
  ExactCancellation(p, r);
  const Value tiny = p.doc_dtype == DType::kFloat16 ? PowerOfTwo(-20) : PowerOfTwo(-60);
  for (int64_t i = 0; i < p.num_queries; ++i) p.q(i, p.dim - 1) = 1;
  for (int64_t i = 0; i < p.num_docs; ++i) p.d(i, p.dim - 1) = tiny * (r.Below(9) - 4);
}

// Scores halfway between two numbers, and a little to either side.
void Midpoints(Problem& p, Random& r) {
  const int half_ulp = p.compute_dtype == DType::kFloat64 ? -53 : -24;
  const int split = half_ulp / 2;  // as a product, so that float16 holds both factors
  const std::array<Value, 3> tiny = {Value{0}, Value{1}, -Value{1}};
  for (int64_t i = 0; i < p.num_queries; ++i) {
    p.q(i, 0) = i % 2 == 0 ? 1 : -1;
    if (p.dim > 1) p.q(i, 1) = PowerOfTwo(split);
    if (p.dim > 2) p.q(i, 2) = PowerOfTwo(-14);
  }
  for (int64_t i = 0; i < p.num_docs; ++i) {
    p.d(i, 0) = Step(1, p.doc_dtype, r.Below(4));
    if (p.dim > 1) p.d(i, 1) = PowerOfTwo(half_ulp - split) * tiny[r.Below(3)];
    if (p.dim > 2) p.d(i, 2) = PowerOfTwo(half_ulp) * tiny[r.Below(3)];
  }
}

// A midpoint of the score's format and a remainder that float64 loses on the way: the last bit of
// the score is the remainder's sign.
void HiddenRemainders(Problem& p, Random& r) {
  const bool is_double = p.compute_dtype == DType::kFloat64;
  const int half_ulp = is_double ? -43 : -14;  // of scores in [2^10, 2^11)
  const int tiny = is_double ? -120 : (p.doc_dtype == DType::kFloat16 ? -48 : -90);
  const std::array<Value, 3> signs = {Value{0}, Value{1}, -Value{1}};
  const auto put = [&](int64_t j, auto query, auto doc) {
    if (j >= p.dim) return;
    for (int64_t i = 0; i < p.num_queries; ++i) p.q(i, j) = query(i);
    for (int64_t i = 0; i < p.num_docs; ++i) p.d(i, j) = doc(i);
  };
  put(
      0, [](int64_t i) { return i % 2 == 0 ? 1 : -1; },
      [&](int64_t) { return Step(1024, p.doc_dtype, r.Below(4)); });
  put(
      1, [&](int64_t i) { return PowerOfTwo(half_ulp / 2) * (i % 2 == 0 ? 1 : -1); },
      [&](int64_t) { return PowerOfTwo(half_ulp - half_ulp / 2) * (r.OneIn(4) ? 0 : 1); });
  put(
      2, [&](int64_t) { return PowerOfTwo(tiny / 2); },
      [&](int64_t) { return PowerOfTwo(tiny - tiny / 2) * signs[r.Below(3)]; });
}

// Queries far away from docs that lie close together: squared distances tie in blocks, because one
// ulp of them is more than the docs' differences. Only the index decides within a block.
void FarQueries(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t, int64_t) { return 100 + 50 * r.Unit(); });
  const Value near = PowerOfTwo(p.compute_dtype == DType::kFloat64 ? -40 : -14);
  FillDocs(p, [&](int64_t, int64_t) { return near * r.Unit(); });
}

// 1 + j 2^-11 + j^2 2^-24, minus: squares that are midpoints for odd j.
void SquaredMidpoints(Problem& p, Random& r) {
  for (int64_t i = 0; i < p.num_docs; ++i) {
    p.d(i, 0) = 1 + PowerOfTwo(-12) * r.Below(4);
    if (p.dim > 1 && r.OneIn(2)) p.d(i, 1) = PowerOfTwo(-20);
  }
  FillQueries(p, [&](int64_t i, int64_t j) { return j == 1 && i % 2 == 1 ? PowerOfTwo(-20) : 0; });
}

// Eight integers whose squares add up to 2^50 and whose first four add up to twice an odd number:
// against (1, 1, 1, 1, 0, ...) the cosine is exactly a midpoint of float32. Some docs miss it by
// one unit of one component.
void CosineMidpoints(Problem& p, Random& r) {
  constexpr std::array<std::array<int, 8>, 6> kRows = {{
      {14350414, 13523514, 16454173, 13686737, 7927877, 11822386, 8505047, 2014360},
      {14377893, 12441282, 14539971, 14290344, 7980501, 9095250, 12493622, 6801717},
      {12499482, 9929091, 15979744, 14357429, 14147609, 12911070, 5653694, 3282255},
      {15586355, 9824386, 12863067, 10592362, 5099563, 9857768, 16289189, 10966834},
      {13524892, 9287527, 16206694, 13529317, 3011000, 14978415, 11675441, 6425320},
      {12700712, 16172654, 11126163, 16472141, 11200257, 970908, 13433076, 1038365},
  }};
  FillQueries(p, [&](int64_t i, int64_t j) { return j < 4 ? (i % 2 == 0 ? 1 : -1) : 0; });
  for (int64_t i = 0; i < p.num_docs; ++i) {
    const auto& row = kRows[r.Below(6)];
    const int scale = static_cast<int>(r.Below(5)) - 2;
    for (int64_t j = 0; j < std::min<int64_t>(8, p.dim); ++j) {
      p.d(i, j) = PowerOfTwo(scale) * row[j];
    }
    if (r.OneIn(3)) p.d(i, 4 % p.dim) += PowerOfTwo(scale) * (r.OneIn(2) ? 1 : -1);
  }
}

void Clusters(Problem& p, Random& r) {
  std::vector<Value> centres(4 * p.dim);
  for (Value& value : centres) value = 4 * r.Unit();
  FillQueries(p,
              [&](int64_t i, int64_t j) { return centres[(i % 4) * p.dim + j] + r.Unit() / 256; });
  FillDocs(p, [&](int64_t i, int64_t j) { return centres[(i % 4) * p.dim + j] + r.Unit() / 256; });
}

// What a strided sample of the docs sees is the opposite of the rest.
void MisleadingSample(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t, int64_t) { return 1 + r.Unit() / 8; });
  FillDocs(p, [&](int64_t i, int64_t) { return (i % 8 == 0 ? 4 : 1) + r.Unit() / 8; });
}

// Queries are among the docs: distance zero, and what exclude_self is for.
void SelfMatches(Problem& p, Random& r) {
  FillUniform(p, r);
  for (int64_t i = 0; i < std::min(p.num_queries, p.num_docs); ++i) {
    for (int64_t j = 0; j < p.dim; ++j) p.d(i, j) = p.q(i, j);
  }
}

}  // namespace

std::vector<Scenario> TieScenarios() {
  return {
      {"uniform", Uniform},
      {"bell", Bell},
      {"near_ties", NearTies},
      {"near_ties_off_centre", NearTiesOffCentre},
      {"ulp_ladder", UlpLadder},
      {"all_equal_rows", AllEqualRows},
      {"all_zero", AllZero},
      {"zero_queries", ZeroQueries},
      {"zero_rows_among_others", ZeroRowsAmongOthers},
      {"signed_zeros", SignedZeros},
      {"zero_scores", ZeroScores},
      {"parallel_rows", ParallelRows},
      {"one_hot", OneHot},
      {"sparse", Sparse},
      {"ascending", Ascending},
      {"descending", Descending},
      {"duplicates", Duplicates},
      {"sign_flipped", SignFlipped},
      {"all_scores_negative", AllScoresNegative},
      {"negative_near_ties", NegativeNearTies},
      {"exact_cancellation", ExactCancellation},
      {"tiny_remainder", TinyRemainder},
      {"midpoints", Midpoints},
      {"far_queries", FarQueries},
      {"hidden_remainders", HiddenRemainders},
      {"squared_midpoints", SquaredMidpoints},
      {"cosine_midpoints", CosineMidpoints},
      {"clusters", Clusters},
      {"misleading_sample", MisleadingSample},
      {"self_matches", SelfMatches},
  };
}

}  // namespace tiny_knn::conformance
