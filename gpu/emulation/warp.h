// What a warp's operations work on while they run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "gpu/emulation/device_memory.h"
#include "gpu/emulation/program.h"
#include "gpu/emulation/shared_memory.h"

namespace tiny_knn::emulation {

// The block that runs, and its launch.
struct BlockState {
  const Program* program = nullptr;
  DeviceMemory* memory = nullptr;
  SharedMemory* shared = nullptr;
  const std::vector<std::byte>* parameters = nullptr;
  Actor actor;
  uint32_t threads = 0;
  uint64_t executed = 0;  // operations, of all warps
  // What bar.red has gathered, by barrier: threads counted, and whether all or any were true.
  struct Reduction {
    uint32_t count = 0;
    bool all = true;
    bool any = false;
  };
  Reduction reductions[16];
};

struct Warp {
  BlockState* block = nullptr;
  uint32_t index = 0;     // in the block
  LaneMask existing = 0;  // lanes that have a thread
  std::vector<std::byte> registers;
  std::vector<std::byte> local;     // [32, local_bytes]
  std::vector<bool> local_written;  // likewise
  uint8_t carries[kLanes] = {};     // the condition code of add.cc

  uint32_t Thread(int lane) const { return index * kLanes + static_cast<uint32_t>(lane); }

  // The 32 lanes of a register.
  template <typename T>
  T* Lanes(Slot slot) {
    return reinterpret_cast<T*>(registers.data() + slot);
  }
  // A predicate register: bit i is lane i's.
  LaneMask& Predicate(Slot slot) { return *Lanes<LaneMask>(slot); }
};

// The lanes whose flag is 1; the others are 0.
inline LaneMask MaskOf(const uint8_t flags[kLanes]) {
  LaneMask mask = 0;
  for (int first = 0; first < kLanes; first += 8) {
    uint64_t eight = 0;
    std::memcpy(&eight, flags + first, sizeof(eight));
    // Flag i of the eight, at bit 8 i, goes to bit 56 + i; no two products meet.
    mask |= static_cast<LaneMask>((eight * 0x0102040810204080u) >> 56) << first;
  }
  return mask;
}

// Calls f(lane) for the lanes of a mask; for all 32 in a loop that the compiler can vectorise.
template <typename F>
inline void ForLanes(LaneMask lanes, F&& f) {
  if (lanes == kAllLanes) {
#pragma GCC ivdep
    for (int lane = 0; lane < kLanes; ++lane) f(lane);
    return;
  }
  for (; lanes != 0; lanes &= lanes - 1) f(__builtin_ctz(lanes));
}

}  // namespace tiny_knn::emulation
