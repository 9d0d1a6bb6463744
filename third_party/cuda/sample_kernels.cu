#include "third_party/cuda/sample_kernels.h"

namespace tiny_knn {
namespace {

__global__ void AddScaledKernel(float a, const float* x, float* y, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] += a * x[i];
}

}  // namespace

cudaError_t AddScaled(float a, const float* x, float* y, int n, cudaStream_t stream) {
  constexpr int kThreads = 128;
  AddScaledKernel<<<(n + kThreads - 1) / kThreads, kThreads, 0, stream>>>(a, x, y, n);
  return cudaGetLastError();
}

}  // namespace tiny_knn
