#include "gpu/emulation/gemm.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "gpu/emulation/random.h"

namespace tiny_knn::emulation {
namespace {

constexpr int kFloatBits = 24;
constexpr int kMaxBlock = 16;

float FlushSubnormal(float value) {
  return std::fabs(value) < std::numeric_limits<float>::min() ? std::copysign(0.0F, value) : value;
}

// `value` with no more than 24 bits, the others cut off. |value| < 2^62.
int64_t CutToFloat(int64_t value) {
  const auto magnitude = static_cast<uint64_t>(value < 0 ? -value : value);
  const int excess = static_cast<int>(std::bit_width(magnitude)) - kFloatBits;
  if (excess <= 0) return value;
  const auto cut = static_cast<int64_t>((magnitude >> excess) << excess);
  return value < 0 ? -cut : cut;
}

// 2^exponent, which is a normal double.
double PowerOfTwo(int exponent) {
  return std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52);
}

// The exponent of a double that is 0 or normal, as all products of floats are; 0: kNone or less,
// infinite or NaN: kNotFinite.
constexpr int kNone = -1023;
constexpr int kNotFinite = 1024;
int ExponentOf(double value) {
  return static_cast<int>((std::bit_cast<uint64_t>(value) >> 52) & 0x7ff) - 1023;
}

// sum + the products of one block.
float AddBlock(const GemmModel& model, float sum, const double* products, int count) {
  int exponent = ExponentOf(sum);
  for (int i = 0; i < count; ++i) exponent = std::max(exponent, ExponentOf(products[i]));
  if (exponent == kNotFinite) {
    double all = sum;
    for (int i = 0; i < count; ++i) all += products[i];
    return static_cast<float>(all);
  }
  if (exponent == kNone) return sum;
  // In units of the last place of the greatest term; casts cut off.
  const int unit = exponent - (kFloatBits - 1) - model.extra_bits;
  const double scale = PowerOfTwo(-unit);
  auto aligned = static_cast<int64_t>(sum * scale);
  for (int i = 0; i < count; ++i) aligned += static_cast<int64_t>(products[i] * scale);
  const double result = static_cast<double>(CutToFloat(aligned)) * PowerOfTwo(unit);
  return FlushSubnormal(static_cast<float>(result));
}

float TensorCoreDot(const GemmModel& model, std::span<const float> a, std::span<const float> b,
                    size_t begin, size_t end) {
  float sum = 0;
  double products[kMaxBlock];
  for (size_t i = begin; i < end;) {
    int count = 0;
    for (; count < model.block && i < end; ++i, ++count) {
      const uint32_t term = model.order[i];
      products[count] = static_cast<double>(a[term]) * static_cast<double>(b[term]);
    }
    sum = AddBlock(model, sum, products, count);
  }
  return sum;
}

float Float32Dot(const GemmModel& model, std::span<const float> a, std::span<const float> b,
                 size_t begin, size_t end) {
  float sum = 0;
  for (size_t i = begin; i < end; ++i) {
    const uint32_t term = model.order[i];
    // The product is exact in double.
    const double product = static_cast<double>(a[term]) * static_cast<double>(b[term]);
    sum = FlushSubnormal(static_cast<float>(product + static_cast<double>(sum)));
  }
  return sum;
}

}  // namespace

GemmModel MakeGemmModel(GemmRounding rounding, size_t k, uint64_t seed) {
  GemmModel model;
  model.rounding = rounding;
  model.order.resize(k);
  std::iota(model.order.begin(), model.order.end(), 0U);
  if (seed == 0) return model;
  Random random(seed);
  random.Shuffle(model.order);
  const int step = static_cast<int>(random() % 3);
  model.block = 4 << step;
  model.extra_bits = static_cast<int>(random() % 3);
  model.parts = 1 << (random() % 3);
  return model;
}

float RoundedDot(const GemmModel& model, std::span<const float> a, std::span<const float> b) {
  const size_t k = model.order.size();
  const auto parts = static_cast<size_t>(model.parts);
  float sum = 0;
  for (size_t part = 0; part < parts; ++part) {
    const size_t begin = k * part / parts;
    const size_t end = k * (part + 1) / parts;
    const float of_part = model.rounding == GemmRounding::kTensorCore
                              ? TensorCoreDot(model, a, b, begin, end)
                              : Float32Dot(model, a, b, begin, end);
    sum = part == 0 ? of_part : FlushSubnormal(sum + of_part);
  }
  return sum;
}

float CutToTf32(float value) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) & ~0x1fffU);
}

}  // namespace tiny_knn::emulation
