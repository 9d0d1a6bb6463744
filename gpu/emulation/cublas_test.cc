// cublasGemmEx multiplies what it is given, in every type that the engine asks for, on its stream.
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/matrix/convert.h"
#include "cublas_v2.h"
#include "gmock/gmock.h"
#include "gpu/emulation/emulation.h"
#include "gpu/emulation/test_device_array.h"
#include "gpu/emulation/violation.h"
#include "gtest/gtest.h"

namespace tiny_knn::emulation {
namespace {

constexpr int kN = 3, kK = 12;
constexpr int kStrideA = 16, kStrideB = 12, kStrideC = 12;

class CublasTest : public testing::TestWithParam<uint64_t> {
 protected:
  void SetUp() override { ASSERT_EQ(cublasCreate(&handle_), CUBLAS_STATUS_SUCCESS); }
  void TearDown() override { EXPECT_EQ(cublasDestroy(handle_), CUBLAS_STATUS_SUCCESS); }

  // Small integers: exact in every type.
  template <typename T, typename Make>
  std::vector<T> Fill(size_t size, Make make) {
    std::vector<T> values(size);
    for (T& value : values) value = make(static_cast<int>(random_() % 15) - 7);
    return values;
  }

  template <typename In, typename Out, typename Make, typename Value>
  void MultipliesRows(cudaDataType in, cudaDataType out, cublasComputeType_t compute, Make make,
                      Value value) {
    // Rows of queries and docs, as the engine has them: C = A^T B, A [k, m], B [k, n] by columns.
    const bool is_integer = out == CUDA_R_32I;
    const int count = is_integer ? 8 : 5;
    const std::vector<In> a = Fill<In>(static_cast<size_t>(kStrideA * count), make),
                          b = Fill<In>(kStrideB * kN, make);
    const std::vector<Out> before(kStrideC * kN, Out{77});
    const DeviceArray<In> device_a(a), device_b(b);
    const DeviceArray<Out> device_c(before);
    const float one = 1, zero = 0;
    const int32_t int_one = 1, int_zero = 0;
    ASSERT_EQ(cublasGemmEx(handle_, CUBLAS_OP_T, CUBLAS_OP_N, count, kN, kK,
                           is_integer ? static_cast<const void*>(&int_one) : &one, device_a.data(),
                           in, kStrideA, device_b.data(), in, kStrideB,
                           is_integer ? static_cast<const void*>(&int_zero) : &zero,
                           device_c.data(), out, kStrideC, compute, CUBLAS_GEMM_DEFAULT),
              CUBLAS_STATUS_SUCCESS);
    std::vector<Out> expected = before;
    for (int n = 0; n < kN; ++n) {
      for (int m = 0; m < count; ++m) {
        double sum = 0;
        for (int k = 0; k < kK; ++k) {
          sum += static_cast<double>(value(a[static_cast<size_t>(m * kStrideA + k)])) *
                 static_cast<double>(value(b[static_cast<size_t>(n * kStrideB + k)]));
        }
        expected[static_cast<size_t>(n * kStrideC + m)] = static_cast<Out>(sum);
      }
    }
    EXPECT_EQ(device_c.Read(), expected);
  }

