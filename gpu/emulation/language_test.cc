// What CUDA C++ needs besides arithmetic: parameters by value, constant and device variables,
// dynamic shared memory, attributes of kernels, three dimensions; and its conversions against the
// host's.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "core/matrix/convert.h"
#include "gmock/gmock.h"
#include "gpu/emulation/emulation.h"
#include "gpu/emulation/language_test_kernels.h"
#include "gpu/emulation/test_device_array.h"
#include "gpu/emulation/violation.h"
#include "gtest/gtest.h"

namespace tiny_knn::emulation {
namespace {

using testing::ElementsAre;

TEST(Language, AStructIsPassedByValueAndIndexed) {
  EmulatedGpu gpu({});
  Table table = {.values = {5, 6, 7, 8, 9, 10, 11, 12}, .scale = 0.5};
  const DeviceArray<int32_t> index({7, 0, 3});
  const DeviceArray<double> out(3);
  ASSERT_EQ(LookUpParameter(table, index.data(), out.data(), 3, nullptr), cudaSuccess);
  // The launch has its own copy.
  table.values[7] = 0;
  EXPECT_THAT(out.Read(), ElementsAre(6.0, 2.5, 4.0));
}

TEST(Language, ConstantsAreInitialised) {
  EmulatedGpu gpu({});
  const DeviceArray<int32_t> out(8);
  ASSERT_EQ(LookUpConstant(out.data(), 8, nullptr), cudaSuccess);
  EXPECT_THAT(out.Read(), ElementsAre(2, 3, 5, 7, 11, 13, 17, 19));
  // They are no allocations of the program's.
  EXPECT_EQ(gpu.live_allocations(), 1U);
}

TEST(Language, DeviceVariablesBeginAnewOnAFreshDevice) {
  for (int device = 0; device < 2; ++device) {
    EmulatedGpu gpu({});
    const DeviceArray<int32_t> out(1);
    for (int call = 0; call < 3; ++call) {
      ASSERT_EQ(CountCalls(out.data(), nullptr), cudaSuccess);
      EXPECT_THAT(out.Read(), ElementsAre(10 + call));
    }
  }
}

TEST(Language, DynamicSharedMemoryIsAsLargeAsTheLaunchSays) {
  EmulatedGpu gpu({});
  std::vector<uint32_t> words(100);
  std::iota(words.begin(), words.end(), 0U);
  const DeviceArray<uint32_t> device(words);
  ASSERT_EQ(ReverseDynamic(device.data(), 100, 400, nullptr), cudaSuccess);
  std::reverse(words.begin(), words.end());
  EXPECT_EQ(device.Read(), words);
  ViolationCollector collector;
  ASSERT_EQ(ReverseDynamic(device.data(), 100, 396, nullptr), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  const std::vector<Violation> violations = collector.Take();
  ASSERT_EQ(violations.size(), 1U);
  EXPECT_EQ(violations[0].kind, ViolationKind::kOutOfBounds);
  EXPECT_THAT(violations[0].message, testing::HasSubstr("thread (99,0,0)"));
}

TEST(Language, MoreThan48KilobytesAreAskedFor) {
  EmulatedGpu gpu({});
  const DeviceArray<uint32_t> device(std::vector<uint32_t>(64, 1));
  ASSERT_EQ(AllowDynamic(48 << 10), cudaSuccess);
  EXPECT_EQ(ReverseDynamic(device.data(), 64, 60'000, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(AllowDynamic(1 << 20), cudaErrorInvalidValue);
  cudaGetLastError();
  ASSERT_EQ(AllowDynamic(60'000), cudaSuccess);
  EXPECT_EQ(ReverseDynamic(device.data(), 64, 60'000, nullptr), cudaSuccess);
  EXPECT_THAT(device.Read(), testing::Each(1U));
  cudaFuncAttributes attributes;
  ASSERT_EQ(AttributesOfReverseDynamic(&attributes), cudaSuccess);
  EXPECT_EQ(attributes.maxThreadsPerBlock, 1024);
  EXPECT_EQ(attributes.maxDynamicSharedSizeBytes, 60'000);
  EXPECT_EQ(attributes.sharedSizeBytes, 0U);
  int blocks = 0;
  ASSERT_EQ(BlocksOfReverseDynamic(256, 0, &blocks), cudaSuccess);
  EXPECT_EQ(blocks, attributes.ptxVersion == 75 ? 4 : 8);  // of 1024 or 2048 threads
  ASSERT_EQ(BlocksOfReverseDynamic(256, 30'000, &blocks), cudaSuccess);
  EXPECT_EQ(blocks, attributes.ptxVersion == 75 ? 2 : 7);  // of 64 or 228 KiB
}

TEST(Language, GridsAndBlocksHaveThreeDimensions) {
  EmulatedGpu gpu({});
  const DeviceArray<uint32_t> device(3 * 4 * 3 * 4);
  ASSERT_EQ(Positions(device.data(), nullptr), cudaSuccess);
  const std::vector<uint32_t> positions = device.Read();
  for (uint32_t i = 0; i < 4 * 3 * 4; ++i) {
    EXPECT_EQ(positions[3 * i], i % 4);
    EXPECT_EQ(positions[3 * i + 1], i / 4 % 3);
    EXPECT_EQ(positions[3 * i + 2], i / 12);
  }
}

TEST(Language, ConversionsRootsAndQuotientsAreTheHosts) {
  EmulatedGpu gpu({});
  std::mt19937 random(1);
  std::vector<float> in = {1,        -1,    0.5F,  2.5F,  3.5F,  -2.5F, 65504,
                           65519.9F, 65520, 1e-8F, 6e-8F, 3e38F, 1e-40F};
  while (in.size() < 1000) {
    in.push_back(std::ldexp(std::normal_distribution<float>()(random),
                            static_cast<int>(random() % 40) - 24));
  }
  const int n = static_cast<int>(in.size());
  const DeviceArray<float> device(in);
  const DeviceArray<Conversions> out(in.size());
  ASSERT_EQ(cudaMemset(out.data(), 0, in.size() * sizeof(Conversions)), cudaSuccess);
  ASSERT_EQ(Convert(device.data(), out.data(), n, nullptr), cudaSuccess);
  const std::vector<Conversions> results = out.Read();
  for (size_t i = 0; i < in.size(); ++i) {
    const double value = in[i];
    EXPECT_EQ(results[i].half, Float64ToFloat16(value)) << value;
    EXPECT_EQ(results[i].bfloat, Float64ToBFloat16(value)) << value;
    EXPECT_EQ(results[i].byte, std::clamp(std::nearbyint(value), -127.0, 127.0)) << value;
    EXPECT_EQ(results[i].rounded, std::clamp(std::trunc(value), -0x1p31, 0x1p31 - 1)) << value;
    if (std::fabs(value) < 1e12) {
      EXPECT_EQ(results[i].wide, std::llrint(value * 1e6)) << value;
    }
    EXPECT_EQ(results[i].root, std::sqrt(std::fabs(in[i]))) << value;
    EXPECT_EQ(results[i].quotient, 1.0F / in[i]) << value;
    EXPECT_EQ(results[i].root64, std::sqrt(std::fabs(value))) << value;
    EXPECT_EQ(results[i].quotient64, 1.0 / value) << value;
    EXPECT_EQ(results[i].fused, std::fma(value, value, -1.0)) << value;
  }
}

}  // namespace
}  // namespace tiny_knn::emulation
