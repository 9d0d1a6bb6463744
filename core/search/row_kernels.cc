#include "core/search/row_kernels.h"

#include <algorithm>
#include <type_traits>

#include "core/matrix/stored_elements.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/search/row_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h.
#include "core/matrix/load_floats-inl.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tiny_knn::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using load_floats::HWY_NAMESPACE::LoadFloats;
using Wide = hn::ScalableTag<double>;
using WideVec = hn::Vec<Wide>;

HWY_INLINE WideVec LoadWide(const double* values) { return hn::LoadU(Wide(), values); }
HWY_INLINE WideVec LoadWide(const float* values) {
  const hn::Rebind<float, Wide> narrow;
  return hn::PromoteTo(Wide(), hn::LoadU(narrow, values));
}

template <typename Element>
HWY_INLINE WideVec LoadStored(const Element* values) {
  return hn::PromoteTo(Wide(), LoadFloats(hn::Rebind<float, Wide>(), values));
}

HWY_INLINE double SumLanes(WideVec v) { return hn::GetLane(hn::SumOfLanes(Wide(), v)); }

// Four independent chains hide the latency of the additions.
template <typename Element>
HWY_INLINE double DotRows(const double* HWY_RESTRICT q, const Element* HWY_RESTRICT d,
                          int64_t dim) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Wide()));
  WideVec sum0 = hn::Zero(Wide());
  WideVec sum1 = sum0;
  WideVec sum2 = sum0;
  WideVec sum3 = sum0;
  int64_t j = 0;
  for (; j + 4 * lanes <= dim; j += 4 * lanes) {
    sum0 = hn::MulAdd(LoadWide(q + j), LoadStored(d + j), sum0);
    sum1 = hn::MulAdd(LoadWide(q + j + lanes), LoadStored(d + j + lanes), sum1);
    sum2 = hn::MulAdd(LoadWide(q + j + 2 * lanes), LoadStored(d + j + 2 * lanes), sum2);
    sum3 = hn::MulAdd(LoadWide(q + j + 3 * lanes), LoadStored(d + j + 3 * lanes), sum3);
  }
  for (; j + lanes <= dim; j += lanes) {
    sum0 = hn::MulAdd(LoadWide(q + j), LoadStored(d + j), sum0);
  }
  double sum = SumLanes(hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3)));
  for (; j < dim; ++j) sum += q[j] * static_cast<double>(WidenElementAt(d, j));
  return sum;
}

template <typename Row>
HWY_INLINE double SquareRow(const Row* HWY_RESTRICT row, int64_t dim) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Wide()));
  WideVec sum0 = hn::Zero(Wide());
  WideVec sum1 = sum0;
  int64_t j = 0;
  for (; j + 2 * lanes <= dim; j += 2 * lanes) {
    const WideVec a = LoadWide(row + j);
    const WideVec b = LoadWide(row + j + lanes);
    sum0 = hn::MulAdd(a, a, sum0);
    sum1 = hn::MulAdd(b, b, sum1);
  }
  double sum = SumLanes(hn::Add(sum0, sum1));
  for (; j < dim; ++j) sum += static_cast<double>(row[j]) * static_cast<double>(row[j]);
  return sum;
}

double DotImpl(const double* q, const float* d, int64_t dim) { return DotRows(q, d, dim); }

constexpr int64_t kRowsAtOnce = 4;

// Two chains for each of up to four rows, which share the query's values. `next`: the rows that
// come after these, `num_next` of them.
template <int64_t kRows, typename Element>
HWY_INLINE void DotRowsTogether(const float* HWY_RESTRICT q, const void* const* rows, int64_t dim,
                                const void* const* next, int64_t num_next, double* dots) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Wide()));
  WideVec even[kRows];
  WideVec odd[kRows];
  const Element* HWY_RESTRICT at[kRows];
  const Element* ahead[kRows];
  for (int64_t i = 0; i < kRows; ++i) {
    even[i] = hn::Zero(Wide());
    odd[i] = hn::Zero(Wide());
    at[i] = static_cast<const Element*>(rows[i]);
    ahead[i] = num_next > 0 ? static_cast<const Element*>(next[i % num_next]) : at[0];
  }
  int64_t j = 0;
  for (; j + 2 * lanes <= dim; j += 2 * lanes) {
    const WideVec first = LoadWide(q + j);
    const WideVec second = LoadWide(q + j + lanes);
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      hwy::Prefetch(ahead[i] + j);
      even[i] = hn::MulAdd(first, LoadStored(at[i] + j), even[i]);
      odd[i] = hn::MulAdd(second, LoadStored(at[i] + j + lanes), odd[i]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    dots[i] = SumLanes(hn::Add(even[i], odd[i]));
    for (int64_t rest = j; rest < dim; ++rest) {
      dots[i] += static_cast<double>(q[rest]) * static_cast<double>(WidenElementAt(at[i], rest));
    }
  }
}

