// The rounding models are as bad as they are meant to be, and no worse than what has been measured
// of GPUs.
#include "gpu/emulation/gemm.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace tiny_knn::emulation {
namespace {

float TensorDot(const std::vector<float>& a, const std::vector<float>& b, int block = 4,
                int extra_bits = 0) {
  GemmModel model = MakeGemmModel(GemmRounding::kTensorCore, a.size(), 0);
  model.block = block;
  model.extra_bits = extra_bits;
  return RoundedDot(model, a, b);
}

TEST(Gemm, ATensorCoreCutsOffWhatDoesNotAlign) {
  // 1 + 7 * 2^-24: each small term is below the last place of 1 and is lost, unless bits are kept.
  const std::vector<float> a = {1,        0x1p-12F, 0x1p-12F, 0x1p-12F,
                                0x1p-12F, 0x1p-12F, 0x1p-12F, 0x1p-12F};
  std::vector<float> b(8, 0x1p-12F);
  b[0] = 1;
  EXPECT_EQ(TensorDot(a, b), 1.0F);
  EXPECT_EQ(TensorDot(a, b, 8, 1), 1.0F + 3 * 0x1p-23F);
  // In blocks of four: 1 + 3 * 2^-24 is cut to 1 + 2^-23, then four more: 1 + 3 * 2^-23.
  EXPECT_EQ(TensorDot(a, b, 4, 1), 1.0F + 3 * 0x1p-23F);
  // Cut off, not rounded to nearest: towards zero on both sides.
  EXPECT_EQ(TensorDot({1, 1}, {1, 0x1.fp-24F}), 1.0F);
  EXPECT_EQ(TensorDot({-1, 1}, {1, -0x1.fp-24F}), -1.0F);
}

TEST(Gemm, SmallIntegersAreExactInEveryModel) {
  std::mt19937_64 random(1);
  for (uint64_t seed = 0; seed < 50; ++seed) {
    std::vector<float> a(97), b(97);
    double expected = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      a[i] = static_cast<float>(static_cast<int>(random() % 201) - 100);
      b[i] = static_cast<float>(static_cast<int>(random() % 201) - 100);
      expected += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    }
    for (const GemmRounding rounding : {GemmRounding::kTensorCore, GemmRounding::kFloat32}) {
      EXPECT_EQ(RoundedDot(MakeGemmModel(rounding, a.size(), seed), a, b), expected);
    }
  }
}

// The bound that the engine assumes of tensor cores: (n + 32) 2^-22 |a||b|. And the models differ
// from the exact sum, and from each other, or they would test nothing.
TEST(Gemm, ErrorsStayWithinTheAssumedBoundAndAreNotNothing) {
  std::mt19937_64 random(2);
  double worst = 0;
  int different = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const size_t n = 1 + random() % 300;
    std::vector<float> a(n), b(n);
    double exact = 0, of_a = 0, of_b = 0;
    for (size_t i = 0; i < n; ++i) {
      // 11 bits each, as of float16 and TF32.
      a[i] = static_cast<float>(static_cast<int>(random() % 4095) - 2047);
      b[i] = std::ldexp(static_cast<float>(random() % 2048), -static_cast<int>(random() % 12));
      exact += static_cast<double>(a[i]) * static_cast<double>(b[i]);
      of_a += static_cast<double>(a[i]) * static_cast<double>(a[i]);
      of_b += static_cast<double>(b[i]) * static_cast<double>(b[i]);
    }
    const float rounded = RoundedDot(MakeGemmModel(GemmRounding::kTensorCore, n, seed), a, b);
    const float otherwise = RoundedDot(MakeGemmModel(GemmRounding::kTensorCore, n, seed + 1), a, b);
    different += rounded != otherwise;
    const double bound =
        (static_cast<double>(n) + 32) * 0x1p-22 * std::sqrt(of_a) * std::sqrt(of_b);
    if (bound > 0) worst = std::max(worst, std::fabs(static_cast<double>(rounded) - exact) / bound);
  }
  EXPECT_LE(worst, 1);
  EXPECT_GT(worst, 1e-4);
  EXPECT_GT(different, 100);
}

TEST(Gemm, InfinitiesAndNansStay) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(TensorDot({1, infinity, 3}, {1, 2, 3}), infinity);
  EXPECT_TRUE(std::isnan(TensorDot({1, infinity, infinity}, {1, 2, -3})));
  EXPECT_TRUE(std::isnan(TensorDot({infinity}, {0})));
  EXPECT_EQ(TensorDot({0x1p100F, 0x1p100F}, {0x1p100F, 1}), infinity);
}

TEST(Gemm, SubnormalSumsAreFlushed) {
  EXPECT_EQ(TensorDot({0x1p-100F}, {0x1p-40F}), 0.0F);
  const GemmModel model = MakeGemmModel(GemmRounding::kFloat32, 1, 0);
  EXPECT_EQ(RoundedDot(model, std::vector<float>{0x1p-100F}, std::vector<float>{0x1p-40F}), 0.0F);
}

TEST(Gemm, Tf32IsCutOff) {
  EXPECT_EQ(CutToTf32(1 + 0x1.8p-10F), 1 + 0x1p-10F);
  EXPECT_EQ(CutToTf32(-1 - 0x1.ffp-11F), -1.0F);
}

}  // namespace
}  // namespace tiny_knn::emulation
