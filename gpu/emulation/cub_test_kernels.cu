#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/warp/warp_reduce.cuh>
#include <cuda/functional>

#include "gpu/emulation/cub_test_kernels.h"

namespace tiny_knn::emulation {
namespace {

__global__ void __launch_bounds__(kSortThreads) SortKernel(uint64_t* keys, int n) {
  using Sort = cub::BlockRadixSort<uint64_t, kSortThreads, kSortItems>;
  __shared__ typename Sort::TempStorage storage;
  uint64_t items[kSortItems];
  const int begin =
      static_cast<int>(blockIdx.x) * kSortTile + static_cast<int>(threadIdx.x) * kSortItems;
  for (int i = 0; i < kSortItems; ++i) items[i] = begin + i < n ? keys[begin + i] : 0;
  Sort(storage).SortDescending(items);
  for (int i = 0; i < kSortItems; ++i) {
    if (begin + i < n) keys[begin + i] = items[i];
  }
}

__global__ void __launch_bounds__(kSortThreads) SortPairsKernel(float* keys, uint32_t* values) {
  using Sort = cub::BlockRadixSort<float, kSortThreads, kSortItems, uint32_t>;
  __shared__ typename Sort::TempStorage storage;
  float items[kSortItems];
  uint32_t carried[kSortItems];
  const int begin =
      static_cast<int>(blockIdx.x) * kSortTile + static_cast<int>(threadIdx.x) * kSortItems;
  for (int i = 0; i < kSortItems; ++i) {
    items[i] = keys[begin + i];
    carried[i] = values[begin + i];
  }
  Sort(storage).Sort(items, carried);
  for (int i = 0; i < kSortItems; ++i) {
    keys[begin + i] = items[i];
    values[begin + i] = carried[i];
  }
}

__global__ void AppendKernel(const float* scores, int n, float threshold, uint32_t* out,
                             uint32_t* count) {
  using Scan = cub::BlockScan<int, kSortThreads>;
  __shared__ typename Scan::TempStorage storage;
  __shared__ uint32_t base;
  const int stride = static_cast<int>(gridDim.x * blockDim.x);
  for (int first = static_cast<int>(blockIdx.x * blockDim.x); first < n; first += stride) {
    const int i = first + static_cast<int>(threadIdx.x);
    const bool keep = i < n && !(scores[i] < threshold);
    int before = 0;
    int total = 0;
    Scan(storage).ExclusiveSum(keep ? 1 : 0, before, total);
    if (threadIdx.x == 0) base = atomicAdd(count, static_cast<uint32_t>(total));
    __syncthreads();
    if (keep) out[base + static_cast<uint32_t>(before)] = static_cast<uint32_t>(i);
    __syncthreads();
  }
}

constexpr int kReduceThreads = 256;

__global__ void ReduceKernel(const double* values, const int* counts, int n, Sums* out) {
  using BlockSum = cub::BlockReduce<double, kReduceThreads>;
  using WarpMax = cub::WarpReduce<double>;
  using Scan = cub::BlockScan<int, kReduceThreads>;
  __shared__ typename BlockSum::TempStorage sum_storage;
  __shared__ typename WarpMax::TempStorage max_storage[kReduceThreads / 32];
  __shared__ typename Scan::TempStorage scan_storage;
  __shared__ double maxima[kReduceThreads / 32];
  const int i = static_cast<int>(threadIdx.x);
  double sum = 0;
  double largest = -INFINITY;
  int count = 0;
  for (int j = i; j < n; j += kReduceThreads) {
    sum += values[j];
    largest = fmax(largest, values[j]);
    count += counts[j];
  }
  const double block_sum = BlockSum(sum_storage).Sum(sum);
  const double warp_max = WarpMax(max_storage[i / 32]).Reduce(largest, ::cuda::maximum<>{});
  int scanned = 0;
  Scan(scan_storage).InclusiveSum(count, scanned);
  if (i % 32 == 0) maxima[i / 32] = warp_max;
  __syncthreads();
  if (i == 0) {
    double all = maxima[0];
    for (int warp = 1; warp < kReduceThreads / 32; ++warp) all = fmax(all, maxima[warp]);
    out->sum = block_sum;
    out->warp_max = all;
  }
  if (i == kReduceThreads - 1) out->scan_last = scanned;
}

}  // namespace

cudaError_t SortTilesDescending(uint64_t* keys, int n, cudaStream_t stream) {
  SortKernel<<<(n + kSortTile - 1) / kSortTile, kSortThreads, 0, stream>>>(keys, n);
  return cudaGetLastError();
}

cudaError_t SortPairs(float* keys, uint32_t* values, int n, cudaStream_t stream) {
  SortPairsKernel<<<n / kSortTile, kSortThreads, 0, stream>>>(keys, values);
  return cudaGetLastError();
}

cudaError_t AppendSurvivors(const float* scores, int n, float threshold, uint32_t* out,
                            uint32_t* count, int blocks, cudaStream_t stream) {
  AppendKernel<<<blocks, kSortThreads, 0, stream>>>(scores, n, threshold, out, count);
  return cudaGetLastError();
}

cudaError_t Reduce(const double* values, const int* counts, int n, Sums* out, cudaStream_t stream) {
  ReduceKernel<<<1, kReduceThreads, 0, stream>>>(values, counts, n, out);
  return cudaGetLastError();
}

}  // namespace tiny_knn::emulation
