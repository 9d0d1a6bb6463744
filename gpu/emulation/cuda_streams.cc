// Streams and events in the CUDA runtime.
#include <chrono>
#include <memory>

#include "cuda_runtime_api.h"
#include "gpu/emulation/device.h"

namespace tiny_knn::emulation {
namespace {

double Milliseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(now).count();
}

Device::Event* FindEvent(Device& device, cudaEvent_t handle) {
  const auto found = device.events.find(reinterpret_cast<uint64_t>(handle));
  return found == device.events.end() ? nullptr : &found->second;
}

// Calls f(device, stream) for a handle that is a stream's.
template <typename F>
cudaError_t WithStream(cudaStream_t handle, F&& f) {
  Locked locked;
  Device& device = locked.device;
  if (device.sticky != cudaSuccess) return device.sticky;
  uint32_t stream = 0;
  if (!device.FindStream(handle, &stream)) return Noted(cudaErrorInvalidResourceHandle);
  return f(device, stream);
}

template <typename F>
cudaError_t WithEvent(cudaEvent_t handle, F&& f) {
  Locked locked;
  Device& device = locked.device;
  if (device.sticky != cudaSuccess) return device.sticky;
  Device::Event* event = FindEvent(device, handle);
  if (event == nullptr) return Noted(cudaErrorInvalidResourceHandle);
  return f(device, *event);
}

}  // namespace
}  // namespace tiny_knn::emulation

extern "C" {

using namespace tiny_knn::emulation;  // NOLINT(google-build-using-namespace)

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  Locked locked;
  Device& device = locked.device;
  if (device.sticky != cudaSuccess) return device.sticky;
  *stream = Device::StreamHandle(device.streams->Create(flags == cudaStreamNonBlocking));
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int /*priority*/) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Locked locked;
  uint32_t number = 0;
  if (!locked.device.FindStream(stream, &number) || number == 0) {
    return Noted(cudaErrorInvalidResourceHandle);
  }
  locked.device.streams->Destroy(number);
  return locked.device.sticky;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return WithStream(stream, [](Device& device, uint32_t number) {
    device.streams->FinishStream(number);
    return device.sticky;
  });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return WithStream(stream, [](Device& device, uint32_t number) {
    const bool done = device.streams->Poll(device.streams->Last(number));
    if (device.sticky != cudaSuccess) return device.sticky;
    return done ? cudaSuccess : cudaErrorNotReady;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
  return WithStream(stream, [=](Device& device, uint32_t number) {
    const Device::Event* found = FindEvent(device, event);
    if (found == nullptr) return Noted(cudaErrorInvalidResourceHandle);
    device.streams->AppendWait(number, found->work);
    return device.sticky;
  });
}

cudaError_t cudaDeviceSynchronize() {
  Locked locked;
  Device& device = locked.device;
  device.streams->FinishAll();
  return device.sticky;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  Locked locked;
  Device& device = locked.device;
  if (device.sticky != cudaSuccess) return device.sticky;
  const uint64_t handle = device.next_event++ << 8;
  device.events[handle].timed = (flags & cudaEventDisableTiming) == 0;
  *event = reinterpret_cast<cudaEvent_t>(handle);
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  Locked locked;
  if (locked.device.events.erase(reinterpret_cast<uint64_t>(event)) == 0) {
    return Noted(cudaErrorInvalidResourceHandle);
  }
  return locked.device.sticky;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return WithStream(stream, [=](Device& device, uint32_t number) {
    Device::Event* found = FindEvent(device, event);
    if (found == nullptr) return Noted(cudaErrorInvalidResourceHandle);
    const auto milliseconds = std::make_shared<double>(0);
    found->milliseconds = milliseconds;
    found->work = device.Enqueue(number, "event",
                                 [milliseconds](const Actor&) { *milliseconds = Milliseconds(); });
    return device.sticky;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return WithEvent(event, [](Device& device, const Device::Event& found) {
    device.streams->Finish(found.work);
    return device.sticky;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return WithEvent(event, [](Device& device, const Device::Event& found) {
    const bool done = device.streams->Poll(found.work);
    if (device.sticky != cudaSuccess) return device.sticky;
    return done ? cudaSuccess : cudaErrorNotReady;
  });
}

// The host's clock between the moments at which the emulation came by.
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  Locked locked;
  Device& device = locked.device;
  if (device.sticky != cudaSuccess) return device.sticky;
  const Device::Event* first = FindEvent(device, start);
  const Device::Event* last = FindEvent(device, end);
  if (first == nullptr || last == nullptr || !first->timed || !last->timed ||
      first->milliseconds == nullptr || last->milliseconds == nullptr) {
    return Noted(cudaErrorInvalidResourceHandle);
  }
  if (!device.streams->HostKnows(first->work) || !device.streams->HostKnows(last->work)) {
    return cudaErrorNotReady;
  }
  *ms = static_cast<float>(*last->milliseconds - *first->milliseconds);
  return cudaSuccess;
}

}  // extern "C"
