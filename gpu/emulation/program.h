// A kernel, decoded: an array of operations on a register file that holds 32 lanes of each
// register.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "gpu/emulation/ptx_program.h"

namespace tiny_knn::emulation {

constexpr int kLanes = 32;
using LaneMask = uint32_t;
constexpr LaneMask kAllLanes = ~LaneMask{0};

struct Warp;
struct Operation;
// Executes one operation for `lanes` of a warp. Throws Fault.
using Handler = void (*)(Warp& warp, const Operation& operation, LaneMask lanes);

// What the scheduler itself has to do for an operation.
enum class Control : uint8_t {
  kNone,           // the handler does it all
  kBranch,         // to `target`
  kIndexedBranch,  // to a label of `targets`, by the register `source[0]`
  kExit,
  kBlockBarrier,    // bar.sync, bar.red; the handler combines the predicates
  kWarpCollective,  // the handler runs when all lanes of the mask are here
  kWarpBarrier,     // bar.warp.sync: the same, wherever in the code the lanes are
};

// Where a register, constant or special register lies: bytes from the beginning of a register file.
using Slot = uint32_t;

struct Operation {
  Handler run = nullptr;
  Control control = Control::kNone;
  bool predicated = false;
  bool predicate_negated = false;
  // Sources that are predicates and negated, bit i for source i.
  uint8_t negated_sources = 0;
  uint8_t variant = 0;  // of a family of instructions, what the handler says it is
  // Memory operations:
  StateSpace space = StateSpace::kGeneric;
  uint8_t bytes = 0;           // of one value
  uint8_t values = 1;          // 2, 4 (or 8) with .v2, .v4
  uint8_t register_bytes = 0;  // of the registers that are loaded and stored
  bool sign_extends = false;
  bool strong = false;
  bool wide_address = false;  // the base register has 64 bits
  bool has_base = false;      // else the address is `immediate`
  Slot predicate = 0;
  Slot destination = 0;
  Slot source[4] = {};
  Slot vector[8] = {};  // the values of a vector access; of `d|p` the p stands in [1]
  int64_t immediate = 0;
  uint32_t target = 0;
  uint32_t statement = 0;  // index into PtxKernel::code
};

// The registers %tid.x and so on, each a slot of its own at the beginning of a register file.
enum class Special : uint8_t {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneId,
  kWarpId,
  kWarps,
  kMaskEq,
  kMaskLt,
  kMaskLe,
  kMaskGt,
  kMaskGe,
  kSmId,
  kSms,
  kClock,
  kDynamicShared,
  kTotalShared,
  kZero,
  kCount,
};

// Where the variables of a kernel lie in its shared memory.
struct SharedLayout {
  std::vector<std::pair<uint32_t, uint32_t>> variables;  // beginning and bytes, ascending
  uint32_t static_bytes = 0;   // what the kernel itself asks for, as a GPU would count it
  uint32_t dynamic_begin = 0;  // where the launch's bytes begin
};

struct Program {
  const PtxModule* module = nullptr;
  const PtxKernel* kernel = nullptr;
  std::vector<Operation> code;
  std::vector<std::vector<uint32_t>> indexed_targets;  // of kIndexedBranch, `target` names one
  uint32_t register_file_bytes = 0;
  std::vector<std::byte> initial_registers;  // a register file with the constants in their slots
  uint32_t specials = 0;  // the special registers that it names: bit i for Special i
  SharedLayout shared;
  uint32_t local_bytes = 0;  // of one thread
  // Register files of launches that are over, for the next one: constants are in their slots.
  mutable std::vector<std::vector<std::byte>> idle_registers;
};

}  // namespace tiny_knn::emulation
