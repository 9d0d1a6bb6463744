// Memory in the CUDA runtime: allocations, copies and sets.
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "cuda_runtime_api.h"
#include "fmt/format.h"
#include "gpu/emulation/device.h"

namespace tiny_knn::emulation {
namespace {

uint64_t AddressOf(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

// Copies the rows of `from` to those of `to`, which has as many of the same width.
void CopyFromHost(Device& device, const Actor& actor, const Region& to, const std::byte* from,
                  uint64_t from_pitch) {
  for (uint64_t row = 0; row < to.rows; ++row) {
    std::memcpy(
        device.memory.Write(actor, to.address + row * to.pitch, to.width, 1, Strength::kWeak),
        from + row * from_pitch, to.width);
  }
}

void CopyToHost(Device& device, const Actor& actor, const Region& to, const Region& from) {
  for (uint64_t row = 0; row < to.rows; ++row) {
    const std::byte* source =
        device.memory.Read(actor, from.address + row * from.pitch, from.width, 1, Strength::kWeak);
    std::memcpy(reinterpret_cast<void*>(to.address + row * to.pitch), source, to.width);
  }
}

void EnqueueFromHost(Device& device, uint32_t stream, const Region& to, const Region& from) {
  const std::string what = fmt::format("copy of {} bytes to the device", to.width * to.rows);
  if (!device.host.IsPinned(from)) {
    // The call returns when the bytes have been taken over.
    auto taken = std::make_shared<std::vector<std::byte>>(to.width * to.rows);
    for (uint64_t row = 0; row < from.rows; ++row) {
      std::memcpy(taken->data() + row * to.width,
                  reinterpret_cast<const void*>(from.address + row * from.pitch), to.width);
    }
    device.Enqueue(stream, what, [&device, to, taken](const Actor& actor) {
      CopyFromHost(device, actor, to, taken->data(), to.width);
    });
    return;
  }
  HostBuffers::Copy* copy = device.host.Watch(from, false, *device.streams);
  // Its own: the watch ends when the host has waited, which may be before a later destruction.
  copy->work =
      device.Enqueue(stream, what, [&device, to, from, watched = *copy](const Actor& actor) {
        if (HostBuffers::HasChanged(watched)) {
          throw Fault{ViolationKind::kPinnedReuse,
                      "its pinned source was changed before the copy was done", from.address};
        }
        CopyFromHost(device, actor, to, reinterpret_cast<const std::byte*>(from.address),
                     from.pitch);
      });
}

void EnqueueToHost(Device& device, uint32_t stream, const Region& to, const Region& from) {
  const std::string what = fmt::format("copy of {} bytes to the host", to.width * to.rows);
  if (!device.host.IsPinned(to)) {
    // The call returns when the copy is done.
    device.streams->Finish(device.Enqueue(stream, what, [&device, to, from](const Actor& actor) {
      CopyToHost(device, actor, to, from);
    }));
    return;
  }
  HostBuffers::Copy* copy = device.host.Watch(to, true, *device.streams);
  copy->work =
      device.Enqueue(stream, what, [&device, to, from, watched = *copy](const Actor& actor) {
        if (HostBuffers::HasChanged(watched)) {
          throw Fault{ViolationKind::kPinnedReuse,
                      "the host wrote to its pinned destination before the copy was done",
                      to.address};
        }
        CopyToHost(device, actor, to, from);
      });
}

void EnqueueOnDevice(Device& device, uint32_t stream, const Region& to, const Region& from) {
  device.Enqueue(stream, fmt::format("copy of {} bytes on the device", to.width * to.rows),
                 [&device, to, from](const Actor& actor) {
                   for (uint64_t row = 0; row < to.rows; ++row) {
                     device.memory.Copy(actor, to.address + row * to.pitch,
                                        from.address + row * from.pitch, to.width);
                   }
                 });
}

// Whether the pointers are of the memory that `kind` names; sets it where it is "default".
bool IsOfKind(const Device& device, const Region& to, const Region& from, cudaMemcpyKind* kind) {
  const bool to_device = device.memory.Contains(to.address);
  const bool from_device = device.memory.Contains(from.address);
  const cudaMemcpyKind actual =
      to_device ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice)
                : (from_device ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost);
  if (*kind == cudaMemcpyDefault) *kind = actual;
  return *kind == actual;
}

cudaError_t Copy(const Region& to, const Region& from, cudaMemcpyKind kind, cudaStream_t handle,
                 bool waits) {
  Locked locked;
  Device& device = locked.device;
  if (device.sticky != cudaSuccess) return device.sticky;
  uint32_t stream = 0;
  if (!device.FindStream(handle, &stream)) return Noted(cudaErrorInvalidResourceHandle);
  if (to.width == 0 || to.rows == 0) return cudaSuccess;
  if (to.rows > 1 && (to.pitch < to.width || from.pitch < to.width)) {
    return Noted(cudaErrorInvalidPitchValue);
  }
  if (to.address == 0 || from.address == 0) return Noted(cudaErrorInvalidValue);
  if (!IsOfKind(device, to, from, &kind)) {
    device.Report({ViolationKind::kHostBuffer,
                   fmt::format("copy of {} bytes from {:#x} to {:#x}: the pointers are not of the "
                               "memory that the copy's kind names",
                               to.width * to.rows, from.address, to.address)},
                  cudaErrorInvalidValue);
    return Noted(cudaErrorInvalidValue);
  }
  ++device.counts.copies;
  switch (kind) {
    case cudaMemcpyHostToDevice:
      device.counts.bytes_to_device += to.width * to.rows;
      EnqueueFromHost(device, stream, to, from);
      break;
    case cudaMemcpyDeviceToHost:
      device.counts.bytes_to_host += to.width * to.rows;
      EnqueueToHost(device, stream, to, from);
      break;
    case cudaMemcpyDeviceToDevice:
      EnqueueOnDevice(device, stream, to, from);
      break;
    default:
      return Noted(cudaErrorNotSupported);
  }
  if (waits) device.streams->FinishStream(stream);
  return device.sticky;
}

Region Line(const void* pointer, size_t bytes) {
  return {.address = AddressOf(pointer), .width = bytes, .pitch = bytes};
}

cudaError_t Set(void* pointer, int value, size_t bytes, cudaStream_t handle) {
  Locked locked;
  Device& device = locked.device;
  if (device.sticky != cudaSuccess) return device.sticky;
  uint32_t stream = 0;
  if (!device.FindStream(handle, &stream)) return Noted(cudaErrorInvalidResourceHandle);
  if (bytes == 0) return cudaSuccess;
  const uint64_t address = AddressOf(pointer);
  device.Enqueue(stream, fmt::format("set of {} bytes", bytes),
                 [&device, address, value, bytes](const Actor& actor) {
                   std::memset(device.memory.Write(actor, address, bytes, 1, Strength::kWeak),
                               value, bytes);
                 });
  return device.sticky;
}

}  // namespace
}  // namespace tiny_knn::emulation

