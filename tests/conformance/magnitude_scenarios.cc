// Magnitudes that break the error bounds of float32 arithmetic: far from zero, near overflow,
// below the least normal number.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "tests/conformance/float_scenarios.h"
#include "tests/conformance/generator.h"

namespace tiny_knn::conformance {
namespace {

void HugeDimension(Problem& p, Random& r) {
  FillUniform(p, r);
  const int64_t huge = p.dim / 2;
  for (int64_t i = 0; i < p.num_docs; ++i) p.d(i, huge) = 30000 + 100 * r.Unit();
  for (int64_t i = 0; i < p.num_queries; ++i) p.q(i, huge) = 2000 * r.Unit();
}

// One dimension huge in docs and zero in queries: norms are useless, scores are small.
void HugeUnusedDimension(Problem& p, Random& r) {
  FillUniform(p, r);
  for (int64_t i = 0; i < p.num_docs; ++i) p.d(i, p.dim - 1) = 30000 * r.Unit();
  for (int64_t i = 0; i < p.num_queries; ++i) p.q(i, p.dim - 1) = 0;
}

void OffCentre(Problem& p, Random& r) {
  const Value offset = p.doc_dtype == DType::kFloat16 ? 1000 : 1e6L;
  FillQueries(p, [&](int64_t, int64_t) { return r.Unit(); });
  FillDocs(p, [&](int64_t, int64_t) { return offset + r.Unit(); });
}

// Both sides far from zero and near each other: l2 is the difference of huge squares.
void OffCentreBoth(Problem& p, Random& r) {
  const Value offset = p.doc_dtype == DType::kFloat16 ? 1000 : 1e6L;
  FillQueries(p, [&](int64_t, int64_t) { return offset + r.Unit(); });
  FillDocs(p, [&](int64_t, int64_t) { return offset + r.Unit(); });
}

void Subnormals(Problem& p, Random& r) {
  const Value tiny = RangeOf(p.doc_dtype).tiniest;
  FillQueries(p, [&](int64_t i, int64_t) {
    return i % 2 == 0 ? r.Unit() * 8 : RangeOf(p.query_dtype).tiniest * (r.Below(41) - 20);
  });
  FillDocs(p, [&](int64_t, int64_t) { return tiny * (r.Below(201) - 100); });
}

void SubnormalsAmongNormals(Problem& p, Random& r) {
  FillUniform(p, r);
  const Value tiny = RangeOf(p.doc_dtype).tiniest;
  for (int64_t i = 0; i < p.num_docs; i += 2) {
    for (int64_t j = 0; j < p.dim; j += 1 + r.Below(3)) p.d(i, j) = tiny * (r.Below(99) - 49);
  }
}

// All docs point away from the queries, and those whose inverse norms float32 cannot hold the
// least: the greatest cosines are theirs.
void OpposedSubnormals(Problem& p, Random& r) {
  const Value tiny = RangeOf(p.doc_dtype).tiniest;
  FillQueries(p, [&](int64_t, int64_t) { return 1 + r.Unit() / 8; });
  FillDocs(p, [&](int64_t i, int64_t) {
    if (i < p.num_docs / 2) return -1 - r.Unit() / 8;
    return r.OneIn(4) ? -tiny * (1 + r.Below(9)) : Value{0};
  });
}

// Every product is below the least float32 and adds up above it; a float32 sum sees nothing, or
// twice as much.
void UnderflowingProducts(Problem& p, Random& r) {
  const int low = RangeOf(DType::kFloat32).min_exponent - 23;  // 2^-149
  const int half = low / 2;
  FillQueries(p, [&](int64_t, int64_t) { return PowerOfTwo(half - 1); });
  FillDocs(p, [&](int64_t i, int64_t) {
    const Value share = i % 3 == 0 ? Value{0.4375} : (i % 3 == 1 ? Value{0.5625} : Value{0.25});
    return PowerOfTwo(low - half + 1) * (share + r.Unit() / 64);
  });
  // And docs whose few products are seen exactly: these set the threshold.
  for (int64_t i = 2; i < p.num_docs; i += 5) {
    const int64_t full = std::max<int64_t>(1, p.dim * 3 / 8);
    for (int64_t j = 0; j < p.dim; ++j) p.d(i, j) = j < full ? PowerOfTwo(low - half + 1) : 0;
  }
}

// Elements of both sides near `scale`.
template <int kExponent>
void Around(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t, int64_t) { return PowerOfTwo(kExponent) * r.Bell(); });
  FillDocs(p, [&](int64_t, int64_t) { return PowerOfTwo(kExponent) * r.Bell(); });
}

