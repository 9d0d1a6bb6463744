// Device memory of a test: filled from the host, read back, freed at the end.
#pragma once

#include <cstddef>
#include <vector>

#include "cuda_runtime_api.h"
#include "gtest/gtest.h"

namespace tiny_knn::emulation {

template <typename T>
class DeviceArray {
 public:
  // Uninitialised.
  explicit DeviceArray(size_t size) : size_(size) {
    void* memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, size * sizeof(T)), cudaSuccess);
    data_ = static_cast<T*>(memory);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    EXPECT_EQ(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  std::vector<T> Read() const { return Read(size_); }
  // The first `count`.
  std::vector<T> Read(size_t count) const {
    std::vector<T> values(count);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, count * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace tiny_knn::emulation
