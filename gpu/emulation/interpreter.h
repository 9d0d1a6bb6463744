// Runs a launch: its blocks one after another in a seeded order, the warps of a block in turns.
//
// Lanes of a warp run together while they are at the same place; the group of lanes at the lowest
// place runs first, so that branches come together again. Nobody waits for ever: what cannot go on
// is reported, with who waits for whom.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "gpu/emulation/device_memory.h"
#include "gpu/emulation/program.h"
#include "gpu/emulation/shared_memory.h"
#include "gpu/emulation/violation.h"

namespace tiny_knn::emulation {

struct Extent {
  uint32_t x = 1, y = 1, z = 1;
  uint64_t volume() const { return uint64_t{x} * y * z; }
};

struct Launch {
  const Program* program = nullptr;
  Extent grid, block;
  uint32_t dynamic_shared = 0;                  // bytes
  std::vector<std::byte> parameters;            // kernel->parameter_bytes
  uint64_t seed = 0;                            // of the order of blocks and warps
  uint64_t max_operations = uint64_t{1} << 33;  // of all warps, before the launch counts as endless
  uint32_t multiprocessors = 1;
};

struct LaunchCounts {
  uint64_t operations = 0;  // that warps executed
};

// Runs all blocks. The actors of the launch are `first_actor` and, for block i in the order in
// which they run, first_actor + 1 + i. Returns the first violation; the launch ends with it.
std::optional<Violation> RunLaunch(const Launch& launch, DeviceMemory& memory, SharedMemory& shared,
                                   uint32_t first_actor,
                                   const std::vector<std::pair<uint32_t, uint32_t>>& unordered,
                                   LaunchCounts* counts);

}  // namespace tiny_knn::emulation
