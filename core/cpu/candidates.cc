#include "core/cpu/candidates.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/search/ranking.h"

namespace tiny_knn {
namespace {

constexpr int kBinBits = 10;
constexpr int64_t kSmall = 64;  // below this a histogram costs more than it saves

// As KeyOfScore, for values that are no NaN, and without a branch.
uint32_t KeyOfNumber(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31);
  return bits ^ (sign | 0x80000000U);
}

}  // namespace

float KthLargest(std::span<const float> values, int64_t k, std::vector<uint32_t>& scratch) {
  const size_t size = values.size();
  scratch.resize(size);
  uint32_t least = UINT32_MAX;
  uint32_t greatest = 0;
  for (size_t i = 0; i < size; ++i) {
    const uint32_t key = KeyOfNumber(values[i]);
    scratch[i] = key;
    least = std::min(least, key);
    greatest = std::max(greatest, key);
  }
  int64_t rank = k;  // among what is left in `scratch`
  size_t left = size;
  if (static_cast<int64_t>(size) > kSmall) {
    const int shift = std::max(0, static_cast<int>(std::bit_width(greatest - least)) - kBinBits);
    std::array<int32_t, size_t{1} << kBinBits> histogram{};
    for (const uint32_t key : scratch) ++histogram[(key - least) >> shift];
    uint32_t bin = (1U << kBinBits) - 1;
    while (rank > histogram[bin]) rank -= histogram[bin--];
    left = 0;
    for (size_t i = 0; i < size; ++i) {
      const uint32_t key = scratch[i];
      scratch[left] = key;
      left += (key - least) >> shift == bin ? 1 : 0;
    }
  }
  const auto kth = scratch.begin() + (rank - 1);
  std::nth_element(scratch.begin(), kth, scratch.begin() + static_cast<int64_t>(left),
                   std::greater<>());
  return ScoreOfKey<float>(*kth);
}

}  // namespace tiny_knn