template <typename Element>
void DotsOf(const float* q, const void* const* rows, int64_t count, int64_t dim, double* dots) {
  int64_t i = 0;
  for (; i + kRowsAtOnce <= count; i += kRowsAtOnce) {
    const void* const* const next = rows + i + kRowsAtOnce;
    DotRowsTogether<kRowsAtOnce, Element>(q, rows + i, dim, next, count - i - kRowsAtOnce,
                                          dots + i);
  }
  switch (count - i) {
    case 3:
      return DotRowsTogether<3, Element>(q, rows + i, dim, nullptr, 0, dots + i);
    case 2:
      return DotRowsTogether<2, Element>(q, rows + i, dim, nullptr, 0, dots + i);
    case 1:
      return DotRowsTogether<1, Element>(q, rows + i, dim, nullptr, 0, dots + i);
    default:
      return;
  }
}

void DotsImpl(const float* q, const void* const* rows, DType stored, int64_t count, int64_t dim,
              double* dots) {
  VisitStoredElement(stored, [&](auto* type) {
    DotsOf<std::remove_const_t<std::remove_pointer_t<decltype(type)>>>(q, rows, count, dim, dots);
  });
}

double SquaredNormFloatImpl(const float* row, int64_t dim) { return SquareRow(row, dim); }
double SquaredNormDoubleImpl(const double* row, int64_t dim) { return SquareRow(row, dim); }

DotAndSquare DotWithSquareImpl(const double* HWY_RESTRICT q, const float* HWY_RESTRICT d,
                               int64_t dim) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Wide()));
  WideVec dot0 = hn::Zero(Wide());
  WideVec dot1 = dot0;
  WideVec square0 = dot0;
  WideVec square1 = dot0;
  int64_t j = 0;
  for (; j + 2 * lanes <= dim; j += 2 * lanes) {
    const WideVec a = LoadWide(d + j);
    const WideVec b = LoadWide(d + j + lanes);
    dot0 = hn::MulAdd(LoadWide(q + j), a, dot0);
    dot1 = hn::MulAdd(LoadWide(q + j + lanes), b, dot1);
    square0 = hn::MulAdd(a, a, square0);
    square1 = hn::MulAdd(b, b, square1);
  }
  DotAndSquare result{SumLanes(hn::Add(dot0, dot1)), SumLanes(hn::Add(square0, square1))};
  for (; j < dim; ++j) {
    const double value = static_cast<double>(d[j]);
    result.dot += q[j] * value;
    result.squared += value * value;
  }
  return result;
}

double SquaredDistanceImpl(const double* HWY_RESTRICT q, const float* HWY_RESTRICT d, int64_t dim) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Wide()));
  WideVec sum0 = hn::Zero(Wide());
  WideVec sum1 = sum0;
  int64_t j = 0;
  for (; j + 2 * lanes <= dim; j += 2 * lanes) {
    const WideVec a = hn::Sub(LoadWide(q + j), LoadWide(d + j));
    const WideVec b = hn::Sub(LoadWide(q + j + lanes), LoadWide(d + j + lanes));
    sum0 = hn::MulAdd(a, a, sum0);
    sum1 = hn::MulAdd(b, b, sum1);
  }
  double sum = SumLanes(hn::Add(sum0, sum1));
  for (; j < dim; ++j) {
    const double difference = q[j] - static_cast<double>(d[j]);
    sum += difference * difference;
  }
  return sum;
}

// Error-free transformations; Dekker's product by Veltkamp's splitting, since not every target has
// a fused multiply-add. a + b = sum + error exactly.
HWY_INLINE void TwoSum(WideVec a, WideVec b, WideVec& sum, WideVec& error) {
  sum = hn::Add(a, b);
  const WideVec b_part = hn::Sub(sum, a);
  error = hn::Add(hn::Sub(a, hn::Sub(sum, b_part)), hn::Sub(b, b_part));
}

HWY_INLINE void Split(WideVec a, WideVec& high, WideVec& low) {
  const WideVec scaled = hn::Mul(a, hn::Set(Wide(), 134217729.0));  // 2^27 + 1
  high = hn::Sub(scaled, hn::Sub(scaled, a));
  low = hn::Sub(a, high);
}

// a * b = product + error exactly, barring underflow of the error and overflow of the splitting.
HWY_INLINE void TwoProduct(WideVec a, WideVec b, WideVec& product, WideVec& error) {
  WideVec a_high;
  WideVec a_low;
  WideVec b_high;
  WideVec b_low;
  Split(a, a_high, a_low);
  Split(b, b_high, b_low);
  product = hn::Mul(a, b);
  WideVec rest = hn::Sub(product, hn::Mul(a_high, b_high));
  rest = hn::Sub(rest, hn::Mul(a_low, b_high));
  rest = hn::Sub(rest, hn::Mul(a_high, b_low));
  error = hn::Sub(hn::Mul(a_low, b_low), rest);
}

