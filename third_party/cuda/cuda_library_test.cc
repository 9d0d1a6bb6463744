// What nvcc compiled links with the toolkit's runtime, and runs where there is a GPU.
#include <vector>

#include "cuda_runtime_api.h"
#include "gtest/gtest.h"
#include "third_party/cuda/sample_kernels.h"

namespace tiny_knn {
namespace {

TEST(CudaLibrary, AKernelRunsOnTheDevice) {
  int devices = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&devices); error != cudaSuccess) {
    GTEST_SKIP() << "no CUDA device: " << cudaGetErrorString(error);
  }
  constexpr int kN = 1000;
  std::vector<float> x(kN, 3.0F), y(kN, 1.0F);
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 2 * kN * sizeof(float)), cudaSuccess);
  auto* device = static_cast<float*>(memory);
  ASSERT_EQ(cudaMemcpy(device, x.data(), kN * sizeof(float), cudaMemcpyHostToDevice), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(device + kN, y.data(), kN * sizeof(float), cudaMemcpyHostToDevice),
            cudaSuccess);
  ASSERT_EQ(AddScaled(2.0F, device, device + kN, kN, nullptr), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(y.data(), device + kN, kN * sizeof(float), cudaMemcpyDeviceToHost),
            cudaSuccess);
  EXPECT_EQ(y, std::vector<float>(kN, 7.0F));
  EXPECT_EQ(cudaFree(device), cudaSuccess);
}

}  // namespace
}  // namespace tiny_knn
