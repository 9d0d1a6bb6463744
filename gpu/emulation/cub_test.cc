// CUB's block and warp primitives give the right results, with no violation, on real PTX.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "gpu/emulation/cub_test_kernels.h"
#include "gpu/emulation/emulation.h"
#include "gpu/emulation/test_device_array.h"
#include "gtest/gtest.h"

namespace tiny_knn::emulation {
namespace {

// Every seed takes blocks and warps in another order.
class CubTest : public testing::TestWithParam<uint64_t> {
 protected:
  EmulatedGpu gpu_{{.seed = GetParam()}};
  std::mt19937_64 random_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Seeds, CubTest, testing::Values(0, 1, 2, 3));

TEST_P(CubTest, BlockRadixSortSortsEveryTile) {
  for (const int n : {1, kSortTile - 1, kSortTile, 3 * kSortTile + 17}) {
    std::vector<uint64_t> keys(static_cast<size_t>(n));
    for (uint64_t& key : keys) key = random_() >> (random_() % 64);
    const DeviceArray<uint64_t> device(keys);
    ASSERT_EQ(SortTilesDescending(device.data(), n, nullptr), cudaSuccess);
    for (int begin = 0; begin < n; begin += kSortTile) {
      std::sort(keys.begin() + begin, keys.begin() + std::min(n, begin + kSortTile),
                std::greater<>());
    }
    EXPECT_EQ(device.Read(), keys) << n;
  }
}

TEST_P(CubTest, BlockRadixSortCarriesValuesAlong) {
  std::vector<float> keys(2 * kSortTile);
  std::vector<uint32_t> values(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    keys[i] = std::uniform_real_distribution<float>(-1, 1)(random_);
    values[i] = static_cast<uint32_t>(i);
  }
  keys[3] = std::numeric_limits<float>::infinity();
  keys[700] = -std::numeric_limits<float>::infinity();
  const DeviceArray<float> device_keys(keys);
  const DeviceArray<uint32_t> device_values(values);
  ASSERT_EQ(
      SortPairs(device_keys.data(), device_values.data(), static_cast<int>(keys.size()), nullptr),
      cudaSuccess);
  const std::vector<float> sorted = device_keys.Read();
  const std::vector<uint32_t> carried = device_values.Read();
  for (size_t i = 0; i < keys.size(); ++i) {
    if (i % kSortTile != 0) {
      EXPECT_LE(sorted[i - 1], sorted[i]) << i;
    }
    EXPECT_EQ(sorted[i], keys[carried[i]]) << i;
    EXPECT_EQ(carried[i] / kSortTile, i / kSortTile);
  }
}

TEST_P(CubTest, BlockScanAppendsWhatIsNotBelowTheThreshold) {
  constexpr int kN = 1000;
  std::vector<float> scores(kN);
  for (float& score : scores) score = std::normal_distribution<float>()(random_);
  scores[5] = std::numeric_limits<float>::quiet_NaN();
  const DeviceArray<float> device(scores);
  const DeviceArray<uint32_t> out(kN), count(std::vector<uint32_t>{0});
  ASSERT_EQ(AppendSurvivors(device.data(), kN, 1.0F, out.data(), count.data(), 3, nullptr),
            cudaSuccess);
  std::vector<uint32_t> survivors = out.Read(count.Read()[0]);
  std::sort(survivors.begin(), survivors.end());
  std::vector<uint32_t> expected;
  for (uint32_t i = 0; i < kN; ++i) {
    if (!(scores[i] < 1.0F)) expected.push_back(i);
  }
  EXPECT_EQ(survivors, expected);
}

TEST_P(CubTest, ReductionsAndScansSeeEveryValue) {
  for (const int n : {1, 255, 256, 1000}) {
    std::vector<double> values(static_cast<size_t>(n));
    std::vector<int> counts(values.size());
    double sum = 0;
    int count = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      // Integers: their sums do not depend on the order.
      values[i] = static_cast<double>(static_cast<int64_t>(random_() % 2001)) - 1000;
      counts[i] = static_cast<int>(random_() % 10);
      sum += values[i];
      count += counts[i];
    }
    const DeviceArray<double> device_values(values);
    const DeviceArray<int> device_counts(counts);
    const DeviceArray<Sums> out(1);
    // So that the padding of the struct is initialised, too.
    ASSERT_EQ(cudaMemset(out.data(), 0, sizeof(Sums)), cudaSuccess);
    ASSERT_EQ(Reduce(device_values.data(), device_counts.data(), n, out.data(), nullptr),
              cudaSuccess);
    const Sums sums = out.Read()[0];
    EXPECT_EQ(sums.sum, sum) << n;
    EXPECT_EQ(sums.warp_max, *std::max_element(values.begin(), values.end())) << n;
    EXPECT_EQ(sums.scan_last, count) << n;
  }
}

}  // namespace
}  // namespace tiny_knn::emulation