extern "C" {

using namespace tiny_knn::emulation;  // NOLINT(google-build-using-namespace)

cudaError_t cudaMalloc(void** devPtr, size_t size) {
  Locked locked;
  Device& device = locked.device;
  if (device.sticky != cudaSuccess) return device.sticky;
  *devPtr = nullptr;
  const bool refused = device.counts.allocations++ >= device.options.failing_allocation;
  if (size == 0) return cudaSuccess;
  if (refused || size > device.options.memory_bytes - device.used_bytes()) {
    return Noted(cudaErrorMemoryAllocation);
  }
  const uint64_t address = device.memory.Allocate(size);
  if (address == 0) return Noted(cudaErrorMemoryAllocation);
  device.AddUsedBytes(static_cast<int64_t>(size));
  *devPtr = reinterpret_cast<void*>(address);
  return cudaSuccess;
}

// What is pending and uses the memory finds it gone: the API does not promise to wait.
cudaError_t cudaFree(void* devPtr) {
  Locked locked;
  Device& device = locked.device;
  if (devPtr == nullptr) return device.sticky;
  const auto found = device.memory.Find(AddressOf(devPtr));
  if (!found || !device.memory.Free(AddressOf(devPtr))) return Noted(cudaErrorInvalidValue);
  device.AddUsedBytes(-static_cast<int64_t>(found->second));
  return device.sticky;
}

cudaError_t cudaHostAlloc(void** pHost, size_t size, unsigned /*flags*/) {
  Locked locked;
  Device& device = locked.device;
  if (device.sticky != cudaSuccess) return device.sticky;
  *pHost = nullptr;
  if (device.counts.host_allocations++ >= device.options.failing_host_allocation) {
    return Noted(cudaErrorMemoryAllocation);
  }
  *pHost = device.host.Allocate(size);
  return *pHost == nullptr ? Noted(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t cudaMallocHost(void** ptr, size_t size) { return cudaHostAlloc(ptr, size, 0); }

cudaError_t cudaFreeHost(void* ptr) {
  Locked locked;
  Device& device = locked.device;
  if (ptr == nullptr) return device.sticky;
  bool pending = false;
  if (!device.host.Free(ptr, *device.streams, &pending)) return Noted(cudaErrorInvalidValue);
  if (pending) {
    device.Report(
        {ViolationKind::kPinnedReuse,
         fmt::format("pinned memory at {:#x} is freed while a copy from or to it is pending",
                     AddressOf(ptr))},
        cudaErrorIllegalAddress);
  }
  return device.sticky;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Locked locked;
  if (locked.device.sticky != cudaSuccess) return locked.device.sticky;
  *total = locked.device.options.memory_bytes;
  *free = locked.device.options.memory_bytes - locked.device.used_bytes();
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t count, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return Copy(Line(dst, count), Line(src, count), kind, stream, false);
}

cudaError_t cudaMemcpy(void* dst, const void* src, size_t count, cudaMemcpyKind kind) {
  return Copy(Line(dst, count), Line(src, count), kind, nullptr, true);
}

cudaError_t cudaMemcpy2DAsync(void* dst, size_t dpitch, const void* src, size_t spitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  return Copy({AddressOf(dst), width, dpitch, height}, {AddressOf(src), width, spitch, height},
              kind, stream, false);
}

cudaError_t cudaMemcpy2D(void* dst, size_t dpitch, const void* src, size_t spitch, size_t width,
                         size_t height, cudaMemcpyKind kind) {
  return Copy({AddressOf(dst), width, dpitch, height}, {AddressOf(src), width, spitch, height},
              kind, nullptr, true);
}

cudaError_t cudaMemsetAsync(void* devPtr, int value, size_t count, cudaStream_t stream) {
  return Set(devPtr, value, count, stream);
}

cudaError_t cudaMemset(void* devPtr, int value, size_t count) {
  return Set(devPtr, value, count, nullptr);
}

}  // extern "C"
