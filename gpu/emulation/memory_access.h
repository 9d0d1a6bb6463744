// How a warp reads and writes memory: addresses of lanes to bytes, through the checks of each state
// space. Shared by loads, stores and atomics.
#pragma once

#include <cstdint>

#include "gpu/emulation/warp.h"

namespace tiny_knn::emulation {

// The addresses of the lanes `lanes` of a memory operation, as the statement gives them.
void LaneAddresses(const Warp& warp, const Operation& operation, LaneMask lanes,
                   uint64_t addresses[kLanes]);

// The state space that an address of `space` lies in, and, for a generic one, its address there.
// A generic address in no window of ours counts as global.
StateSpace ResolveSpace(const Warp& warp, StateSpace space, uint64_t* address);

// Pointer to the `bytes` bytes of one lane after the checks of a read; `address` as ResolveSpace
// gives it. Throws Fault.
const std::byte* ReadLane(Warp& warp, StateSpace space, int lane, uint64_t address, uint32_t bytes,
                          Strength strength);
// Likewise of a write, of `value`.
std::byte* WriteLane(Warp& warp, StateSpace space, int lane, uint64_t address, uint32_t bytes,
                     Strength strength, const void* value);
// Likewise of an atomic operation.
std::byte* UpdateLane(Warp& warp, StateSpace space, int lane, uint64_t address, uint32_t bytes);

}  // namespace tiny_knn::emulation