// Huge queries against tiny docs: scores near 1 from factors near both ends of the range.
template <int kExponent>
void HugeTimesTiny(Problem& p, Random& r) {
  FillQueries(p, [&](int64_t, int64_t) { return PowerOfTwo(kExponent) * r.Bell(); });
  FillDocs(p, [&](int64_t, int64_t) { return PowerOfTwo(-kExponent) * r.Bell(); });
}

// A float32 sum at its worst. It starts at 1; then every product of the first kind of docs is just
// below half an ulp and vanishes, every product of the second kind just above it and counts double.
// The second kind has a few products less and is really the worse one, but looks better by nearly
// twice the error bound.
void AbsorbedTerms(Problem& p, Random& r) {
  const Value small = PowerOfTwo(-12);
  const Value off = PowerOfTwo(p.doc_dtype == DType::kFloat32 ? -10 : -7);
  FillQueries(p,
              [&](int64_t i, int64_t j) { return (i % 2 == 0 ? 1 : -1) * (j == 0 ? 1 : small); });
  for (int64_t i = 0; i < p.num_docs; ++i) {
    const bool vanishes = r.OneIn(3);
    const int64_t zeros = vanishes ? r.Below(2) : 1 + p.dim / 20 + r.Below(3);
    for (int64_t j = 0; j < p.dim; ++j) {
      p.d(i, j) = j >= p.dim - zeros ? 0 : small * (vanishes ? 1 - off : 1 + off);
    }
    p.d(i, 0) = 1;
  }
}

// Sums that cut off what does not fit instead of rounding it: every product of the first kind of
// docs but one is lost beside that. The second kind has one other product, which fits, and is a
// little worse than the first.
void TruncatedTerms(Problem& p, Random& r) {
  const Value small = PowerOfTwo(-12) * (1 - PowerOfTwo(-6));
  FillQueries(p, [&](int64_t i, int64_t) { return i % 2 == 0 ? 1 : PowerOfTwo(-3); });
  for (int64_t i = 0; i < p.num_docs; ++i) {
    const bool is_cut_off = r.OneIn(2);
    for (int64_t j = 1; j < p.dim; ++j) p.d(i, j) = is_cut_off ? small : 0;
    p.d(i, 0) = PowerOfTwo(11);
    if (!is_cut_off && p.dim > 1) {
      const Value share = (3 + r.Unit()) / 4;  // in [1/2, 1)
      p.d(i, 1) = share * static_cast<Value>(p.dim - 1) * small;
    }
  }
}

// Rows whose norms lie around 2^63, where a float32 dot of two such rows nears overflow.
void NormsNearTheBypass(Problem& p, Random& r) {
  FillQueries(
      p, [&](int64_t i, int64_t) { return PowerOfTwo(58 + static_cast<int>(i % 8)) * r.Unit(); });
  FillDocs(
      p, [&](int64_t i, int64_t) { return PowerOfTwo(56 + static_cast<int>(i % 10)) * r.Unit(); });
}

