// Kernels of language_test.cc: what CUDA C++ needs besides arithmetic.
#pragma once

#include <cstdint>

#include "cuda_runtime_api.h"

namespace tiny_knn::emulation {

struct Table {
  int32_t values[8];
  double scale;
};

// out[i] = table.values[index[i]] * table.scale, [n <= 256]. The table is passed by value.
cudaError_t LookUpParameter(const Table& table, const int32_t* index, double* out, int n,
                            cudaStream_t stream);
// out[i] = the i-th prime, from constant memory, [n <= 8].
cudaError_t LookUpConstant(int32_t* out, int n, cudaStream_t stream);
// out[0] = how often it was called on this device, counted in a __device__ variable that begins
// at 10.
cudaError_t CountCalls(int32_t* out, cudaStream_t stream);

// Reverses the n words of `words` (n <= 1024) through dynamic shared memory of `bytes` bytes.
cudaError_t ReverseDynamic(uint32_t* words, int n, size_t bytes, cudaStream_t stream);
// Lets ReverseDynamic have as much, and says how many of its blocks of n threads a multiprocessor
// holds.
cudaError_t AllowDynamic(size_t bytes);
cudaError_t BlocksOfReverseDynamic(int n, size_t bytes, int* blocks);
cudaError_t AttributesOfReverseDynamic(cudaFuncAttributes* attributes);

struct Conversions {
  uint16_t half, bfloat;
  int8_t byte;
  int32_t rounded;
  int64_t wide;
  float root, quotient;
  double root64, quotient64, fused;
};
// out[i]: what the device makes of in[i], [n].
cudaError_t Convert(const float* in, Conversions* out, int n, cudaStream_t stream);

// out[3 * (x + 4 * (y + 3 * z)) + 0..2] = x, y, z, for a grid of (2, 3, 2) blocks of (2, 1, 2)
// threads.
cudaError_t Positions(uint32_t* out, cudaStream_t stream);

}  // namespace tiny_knn::emulation
