// Integer inputs: sums beyond 2^24, ties at rounding midpoints, conversion of wide integers.
#include <algorithm>
#include <cmath>

#include "tests/conformance/generator.h"

namespace tiny_knn::conformance {
namespace {

// The largest value used where the sum and not the conversion is on trial.
Value Moderate(DType dtype) { return std::min<Value>(RangeOf(dtype).max, 1000); }

template <typename F>
void Fill(Problem& p, F value) {
  for (Value& v : p.queries) v = value(p.query_dtype);
  for (Value& v : p.docs) v = value(p.doc_dtype);
}

// Fits every numeric dtype.
void SmallIntegers(Problem& p, Random& r) {
  Fill(p, [&](DType) { return static_cast<Value>(r.Below(101)); });
}

void SmallSignedIntegers(Problem& p, Random& r) {
  Fill(p, [&](DType) { return static_cast<Value>(r.Below(201) - 100); });
}

void Bits(Problem& p, Random& r) {
  Fill(p, [&](DType) { return static_cast<Value>(r.Below(2)); });
}

void FullRange(Problem& p, Random& r) {
  Fill(p, [&](DType dtype) { return r.Unit() * (RangeOf(dtype).max + 1); });
}

void Extremes(Problem& p, Random& r) {
  Fill(p, [&](DType dtype) {
    const Value max = RangeOf(dtype).max;
    const Value values[4] = {max, -max - 1, max - 1, Value{1}};
    return values[r.Below(4)];
  });
}

// All but the greatest value, a little below it: dots beyond 2^24 whose last bits decide.
void BigDots(Problem& p, Random& r) {
  Fill(p, [&](DType dtype) { return std::min<Value>(RangeOf(dtype).max, 4095) - r.Below(3); });
}

// Odd and even dots around 2^24 and 2^25, where float32 first skips integers: half the scores are
// rounding midpoints and tie with a neighbour.
void DotMidpoints(Problem& p, Random& r) {
  for (Value& v : p.queries) v = Moderate(p.query_dtype);
  for (Value& v : p.docs) v = Moderate(p.doc_dtype) - r.Below(2);
  for (int64_t i = 0; i < p.num_queries; ++i) p.q(i, p.dim - 1) = 1;
  for (int64_t i = 0; i < p.num_docs; ++i) p.d(i, p.dim - 1) = static_cast<Value>(r.Below(5));
}

// Integers next to 2^24 + odd: float32 holds every other one. Wide dtypes round; narrow clamp.
void ConversionMidpoints(Problem& p, Random& r) {
  const auto around = [&](DType dtype) {
    const Value centre =
        dtype == DType::kInt64 && r.OneIn(2) ? std::ldexp(Value{1}, 54) : std::ldexp(Value{1}, 25);
    return (r.OneIn(2) ? 1 : -1) * (centre + r.Below(9));
  };
  Fill(p, around);
}

void SparseIntegers(Problem& p, Random& r) {
  Fill(p, [&](DType dtype) {
    return r.OneIn(10) ? static_cast<Value>(1 + r.Below(static_cast<int64_t>(Moderate(dtype)))) : 0;
  });
}

void AllEqual(Problem& p, Random&) {
  Fill(p, [&](DType dtype) { return Moderate(dtype); });
}

void AllZero(Problem&, Random&) {}

void Duplicates(Problem& p, Random& r) {
  Fill(p, [&](DType) { return static_cast<Value>(r.Below(201) - 100); });
  for (int64_t i = 5; i < p.num_docs; ++i) {
    for (int64_t j = 0; j < p.dim; ++j) p.d(i, j) = p.d(i - 5, j);
  }
}

void Ascending(Problem& p, Random& r) {
  for (Value& v : p.queries) v = static_cast<Value>(1 + r.Below(3));
  for (int64_t i = 0; i < p.num_docs; ++i) {
    for (int64_t j = 0; j < p.dim; ++j) {
      p.d(i, j) = std::floor(Moderate(p.doc_dtype) * (i + 1) / p.num_docs);
    }
  }
}

void ExactCancellation(Problem& p, Random& r) {
  Fill(p, [&](DType dtype) { return r.Unit() * RangeOf(dtype).max; });
  for (int64_t j = 0; j + 1 < p.dim; j += 2) {
    for (int64_t i = 0; i < p.num_queries; ++i) {
      p.q(i, j) = p.q(i, j + 1) = std::nearbyint(p.q(i, j));
    }
    for (int64_t i = 0; i < p.num_docs; ++i) {
      p.d(i, j) = std::nearbyint(p.d(i, j));
      p.d(i, j + 1) = -p.d(i, j) + (r.OneIn(4) ? 1 : 0);
    }
  }
}

void SelfMatches(Problem& p, Random& r) {
  Fill(p, [&](DType dtype) { return std::nearbyint(r.Unit() * Moderate(dtype)); });
  for (int64_t i = 0; i < std::min(p.num_queries, p.num_docs); ++i) {
    for (int64_t j = 0; j < p.dim; ++j) p.d(i, j) = p.q(i, j);
  }
}

}  // namespace

const std::vector<Scenario>& IntegerScenarios() {
  static const std::vector<Scenario>* const scenarios = new std::vector<Scenario>{
      {"small_integers", SmallIntegers},
      {"small_signed_integers", SmallSignedIntegers},
      {"bits", Bits},
      {"full_range", FullRange},
      {"extremes", Extremes},
      {"big_dots", BigDots},
      {"dot_midpoints", DotMidpoints},
      {"conversion_midpoints", ConversionMidpoints},
      {"sparse_integers", SparseIntegers},
      {"all_equal_integers", AllEqual},
      {"all_zero_integers", AllZero},
      {"duplicate_integers", Duplicates},
      {"ascending_integers", Ascending},
      {"exactly_cancelling_integers", ExactCancellation},
      {"self_matching_integers", SelfMatches},
  };
  return *scenarios;
}

}  // namespace tiny_knn::conformance