  EmulatedGpu gpu_{{.seed = GetParam()}};
  std::mt19937_64 random_{GetParam()};
  cublasHandle_t handle_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(Seeds, CublasTest, testing::Values(0, 1, 2, 3));

float Same(float value) { return value; }

TEST_P(CublasTest, MultipliesInEveryTypeThatTheEngineAsksFor) {
  const auto half = [](int value) { return Float64ToFloat16(value); };
  const auto bfloat = [](int value) { return Float64ToBFloat16(value); };
  const auto single = [](int value) { return static_cast<float>(value); };
  const auto byte = [](int value) { return static_cast<int8_t>(value); };
  MultipliesRows<uint16_t, float>(CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F, half,
                                  Float16ToFloat32);
  MultipliesRows<uint16_t, float>(CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F, bfloat,
                                  BFloat16ToFloat32);
  MultipliesRows<float, float>(CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32, single, Same);
  MultipliesRows<float, float>(CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_PEDANTIC, single, Same);
  MultipliesRows<int8_t, int32_t>(CUDA_R_8I, CUDA_R_32I, CUBLAS_COMPUTE_32I, byte,
                                  [](int8_t value) { return value; });
  EXPECT_EQ(gpu_.counts().gemms, 5U);
}

TEST_P(CublasTest, OperandsMayBeTransposedOrNot) {
  // A [2, 3] by columns times B, given as [2, 3] transposed: C [2, 2].
  const DeviceArray<float> a({1, 2, 3, 4, 5, 6}), b({1, 0, 0, 1, 1, 1}), c({10, 20, 30, 40});
  const float two = 2, one = 1;
  ASSERT_EQ(cublasGemmEx(handle_, CUBLAS_OP_N, CUBLAS_OP_T, 2, 2, 3, &two, a.data(), CUDA_R_32F, 2,
                         b.data(), CUDA_R_32F, 2, &one, c.data(), CUDA_R_32F, 2,
                         CUBLAS_COMPUTE_32F_PEDANTIC, CUBLAS_GEMM_DEFAULT),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_THAT(c.Read(), testing::ElementsAre(22.0F, 36.0F, 46.0F, 60.0F));
}

TEST_P(CublasTest, Tf32CutsFloatsOffAndPedanticDoesNot) {
  const DeviceArray<float> a(std::vector<float>{1 + 0x1p-11F}), b(std::vector<float>{1}), c(1);
  const float one = 1, zero = 0;
  const auto multiply = [&](cublasComputeType_t compute) {
    EXPECT_EQ(cublasGemmEx(handle_, CUBLAS_OP_T, CUBLAS_OP_N, 1, 1, 1, &one, a.data(), CUDA_R_32F,
                           1, b.data(), CUDA_R_32F, 1, &zero, c.data(), CUDA_R_32F, 1, compute,
                           CUBLAS_GEMM_DEFAULT),
              CUBLAS_STATUS_SUCCESS);
    return c.Read()[0];
  };
  EXPECT_EQ(multiply(CUBLAS_COMPUTE_32F_FAST_TF32), 1.0F);
  EXPECT_EQ(multiply(CUBLAS_COMPUTE_32F_PEDANTIC), 1 + 0x1p-11F);
  EXPECT_EQ(multiply(CUBLAS_COMPUTE_32F), 1 + 0x1p-11F);
  ASSERT_EQ(cublasSetMathMode(handle_, CUBLAS_TF32_TENSOR_OP_MATH), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply(CUBLAS_COMPUTE_32F), 1.0F);
}

TEST_P(CublasTest, ReadsAndWritesAreChecked) {
  ViolationCollector collector;
  const DeviceArray<float> a({1, 2}), b(std::vector<float>{1}), c(2);
  const float one = 1, zero = 0;
  // B has one element, and is said to have two.
  cublasGemmEx(handle_, CUBLAS_OP_T, CUBLAS_OP_N, 1, 1, 2, &one, a.data(), CUDA_R_32F, 2, b.data(),
               CUDA_R_32F, 2, &zero, c.data(), CUDA_R_32F, 1, CUBLAS_COMPUTE_32F_PEDANTIC,
               CUBLAS_GEMM_DEFAULT);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  const std::vector<Violation> violations = collector.Take();
  ASSERT_EQ(violations.size(), 1U);
  EXPECT_EQ(violations[0].kind, ViolationKind::kOutOfBounds);
  EXPECT_THAT(violations[0].message, testing::HasSubstr("cublasGemmEx of 1 x 1 x 2 on stream 0"));
}

TEST(Cublas, RefusesWhatCublasRefuses) {
  EmulatedGpu gpu({.failing_gemm = 1});
  cublasHandle_t handle = nullptr;
  ASSERT_EQ(cublasCreate(&handle), CUBLAS_STATUS_SUCCESS);
  const DeviceArray<int8_t> a(std::vector<int8_t>(64, 1));
  const DeviceArray<int32_t> c(64);
  struct Product {
    int m = 4, k = 4;
    int offset_a = 0, offset_c = 0;
    int stride_a = 4, stride_c = 4;
    int32_t alpha = 1, beta = 0;
    cublasComputeType_t compute = CUBLAS_COMPUTE_32I;
    cublasOperation_t a_as = CUBLAS_OP_T, b_as = CUBLAS_OP_N;
  };
  const auto multiply = [&](const Product& product) {
    return cublasGemmEx(handle, product.a_as, product.b_as, product.m, 2, product.k, &product.alpha,
                        a.data() + product.offset_a, CUDA_R_8I, product.stride_a, a.data(),
                        CUDA_R_8I, 4, &product.beta,
                        reinterpret_cast<std::byte*>(c.data()) + product.offset_c, CUDA_R_32I,
                        product.stride_c, product.compute, CUBLAS_GEMM_DEFAULT);
  };
  EXPECT_EQ(multiply({.stride_a = 3}), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(multiply({.stride_c = 3}), CUBLAS_STATUS_INVALID_VALUE);
  for (const Product& product : {
           Product{.offset_a = 1},
           Product{.stride_a = 6},
           Product{.offset_c = 2},
           Product{.stride_c = 6},
           Product{.m = 3},
           Product{.k = 3},
           Product{.alpha = 2},
           Product{.beta = -1},
           Product{.compute = CUBLAS_COMPUTE_32F},
           Product{.a_as = CUBLAS_OP_N},
           Product{.b_as = CUBLAS_OP_T},
       }) {
    EXPECT_EQ(multiply(product), CUBLAS_STATUS_NOT_SUPPORTED);
  }
  EXPECT_EQ(multiply({}), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply({}), CUBLAS_STATUS_EXECUTION_FAILED);  // on demand
  EXPECT_THAT(c.Read(8), testing::Each(4));
  EXPECT_STREQ(cublasGetStatusName(CUBLAS_STATUS_NOT_SUPPORTED), "CUBLAS_STATUS_NOT_SUPPORTED");
  EXPECT_EQ(cublasDestroy(handle), CUBLAS_STATUS_SUCCESS);
}

}  // namespace
}  // namespace tiny_knn::emulation
