#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "gpu/emulation/language_test_kernels.h"

namespace tiny_knn::emulation {
namespace {

__constant__ int32_t primes[8] = {2, 3, 5, 7, 11, 13, 17, 19};
__device__ int32_t calls = 10;

__global__ void LookUpParameterKernel(Table table, const int32_t* index, double* out, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < n) out[i] = table.values[index[i]] * table.scale;
}

__global__ void LookUpConstantKernel(int32_t* out, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < n) out[i] = primes[i];
}

__global__ void CountCallsKernel(int32_t* out) { out[0] = atomicAdd(&calls, 1); }

__global__ void __launch_bounds__(1024) ReverseDynamicKernel(uint32_t* words, int n) {
  extern __shared__ uint32_t copy[];
  const int i = static_cast<int>(threadIdx.x);
  copy[i] = words[i];
  __syncthreads();
  words[i] = copy[n - 1 - i];
}

__global__ void ConvertKernel(const float* in, Conversions* out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  const float value = in[i];
  Conversions& result = out[i];
  result.half = __half_as_ushort(__float2half_rn(value));
  result.bfloat = __bfloat16_as_ushort(__float2bfloat16_rn(value));
  result.byte = static_cast<int8_t>(max(-127, min(127, __float2int_rn(value))));
  result.rounded = __float2int_rz(value);
  result.wide = __double2ll_rn(static_cast<double>(value) * 1e6);
  result.root = sqrtf(fabsf(value));
  result.quotient = 1.0F / value;
  result.root64 = sqrt(fabs(static_cast<double>(value)));
  result.quotient64 = 1.0 / static_cast<double>(value);
  result.fused = fma(static_cast<double>(value), static_cast<double>(value), -1.0);
}

__global__ void PositionsKernel(uint32_t* out) {
  const uint32_t x = blockIdx.x * blockDim.x + threadIdx.x;
  const uint32_t y = blockIdx.y * blockDim.y + threadIdx.y;
  const uint32_t z = blockIdx.z * blockDim.z + threadIdx.z;
  uint32_t* position = out + 3 * (x + gridDim.x * blockDim.x * (y + gridDim.y * blockDim.y * z));
  position[0] = x;
  position[1] = y;
  position[2] = z;
}

}  // namespace

cudaError_t LookUpParameter(const Table& table, const int32_t* index, double* out, int n,
                            cudaStream_t stream) {
  LookUpParameterKernel<<<1, 256, 0, stream>>>(table, index, out, n);
  return cudaGetLastError();
}

cudaError_t LookUpConstant(int32_t* out, int n, cudaStream_t stream) {
  LookUpConstantKernel<<<1, 32, 0, stream>>>(out, n);
  return cudaGetLastError();
}

cudaError_t CountCalls(int32_t* out, cudaStream_t stream) {
  CountCallsKernel<<<1, 1, 0, stream>>>(out);
  return cudaGetLastError();
}

cudaError_t ReverseDynamic(uint32_t* words, int n, size_t bytes, cudaStream_t stream) {
  ReverseDynamicKernel<<<1, n, bytes, stream>>>(words, n);
  return cudaGetLastError();
}

cudaError_t AllowDynamic(size_t bytes) {
  return cudaFuncSetAttribute(ReverseDynamicKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(bytes));
}

cudaError_t BlocksOfReverseDynamic(int n, size_t bytes, int* blocks) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, ReverseDynamicKernel, n, bytes);
}

cudaError_t AttributesOfReverseDynamic(cudaFuncAttributes* attributes) {
  return cudaFuncGetAttributes(attributes, ReverseDynamicKernel);
}

cudaError_t Convert(const float* in, Conversions* out, int n, cudaStream_t stream) {
  ConvertKernel<<<(n + 127) / 128, 128, 0, stream>>>(in, out, n);
  return cudaGetLastError();
}

cudaError_t Positions(uint32_t* out, cudaStream_t stream) {
  PositionsKernel<<<dim3(2, 3, 2), dim3(2, 1, 2), 0, stream>>>(out);
  return cudaGetLastError();
}

}  // namespace tiny_knn::emulation
