#include "tests/conformance/generator.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "core/matrix/convert.h"
#include "tests/conformance/float_scenarios.h"

namespace tiny_knn::conformance {

static_assert(std::numeric_limits<Value>::digits >= 64, "Value must hold every int64");

uint64_t Random::Next() {
  uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

int64_t Random::Below(int64_t n) { return static_cast<int64_t>(Next() % static_cast<uint64_t>(n)); }

Value Random::Unit() {
  return static_cast<Value>(static_cast<int64_t>(Next() >> 39) - (int64_t{1} << 24)) / (1 << 24);
}

Value Random::Bell() { return (Unit() + Unit() + Unit() + Unit()) / 2; }

Range RangeOf(DType dtype) {
  const auto floating = [](int mantissa_bits, int min_exponent, int max_exponent) {
    return Range{std::ldexp(2 - std::ldexp(Value{1}, -mantissa_bits), max_exponent),
                 std::ldexp(Value{1}, min_exponent),
                 std::ldexp(Value{1}, min_exponent - mantissa_bits), mantissa_bits, min_exponent};
  };
  const auto integer = [](Value max) { return Range{max, 1, 1, 0, 0}; };
  switch (dtype) {
    case DType::kBool:
      return integer(1);
    case DType::kInt8:
      return integer(127);
    case DType::kUInt8:
      return integer(255);
    case DType::kInt16:
      return integer(32767);
    case DType::kInt32:
      return integer(2147483647);
    case DType::kInt64:
      return integer(static_cast<Value>(std::numeric_limits<int64_t>::max()));
    case DType::kFloat16:
      return floating(10, -14, 15);
    case DType::kBFloat16:
      return floating(7, -126, 127);
    case DType::kFloat32:
      return floating(23, -126, 127);
    case DType::kFloat64:
      return floating(52, -1022, 1023);
  }
  return integer(1);
}

Value Step(Value value, DType dtype, int64_t steps) {
  const Range range = RangeOf(dtype);
  if (!IsFloatingPoint(dtype)) return value + static_cast<Value>(steps);
  const int exponent = value == 0 ? range.min_exponent : std::ilogb(value);
  const Value ulp =
      std::ldexp(Value{1}, std::max(exponent, range.min_exponent) - range.mantissa_bits);
  const Value on_grid = std::nearbyint(value / ulp) * ulp;
  return on_grid + std::copysign(ulp, value) * static_cast<Value>(steps);
}

namespace {

// The lowest value of an integer dtype.
Value LowestInteger(DType dtype) {
  if (dtype == DType::kBool || dtype == DType::kUInt8) return 0;
  return -RangeOf(dtype).max - 1;
}

template <typename T>
void PutBytes(T value, std::byte* out) {
  std::memcpy(out, &value, sizeof(value));
}

void StoreOne(Value value, DType dtype, std::byte* out) {
  if (dtype == DType::kFloat64) return PutBytes(static_cast<double>(value), out);
  if (dtype == DType::kFloat32) return PutBytes(static_cast<float>(value), out);
  if (dtype == DType::kFloat16) return PutBytes(Float64ToFloat16(static_cast<double>(value)), out);
  if (dtype == DType::kBFloat16) {
    return PutBytes(Float64ToBFloat16(static_cast<double>(value)), out);
  }
  const Value low = LowestInteger(dtype);
  if (low == 0) value = std::fabs(value);
  const int64_t integer =
      std::isnan(value)
          ? 0
          : static_cast<int64_t>(std::clamp(std::nearbyint(value), low, RangeOf(dtype).max));
  switch (dtype) {
    case DType::kBool:
    case DType::kUInt8:
      return PutBytes(static_cast<uint8_t>(integer), out);
    case DType::kInt8:
      return PutBytes(static_cast<int8_t>(integer), out);
    case DType::kInt16:
      return PutBytes(static_cast<int16_t>(integer), out);
    case DType::kInt32:
      return PutBytes(static_cast<int32_t>(integer), out);
    default:
      return PutBytes(integer, out);
  }
}

}  // namespace

const std::vector<Scenario>& FloatScenarios() {
  static const std::vector<Scenario>* const all = [] {
    auto* const list = new std::vector<Scenario>;
    for (const auto& part :
         {TieScenarios(), MagnitudeScenarios(), NonFiniteScenarios(), CodeScenarios()}) {
      list->insert(list->end(), part.begin(), part.end());
    }
    return list;
  }();
  return *all;
}

const Scenario& FindScenario(std::string_view name) {
  for (const auto* list : {&FloatScenarios(), &IntegerScenarios()}) {
    for (const Scenario& scenario : *list) {
      if (scenario.name == name) return scenario;
    }
  }
  std::fprintf(stderr, "no scenario is called %.*s\n", static_cast<int>(name.size()), name.data());
  std::abort();
}

StoredMatrix Store(const std::vector<Value>& values, DType dtype, int64_t rows, int64_t dim,
                   int64_t extra_stride_bytes, int64_t offset_bytes) {
  const int64_t item = ItemSize(dtype);
  const int64_t stride = dim * item + extra_stride_bytes;
  StoredMatrix stored;
  // What lies between rows must never be read: fill it with bytes that are NaN in every format.
  stored.bytes.assign(offset_bytes + rows * stride, std::byte{0xFF});
  std::byte* const base = stored.bytes.data() + offset_bytes;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < dim; ++j) {
      StoreOne(values[i * dim + j], dtype, base + i * stride + j * item);
    }
  }
  stored.view = MatrixView{base, dtype, rows, dim, stride};
  return stored;
}

}  // namespace tiny_knn::conformance