// Partial sums overflow, the exact sum need not.
void OverflowThatCancels(Problem& p, Random& r) {
  const Value big = std::min(RangeOf(p.doc_dtype).max, RangeOf(DType::kFloat32).max) / 4;
  FillQueries(p, [&](int64_t, int64_t j) { return j == p.dim - 1 ? 1 : 16; });
  FillDocs(p, [&](int64_t, int64_t j) {
    if (j == p.dim - 1) return r.Unit();
    return (j % 2 == 0 ? big : -big) * (j / 2 == (p.dim - 1) / 2 && p.dim % 2 == 0 ? 0 : 1);
  });
  for (int64_t i = 0; i < p.num_docs; i += 7) p.d(i, 0) = r.OneIn(2) ? big / 2 : big * 2;
}

// Scores on both sides of the overflow threshold: the greatest number, or infinity.
void OverflowThreshold(Problem& p, Random& r) {
  const DType score = p.compute_dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  const int exponent = score == DType::kFloat64 ? 511 : 63;
  FillQueries(p, [&](int64_t, int64_t j) { return PowerOfTwo(exponent) * (j == 0 ? 1 : 0); });
  for (int64_t i = 0; i < p.num_docs; ++i) {
    p.d(i, 0) = Step(PowerOfTwo(exponent + 2), p.doc_dtype, r.Below(9) - 6) / 2;
    if (p.dim > 1) p.d(i, 1) = r.Unit();
  }
}

void MaximalValues(Problem& p, Random& r) {
  const Value max = RangeOf(p.doc_dtype).max;
  FillQueries(p, [&](int64_t, int64_t) { return r.OneIn(2) ? 1 : -1; });
  FillDocs(p, [&](int64_t, int64_t) {
    return r.OneIn(8) ? (r.OneIn(2) ? max : -max) : max * r.Unit() / 64;
  });
}

// Every magnitude the dtype has.
void WideRange(Problem& p, Random& r) {
  const auto wide = [&](DType dtype) {
    const Range range = RangeOf(dtype);
    const int low = std::max(range.min_exponent, -300) / 2;
    return PowerOfTwo(low + static_cast<int>(r.Below(-2 * low))) * r.Unit();
  };
  FillQueries(p, [&](int64_t, int64_t) { return wide(p.query_dtype); });
  FillDocs(p, [&](int64_t, int64_t) { return wide(p.doc_dtype); });
}

// Every row its own power of two.
void RowScales(Problem& p, Random& r) {
  const int span = p.doc_dtype == DType::kFloat16 ? 12 : 60;
  FillUniform(p, r);
  for (int64_t i = 0; i < p.num_docs; ++i) {
    const Value scale = PowerOfTwo(static_cast<int>(r.Below(2 * span)) - span);
    for (int64_t j = 0; j < p.dim; ++j) p.d(i, j) *= scale;
  }
}

}  // namespace

std::vector<Scenario> MagnitudeScenarios() {
  return {
      {"huge_dimension", HugeDimension},
      {"huge_unused_dimension", HugeUnusedDimension},
      {"off_centre", OffCentre},
      {"off_centre_both", OffCentreBoth},
      {"subnormals", Subnormals},
      {"subnormals_among_normals", SubnormalsAmongNormals},
      {"underflowing_products", UnderflowingProducts},
      {"around_1e20", Around<66>},
      {"around_1e_minus_20", Around<-66>},
      {"around_1e38", Around<126>},
      {"around_1e_minus_38", Around<-126>},
      {"around_1e_minus_22", Around<-74>},
      {"huge_times_tiny", HugeTimesTiny<60>},
      {"tiny_times_huge", HugeTimesTiny<-120>},
      {"absorbed_terms", AbsorbedTerms},
      {"truncated_terms", TruncatedTerms},
      {"norms_near_the_bypass", NormsNearTheBypass},
      {"overflow_that_cancels", OverflowThatCancels},
      {"overflow_threshold", OverflowThreshold},
      {"maximal_values", MaximalValues},
      {"wide_range", WideRange},
      {"row_scales", RowScales},
      {"opposed_subnormals", OpposedSubnormals},
  };
}

}  // namespace tiny_knn::conformance
