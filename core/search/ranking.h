// The order of results, once: score descending, ties by doc index ascending, NaN last. Scores
// become unsigned integers that compare the same way, so no code that ranks ever meets a NaN.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "core/search/canonical_nan.h"

namespace tiny_knn {

template <typename T>
using ScoreKey = std::conditional_t<std::is_same_v<T, double>, uint64_t, uint32_t>;

// Greater key, better score; NaN gives 0, below the key of -inf. -0 must not occur (scores have
// none).
template <typename T>
constexpr ScoreKey<T> KeyOfScore(T score) {
  using Key = ScoreKey<T>;
  if (score != score) return 0;
  constexpr Key kSign = Key{1} << (sizeof(Key) * 8 - 1);
  const Key bits = std::bit_cast<Key>(score);
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}

// The score of a key; NaN comes back as the canonical NaN.
template <typename T>
constexpr T ScoreOfKey(ScoreKey<T> key) {
  using Key = ScoreKey<T>;
  if (key == 0) return CanonicalNan<T>();
  constexpr Key kSign = Key{1} << (sizeof(Key) * 8 - 1);
  return std::bit_cast<T>((key & kSign) != 0 ? key & ~kSign : ~key);
}

// One scored doc. `index` is the doc's index in the whole file.
template <typename T>
struct Ranked {
  ScoreKey<T> key;
  int64_t index;

  // Whether this one stands before `other` in the result.
  bool operator<(const Ranked& other) const {
    return key != other.key ? key > other.key : index < other.index;
  }
};

}  // namespace tiny_knn