// Calls add(a, b) with vectors that cover both rows, the last one padded with zeros.
template <typename Add>
HWY_INLINE void ForEachVector(const double* q, const double* d, int64_t dim, Add add) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Wide()));
  int64_t j = 0;
  for (; j + lanes <= dim; j += lanes) add(LoadWide(q + j), LoadWide(d + j));
  if (j < dim) {
    HWY_ALIGN double q_rest[hn::MaxLanes(Wide())] = {};
    HWY_ALIGN double d_rest[hn::MaxLanes(Wide())] = {};
    for (int64_t i = 0; j + i < dim; ++i) {
      q_rest[i] = q[j + i];
      d_rest[i] = d[j + i];
    }
    add(LoadWide(q_rest), LoadWide(d_rest));
  }
}

// The lanes' sums and corrections as one pair.
HWY_INLINE PairSum Gather(WideVec sum, WideVec correction) {
  HWY_ALIGN double sums[hn::MaxLanes(Wide())];
  HWY_ALIGN double corrections[hn::MaxLanes(Wide())];
  hn::Store(sum, Wide(), sums);
  hn::Store(correction, Wide(), corrections);
  PairSum total{0, 0};
  for (size_t i = 0; i < hn::Lanes(Wide()); ++i) {
    const double high = total.high + sums[i];
    const double part = high - total.high;
    total.low += (total.high - (high - part)) + (sums[i] - part);
    total.low += corrections[i];
    total.high = high;
  }
  return total;
}

PairSum CompensatedDotImpl(const double* q, const double* d, int64_t dim) {
  WideVec sum = hn::Zero(Wide());
  WideVec correction = sum;
  ForEachVector(q, d, dim, [&](WideVec a, WideVec b) HWY_ATTR {
    WideVec product;
    WideVec product_error;
    WideVec sum_error;
    TwoProduct(a, b, product, product_error);
    TwoSum(sum, product, sum, sum_error);
    correction = hn::Add(correction, hn::Add(product_error, sum_error));
  });
  return Gather(sum, correction);
}

PairSum CompensatedSquaredDistanceImpl(const double* q, const double* d, int64_t dim) {
  WideVec sum = hn::Zero(Wide());
  WideVec correction = sum;
  ForEachVector(q, d, dim, [&](WideVec a, WideVec b) HWY_ATTR {
    WideVec difference;
    WideVec difference_error;
    TwoSum(a, hn::Neg(b), difference, difference_error);
    WideVec square;
    WideVec square_error;
    TwoProduct(difference, difference, square, square_error);
    WideVec sum_error;
    TwoSum(sum, square, sum, sum_error);
    // (h + l)^2 = h^2 + 2 h l + l^2; the last is below 2^-106 h^2.
    const WideVec cross = hn::Mul(hn::Add(difference, difference), difference_error);
    correction = hn::Add(correction, hn::Add(hn::Add(square_error, sum_error), cross));
  });
  return Gather(sum, correction);
}

}  // namespace tiny_knn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tiny_knn {

HWY_EXPORT(DotImpl);
HWY_EXPORT(DotsImpl);
HWY_EXPORT(DotWithSquareImpl);
HWY_EXPORT(SquaredDistanceImpl);
HWY_EXPORT(SquaredNormFloatImpl);
HWY_EXPORT(SquaredNormDoubleImpl);
HWY_EXPORT(CompensatedDotImpl);
HWY_EXPORT(CompensatedSquaredDistanceImpl);

double Dot(const double* q, const float* d, int64_t dim) {
  return HWY_DYNAMIC_DISPATCH(DotImpl)(q, d, dim);
}
void Dots(const float* q, const void* const* rows, DType stored, int64_t count, int64_t dim,
          double* dots) {
  HWY_DYNAMIC_DISPATCH(DotsImpl)(q, rows, stored, count, dim, dots);
}
DotAndSquare DotWithSquare(const double* q, const float* d, int64_t dim) {
  return HWY_DYNAMIC_DISPATCH(DotWithSquareImpl)(q, d, dim);
}
double SquaredDistance(const double* q, const float* d, int64_t dim) {
  return HWY_DYNAMIC_DISPATCH(SquaredDistanceImpl)(q, d, dim);
}
double SquaredNorm(const float* row, int64_t dim) {
  return HWY_DYNAMIC_DISPATCH(SquaredNormFloatImpl)(row, dim);
}
double SquaredNorm(const double* row, int64_t dim) {
  return HWY_DYNAMIC_DISPATCH(SquaredNormDoubleImpl)(row, dim);
}
PairSum CompensatedDot(const double* q, const double* d, int64_t dim) {
  return HWY_DYNAMIC_DISPATCH(CompensatedDotImpl)(q, d, dim);
}
PairSum CompensatedSquaredDistance(const double* q, const double* d, int64_t dim) {
  return HWY_DYNAMIC_DISPATCH(CompensatedSquaredDistanceImpl)(q, d, dim);
}

}  // namespace tiny_knn
#endif  // HWY_ONCE
