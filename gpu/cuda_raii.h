// Device memory, pinned memory, streams and events that end with their owner, and CUDA's errors as
// Status.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "cuda_runtime_api.h"

namespace tiny_knn {

// OK, ResourceExhausted (no memory), or Internal; the message names `call` and what CUDA says.
absl::Status CudaStatus(cudaError_t error, std::string_view call);

// The first error of a sequence of calls. After one, later calls do no harm and are not remembered:
// whoever queues work looks when he waits for it.
class FirstError {
 public:
  void operator()(cudaError_t error, std::string_view call) {
    if (error != cudaSuccess && status_.ok()) status_ = CudaStatus(error, call);
  }
  void operator()(const absl::Status& status) { status_.Update(status); }
  bool ok() const { return status_.ok(); }
  // And starts again.
  absl::Status Take() { return std::exchange(status_, absl::OkStatus()); }

 private:
  absl::Status status_;
};

// Memory of `count` elements, aligned to 256 bytes, contents undefined. Empty at first.
// Thread-compatible.
template <typename T, cudaError_t (*kAllocate)(void**, size_t), cudaError_t (*kFree)(void*)>
class CudaMemory {
 public:
  CudaMemory() = default;
  ~CudaMemory() { Release(); }
  CudaMemory(CudaMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  CudaMemory& operator=(CudaMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }

  // Drops what was there. ResourceExhausted if there is not so much; it is empty then.
  absl::Status Allocate(int64_t count) {
    Release();
    if (count == 0) return absl::OkStatus();
    void* data = nullptr;
    const cudaError_t error = kAllocate(&data, static_cast<size_t>(count) * sizeof(T));
    if (error != cudaSuccess) {
      cudaGetLastError();  // remembered by the runtime, and not fatal
      return CudaStatus(error, "allocating memory");
    }
    data_ = static_cast<T*>(data);
    count_ = count;
    return absl::OkStatus();
  }

  // The same, unless there is as much already.
  absl::Status Reserve(int64_t count) {
    return count_ >= count ? absl::OkStatus() : Allocate(count);
  }

  void Release() {
    if (data_ != nullptr) kFree(data_);
    data_ = nullptr;
    count_ = 0;
  }

  T* data() const { return data_; }
  int64_t count() const { return count_; }

 private:
  T* data_ = nullptr;
  int64_t count_ = 0;
};

inline cudaError_t AllocateDevice(void** data, size_t bytes) { return cudaMalloc(data, bytes); }
inline cudaError_t AllocatePinned(void** data, size_t bytes) {
  return cudaHostAlloc(data, bytes, cudaHostAllocDefault);
}

template <typename T>
using DeviceBuffer = CudaMemory<T, AllocateDevice, cudaFree>;
// Page-locked memory of the host, for copies that overlap computing. Never mapped into the device.
template <typename T>
using PinnedBuffer = CudaMemory<T, AllocatePinned, cudaFreeHost>;

// A stream of the current device.
class CudaStream {
 public:
  CudaStream() = default;
  ~CudaStream() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  absl::Status Create() {
    return CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                      "creating a stream");
  }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// An event without timing.
class CudaEvent {
 public:
  CudaEvent() = default;
  ~CudaEvent() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;
  absl::Status Create() {
    return CudaStatus(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming),
                      "creating an event");
  }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace tiny_knn
