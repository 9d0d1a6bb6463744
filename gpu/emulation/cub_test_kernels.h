// Kernels of cub_test.cc, on CUB's block and warp primitives.
#pragma once

#include <cstdint>

#include "cuda_runtime_api.h"

namespace tiny_knn::emulation {

constexpr int kSortThreads = 128;
constexpr int kSortItems = 4;
constexpr int kSortTile = kSortThreads * kSortItems;

// Sorts each tile of kSortTile keys (the last may be shorter: it is filled up with zeros while it
// is sorted), descending. keys: device memory, [n].
cudaError_t SortTilesDescending(uint64_t* keys, int n, cudaStream_t stream);

// Sorts each tile of kSortTile float keys with their values, ascending. n: a multiple of kSortTile.
cudaError_t SortPairs(float* keys, uint32_t* values, int n, cudaStream_t stream);

// out[count++] = i for every scores[i] that is not below the threshold (a NaN is not), in any
// order; one atomic addition for each block. scores [n], out [n], count [1], zero before.
cudaError_t AppendSurvivors(const float* scores, int n, float threshold, uint32_t* out,
                            uint32_t* count, int blocks, cudaStream_t stream);

struct Sums {
  double sum;       // of all values, by BlockReduce
  double warp_max;  // of the maxima of the warps, by WarpReduce
  int scan_last;    // the last of the inclusive sums of all counts, by BlockScan
};
// One block of 256 threads over [n] values and counts. out: device memory, [1].
cudaError_t Reduce(const double* values, const int* counts, int n, Sums* out, cudaStream_t stream);

}  // namespace tiny_knn::emulation
