#include "gpu/open_engine.h"

#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "core/cpu/cpu_engine.h"
#include "fmt/format.h"
#include "gpu/cuda_engine.h"

namespace tiny_knn {
namespace {

// The N of "cuda:N": digits only, at most three. More devices than that are in no machine.
std::optional<int> ParseDeviceIndex(std::string_view text) {
  if (text.empty() || text.size() > 3) return std::nullopt;
  int index = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (error != std::errc() || end != text.data() + text.size() || index < 0) return std::nullopt;
  return index;
}

}  // namespace

absl::StatusOr<OpenedEngine> OpenEngine(const EngineOptions& options) {
  const std::string_view device = options.device;
  constexpr std::string_view kCudaPrefix = "cuda:";
  OpenedEngine opened;
  if (device == "cpu") {
    opened.engine = MakeCpuEngine();
    return opened;
  }
  if (device == "auto") {
    absl::StatusOr<std::unique_ptr<Engine>> cuda = MakeCudaEngine(0, options.gpu_memory_bytes);
    if (cuda.ok()) {
      opened.engine = *std::move(cuda);
      return opened;
    }
    opened.engine = MakeCpuEngine();
    // A device that is there and of no use is worth the reason.
    opened.note = absl::IsFailedPrecondition(cuda.status())
                      ? fmt::format("{}: using the CPU", std::string(cuda.status().message()))
                      : "no CUDA device: using the CPU";
    return opened;
  }
  std::optional<int> index;
  if (device == "cuda") {
    index = 0;
  } else if (device.substr(0, kCudaPrefix.size()) == kCudaPrefix) {
    index = ParseDeviceIndex(device.substr(kCudaPrefix.size()));
  }
  if (!index) {
    return absl::InvalidArgumentError(fmt::format(
        "device '{}' is not known; give auto, cpu, cuda or cuda:N (N = 0, 1, ...)", device));
  }
  absl::StatusOr<std::unique_ptr<Engine>> cuda = MakeCudaEngine(*index, options.gpu_memory_bytes);
  if (!cuda.ok()) {
    // Nothing is wrong with what was asked for; it is this machine that lacks it.
    return absl::UnavailableError(
        fmt::format("{}; use --device cpu", std::string(cuda.status().message())));
  }
  opened.engine = *std::move(cuda);
  return opened;
}

}  // namespace tiny_knn
