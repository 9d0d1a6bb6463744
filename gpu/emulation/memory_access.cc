#include "gpu/emulation/memory_access.h"

#include <cstring>

#include "fmt/format.h"

namespace tiny_knn::emulation {
namespace {

// Position in the warp's local memory of one lane's bytes, after the checks.
size_t LocalOffset(const Warp& warp, int lane, uint64_t address, uint32_t bytes) {
  const uint64_t size = warp.block->program->local_bytes;
  if (address >= size || bytes > size - address) {
    throw Fault{ViolationKind::kOutOfBounds, "is outside the thread's local memory", address, lane};
  }
  if (address % bytes != 0) {
    throw Fault{ViolationKind::kMisaligned, fmt::format("is not aligned to {}", bytes), address,
                lane};
  }
  return static_cast<size_t>(lane) * size + address;
}

}  // namespace

void LaneAddresses(const Warp& warp, const Operation& operation, LaneMask lanes,
                   uint64_t addresses[kLanes]) {
  const auto offset = static_cast<uint64_t>(operation.immediate);
  const std::byte* base = warp.registers.data() + operation.source[0];
  if (!operation.has_base) {
    ForLanes(lanes, [=](int lane) { addresses[lane] = offset; });
  } else if (operation.wide_address) {
    const auto* bases = reinterpret_cast<const uint64_t*>(base);
    ForLanes(lanes, [=](int lane) { addresses[lane] = bases[lane] + offset; });
  } else {
    const auto* bases = reinterpret_cast<const uint32_t*>(base);
    ForLanes(lanes, [=](int lane) {
      addresses[lane] = static_cast<uint32_t>(bases[lane] + static_cast<uint32_t>(offset));
    });
  }
}

StateSpace ResolveSpace(const Warp& warp, StateSpace space, uint64_t* address) {
  if (space != StateSpace::kGeneric) return space;
  const AddressSpace& windows = warp.block->memory->space();
  for (const auto& [window, named] : {std::pair(windows.shared, StateSpace::kShared),
                                      std::pair(windows.local, StateSpace::kLocal),
                                      std::pair(windows.param, StateSpace::kParam)}) {
    if (*address - window < AddressSpace::kWindowBytes) {
      *address -= window;
      return named;
    }
  }
  return StateSpace::kGlobal;
}

bool AreShared(const Warp& warp, StateSpace space, LaneMask lanes, uint64_t addresses[kLanes]) {
  if (space != StateSpace::kGeneric) return space == StateSpace::kShared;
  const uint64_t window = warp.block->memory->space().shared;
  for (LaneMask rest = lanes; rest != 0; rest &= rest - 1) {
    if (addresses[__builtin_ctz(rest)] - window >= AddressSpace::kWindowBytes) return false;
  }
  for (; lanes != 0; lanes &= lanes - 1) addresses[__builtin_ctz(lanes)] -= window;
  return true;
}

const std::byte* ReadLane(Warp& warp, StateSpace space, int lane, uint64_t address, uint32_t bytes,
                          Strength strength) {
  switch (space) {
    case StateSpace::kShared: {
      uint64_t addresses[kLanes];
      addresses[lane] = address;
      return address +
             warp.block->shared->Read(warp.index, LaneMask{1} << lane, addresses, bytes, strength);
    }
    case StateSpace::kLocal: {
      const size_t at = LocalOffset(warp, lane, address, bytes);
      for (size_t i = at; i < at + bytes; ++i) {
        if (!warp.local_written[i]) {
          throw Fault{ViolationKind::kUninitialised, "of local memory was never written",
                      address + (i - at), lane};
        }
      }
      return warp.local.data() + at;
    }
    case StateSpace::kParam: {
      const auto& parameters = *warp.block->parameters;
      if (address > parameters.size() || bytes > parameters.size() - address) {
        throw Fault{ViolationKind::kOutOfBounds, "is outside the parameters", address, lane};
      }
      return parameters.data() + address;
    }
    default:
      try {
        return warp.block->memory->Read(warp.block->actor, address, bytes, bytes, strength);
      } catch (Fault& fault) {
        fault.lane = lane;
        throw;
      }
  }
}

void WriteLane(Warp& warp, StateSpace space, int lane, uint64_t address, uint32_t bytes,
               Strength strength, const std::byte* values) {
  const std::byte* value = values + static_cast<size_t>(lane) * bytes;
  switch (space) {
    case StateSpace::kShared: {
      uint64_t addresses[kLanes];
      addresses[lane] = address;
      warp.block->shared->Write(warp.index, LaneMask{1} << lane, addresses, bytes, strength,
                                values);
      return;
    }
    case StateSpace::kLocal: {
      const size_t at = LocalOffset(warp, lane, address, bytes);
      for (size_t i = at; i < at + bytes; ++i) warp.local_written[i] = true;
      std::memcpy(warp.local.data() + at, value, bytes);
      return;
    }
    case StateSpace::kParam:
      throw Fault{ViolationKind::kOutOfBounds, "is a parameter, which cannot be written", address,
                  lane};
    default:
      try {
        std::memcpy(warp.block->memory->Write(warp.block->actor, address, bytes, bytes, strength),
                    value, bytes);
      } catch (Fault& fault) {
        fault.lane = lane;
        throw;
      }
  }
}

std::byte* UpdateLane(Warp& warp, StateSpace space, int lane, uint64_t address, uint32_t bytes) {
  if (space == StateSpace::kShared) {
    return warp.block->shared->Update(warp.Thread(lane), address, bytes);
  }
  if (space != StateSpace::kGlobal && space != StateSpace::kGeneric) {
    throw Fault{ViolationKind::kOutOfBounds, "is neither global nor shared memory", address, lane};
  }
  try {
    return warp.block->memory->Update(warp.block->actor, address, bytes);
  } catch (Fault& fault) {
    fault.lane = lane;
    throw;
  }
}

}  // namespace tiny_knn::emulation
