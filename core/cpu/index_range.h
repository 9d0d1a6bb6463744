// Half-open ranges of rows, and how threads share them.
#pragma once

#include <cstdint>

namespace tiny_knn {

// [begin, end).
struct IndexRange {
  int64_t begin;
  int64_t end;
  int64_t size() const { return end - begin; }
};

// Part `part` of `parts` of the range [0, size). Parts are in order and differ by one at most.
inline IndexRange PartOf(int64_t size, int64_t part, int64_t parts) {
  const int64_t least = size / parts;
  const int64_t larger = size % parts;  // the first parts have one more
  const int64_t begin = part * least + (part < larger ? part : larger);
  return {begin, begin + least + (part < larger ? 1 : 0)};
}

}  // namespace tiny_knn
