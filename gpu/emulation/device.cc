#include "gpu/emulation/device.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>

#include "fmt/format.h"

namespace tiny_knn::emulation {
namespace {

// For the signal handler: the reservation of device addresses.
uint64_t reserved_begin = 0;
uint64_t reserved_end = 0;
struct sigaction previous_action;

// Says that the host touched device memory, where it did; then whoever handled the signal before
// has it.
void OnSegmentationFault(int signal, siginfo_t* info, void* context) {
  const auto address = reinterpret_cast<uint64_t>(info->si_addr);
  if (address >= reserved_begin && address < reserved_end) {
    char message[160];
    const int length =
        std::snprintf(message, sizeof(message),
                      "gpu emulation: host code touches device memory at address %#llx\n",
                      static_cast<unsigned long long>(address));  // NOLINT(google-runtime-int)
    if (write(STDERR_FILENO, message, static_cast<size_t>(length)) < 0) _exit(1);
    std::signal(SIGSEGV, SIG_DFL);
    return;  // to the instruction that faults, which now ends the process
  }
  if ((previous_action.sa_flags & SA_SIGINFO) != 0 && previous_action.sa_sigaction != nullptr) {
    previous_action.sa_sigaction(signal, info, context);
    return;
  }
  std::signal(SIGSEGV, SIG_DFL);
}

thread_local cudaError_t last_error = cudaSuccess;

}  // namespace

Limits LimitsOf(int arch) {
  if (arch >= 90) {
    return {.max_shared_per_block = 227 * 1024,
            .shared_per_multiprocessor = 228 * 1024,
            .threads_per_multiprocessor = 2048,
            .blocks_per_multiprocessor = 32};
  }
  return {.max_shared_per_block = 64 * 1024,
          .shared_per_multiprocessor = 64 * 1024,
          .threads_per_multiprocessor = 1024,
          .blocks_per_multiprocessor = 16};
}

// Never destroyed: kernels are registered before main and unregistered after it.
Device& Device::Get() {
  static Device& device = *new Device;
  return device;
}

Device::Device() : streams(std::make_unique<Streams>(0)) {
  reserved_begin = memory.space().global;
  reserved_end = memory.space().param + AddressSpace::kWindowBytes;
  struct sigaction action = {};
  action.sa_sigaction = &OnSegmentationFault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, &previous_action);
}

void Device::Configure(const EmulatedGpuOptions& new_options) {
  streams->FinishAll();
  streams = std::make_unique<Streams>(new_options.seed);
  host.FreeAll();
  for (const uint64_t address : memory.Allocations()) {
    if (!modules.IsVariable(address)) memory.Free(address);
  }
  modules.ResetVariables(memory);
  events.clear();
  options = new_options;
  counts = {};
  used_bytes_ = 0;
  sticky = cudaSuccess;
  last_error = cudaSuccess;
}

bool Device::FindStream(cudaStream_t handle, uint32_t* stream) const {
  if (handle == nullptr || handle == cudaStreamLegacy) {
    *stream = 0;
    return true;
  }
  *stream = static_cast<uint32_t>(reinterpret_cast<uint64_t>(handle) >> 8);
  return *stream != 0 && streams->Exists(*stream);
}

cudaStream_t Device::StreamHandle(uint32_t stream) {
  return reinterpret_cast<cudaStream_t>(static_cast<uint64_t>(stream) << 8);
}

void Device::Report(Violation violation, cudaError_t error) {
  if (sticky == cudaSuccess) sticky = error;
  ReportViolation(std::move(violation));
}

WorkId Device::Enqueue(uint32_t stream, std::string what, std::function<void(const Actor&)> run) {
  return streams->Append(
      stream, 1,
      [this, stream, what = std::move(what), run = std::move(run)](const WorkContext& context) {
        if (sticky != cudaSuccess) return;
        try {
          run({.first = context.first_actor,
               .id = context.first_actor,
               .unordered = context.unordered});
        } catch (const Fault& fault) {
          std::string message = fmt::format("{} on stream {}: ", what, stream);
          if (fault.address != 0) message += fmt::format("address {:#x} ", fault.address);
          Report({fault.kind, message + fault.text}, cudaErrorIllegalAddress);
        }
      });
}

WorkId Device::EnqueueLaunch(uint32_t stream, Launch launch) {
  const auto blocks = static_cast<uint32_t>(launch.grid.volume());
  return streams->Append(
      stream, blocks + 1, [this, stream, launch = std::move(launch)](const WorkContext& context) {
        if (sticky != cudaSuccess) return;
        LaunchCounts launch_counts;
        std::optional<Violation> violation = RunLaunch(launch, memory, shared, context.first_actor,
                                                       *context.unordered, &launch_counts);
        counts.operations += launch_counts.operations;
        if (!violation) return;
        violation->message += fmt::format(" (stream {})", stream);
        const bool is_address = violation->kind == ViolationKind::kOutOfBounds;
        Report(*std::move(violation),
               is_address ? cudaErrorIllegalAddress : cudaErrorLaunchFailure);
      });
}

void Device::AddUsedBytes(int64_t bytes) {
  used_bytes_ += static_cast<uint64_t>(bytes);
  counts.peak_bytes = std::max(counts.peak_bytes, used_bytes_);
}

cudaError_t Noted(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

cudaError_t LastError(const Device& device, bool clear) {
  if (device.sticky != cudaSuccess) return device.sticky;
  return clear ? std::exchange(last_error, cudaSuccess) : last_error;
}

// ---- emulation.h

EmulatedGpu::EmulatedGpu(const EmulatedGpuOptions& options) {
  Locked locked;
  locked.device.Configure(options);
}

EmulatedGpu::~EmulatedGpu() {
  Locked locked;
  locked.device.Configure({});
}

EmulatedGpuCounts EmulatedGpu::counts() const {
  Locked locked;
  return locked.device.counts;
}

size_t EmulatedGpu::live_allocations() const {
  Locked locked;
  return locked.device.memory.live_allocations() - locked.device.modules.variables();
}

size_t EmulatedGpu::live_host_allocations() const {
  Locked locked;
  return locked.device.host.live();
}

size_t EmulatedGpu::live_streams() const {
  Locked locked;
  return locked.device.streams->live();
}

size_t EmulatedGpu::live_events() const {
  Locked locked;
  return locked.device.events.size();
}

}  // namespace tiny_knn::emulation
