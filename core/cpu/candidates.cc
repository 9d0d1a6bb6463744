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

}  // namespace

float KthLargest(std::span<const float> values, int64_t k, std::vector<float>& scratch) {
  scratch.clear();
  int64_t rank = k;  // among `scratch`
  if (static_cast<int64_t>(values.size()) <= kSmall) {
    scratch.assign(values.begin(), values.end());
  } else {
    uint32_t least = UINT32_MAX;
    uint32_t greatest = 0;
    for (const float value : values) {
      const uint32_t key = KeyOfScore(value);
      least = std::min(least, key);
      greatest = std::max(greatest, key);
    }
    const int shift = std::max(0, static_cast<int>(std::bit_width(greatest - least)) - kBinBits);
    std::array<int32_t, size_t{1} << kBinBits> histogram{};
    for (const float value : values) ++histogram[(KeyOfScore(value) - least) >> shift];
    uint32_t bin = (1U << kBinBits) - 1;
    while (rank > histogram[bin]) rank -= histogram[bin--];
    for (const float value : values) {
      if ((KeyOfScore(value) - least) >> shift == bin) scratch.push_back(value);
    }
  }
  std::nth_element(scratch.begin(), scratch.begin() + (rank - 1), scratch.end(), std::greater<>());
  return scratch[static_cast<size_t>(rank - 1)];
}

}  // namespace tiny_knn
