#include "gpu/emulation/interpreter.h"

#include <cxxabi.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "fmt/format.h"
#include "gpu/emulation/block_runner.h"
#include "gpu/emulation/random.h"

namespace tiny_knn::emulation {
namespace {

std::string Demangled(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), &std::free);
  return status == 0 ? std::string(text.get()) : name;
}

Extent Position(uint64_t index, const Extent& extent) {
  return {static_cast<uint32_t>(index % extent.x),
          static_cast<uint32_t>(index / extent.x % extent.y),
          static_cast<uint32_t>(index / extent.x / extent.y)};
}

std::string Text(const Extent& position) {
  return fmt::format("({},{},{})", position.x, position.y, position.z);
}

// `order`: the blocks as they ran.
Violation Describe(const Launch& launch, const Extent& block, const FaultPlace& place,
                   const Fault& fault, const std::vector<uint32_t>& order) {
  std::string message =
      fmt::format("{}: block {}", Demangled(launch.program->kernel->name), Text(block));
  if (place.thread >= 0) {
    message += fmt::format(" thread {}",
                           Text(Position(static_cast<uint64_t>(place.thread), launch.block)));
  }
  if (place.operation != nullptr) {
    message += ": " + DescribeStatement(*launch.program, place.operation->statement);
  }
  message += ": ";
  if (fault.address != 0) message += fmt::format("address {:#x} ", fault.address);
  message += fault.text;
  if (fault.other_block >= 0 && fault.other_block < static_cast<int64_t>(order.size())) {
    const uint32_t other = order[static_cast<size_t>(fault.other_block)];
    message += ": block " + Text(Position(other, launch.grid));
  }
  return {fault.kind, message};
}

}  // namespace

std::optional<Violation> RunLaunch(const Launch& launch, DeviceMemory& memory, SharedMemory& shared,
                                   uint32_t first_actor,
                                   const std::vector<std::pair<uint32_t, uint32_t>>& unordered,
                                   LaunchCounts* counts) {
  std::vector<uint32_t> order(launch.grid.volume());
  for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  Random(launch.seed).Shuffle(order);
  BlockRunner runner(launch, memory, shared);
  std::optional<Violation> violation;
  for (uint32_t i = 0; i < order.size() && !violation; ++i) {
    const Extent block = Position(order[i], launch.grid);
    const Actor actor{.first = first_actor, .id = first_actor + 1 + i, .unordered = &unordered};
    try {
      runner.Run(block, actor);
    } catch (const Fault& fault) {
      violation = Describe(launch, block, runner.place(), fault, order);
    }
  }
  counts->operations = runner.executed();
  return violation;
}

}  // namespace tiny_knn::emulation
