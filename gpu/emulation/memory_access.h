// How a warp reads and writes memory: addresses of lanes to bytes, through the checks of each state
// space. Used by loads, stores and atomics. Shared memory checks the lanes of a load or store
// together (shared_memory.h).
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

// Whether every lane's address lies in shared memory; those of generic addresses are changed to
// what they are there.
bool AreShared(const Warp& warp, StateSpace space, LaneMask lanes, uint64_t addresses[kLanes]);

// Pointer to the `bytes` bytes of one lane after the checks of a read; `address` as ResolveSpace
// gives it. Throws Fault.
const std::byte* ReadLane(Warp& warp, StateSpace space, int lane, uint64_t address, uint32_t bytes,
                          Strength strength);
// Writes one lane's bytes after the checks: `values` from lane * bytes on. Throws Fault.
void WriteLane(Warp& warp, StateSpace space, int lane, uint64_t address, uint32_t bytes,
               Strength strength, const std::byte* values);
// As ReadLane, for an atomic operation.
std::byte* UpdateLane(Warp& warp, StateSpace space, int lane, uint64_t address, uint32_t bytes);

}  // namespace tiny_knn::emulation
