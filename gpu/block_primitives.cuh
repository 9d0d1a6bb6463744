// All that the kernels use of CUB, in one place, so that a newer version or another library changes
// this file only. Every function is called by all threads of a block of kBlockThreads, and ends
// with a barrier: its shared memory may be reused at once.
#pragma once

#include <cstdint>
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_scan.cuh>

namespace tiny_knn {

inline constexpr int kBlockThreads = 256;

using BlockCounter = cub::BlockScan<int, kBlockThreads>;
// A sort network in shared memory and registers: kSortItems keys a thread.
inline constexpr int kSortItems = 8;
inline constexpr int kSortKeys = kBlockThreads * kSortItems;
using BlockKeySort = cub::BlockRadixSort<uint64_t, kBlockThreads, kSortItems>;

// Sum of `count` over the threads before this one; `total` over all.
__device__ inline int ExclusiveSum(int count, int& total, BlockCounter::TempStorage& shared) {
  int before = 0;
  BlockCounter(shared).ExclusiveSum(count, before, total);
  __syncthreads();
  return before;
}

// Sorts kSortKeys keys, the first kSortItems in thread 0, greatest first.
__device__ inline void SortDescending(uint64_t (&keys)[kSortItems],
                                      BlockKeySort::TempStorage& shared) {
  BlockKeySort(shared).SortDescending(keys);
  __syncthreads();
}

// Shared memory of SelectLargest.
struct SelectStorage {
  int histogram[kBlockThreads];
  BlockCounter::TempStorage scan;
  int digit;
  int rank;
};

// The `rank`-th largest (1: the largest) of the `count` keys load(0), load(1), ...; 1 <= rank <=
// count. One pass over the keys for each 8 bits, so `count` has no limit. Key is an unsigned
// integer.
template <typename Key, typename Load>
__device__ Key SelectLargest(int count, int rank, Load load, SelectStorage& shared) {
  constexpr int kDigitBits = 8;
  static_assert(kBlockThreads == 1 << kDigitBits, "one thread per digit");
  const int thread = static_cast<int>(threadIdx.x);
  Key prefix = 0;
  Key known = 0;  // bits of `prefix` that are settled
  for (int shift = static_cast<int>(sizeof(Key)) * 8 - kDigitBits; shift >= 0;
       shift -= kDigitBits) {
    shared.histogram[thread] = 0;
    __syncthreads();
    for (int i = thread; i < count; i += kBlockThreads) {
      const Key key = load(i);
      if ((key & known) == prefix) {
        atomicAdd(&shared.histogram[static_cast<int>(key >> shift) & (kBlockThreads - 1)], 1);
      }
    }
    __syncthreads();
    // Thread 0 has the greatest digit.
    const int digit = kBlockThreads - 1 - thread;
    const int with_digit = shared.histogram[digit];
    int all = 0;
    const int before = ExclusiveSum(with_digit, all, shared.scan);
    if (before < rank && rank <= before + with_digit) {
      shared.digit = digit;
      shared.rank = rank - before;
    }
    __syncthreads();
    prefix |= static_cast<Key>(shared.digit) << shift;
    known |= static_cast<Key>(kBlockThreads - 1) << shift;
    rank = shared.rank;
    __syncthreads();
  }
  return prefix;
}

}  // namespace tiny_knn
