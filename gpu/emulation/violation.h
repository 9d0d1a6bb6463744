// What the emulation checks and a GPU does not: the kinds of violations, and where they are
// reported.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tiny_knn::emulation {

enum class ViolationKind : uint8_t {
  kOutOfBounds,    // an address outside every live allocation or variable
  kMisaligned,     // an address that is no multiple of the access's size
  kUninitialised,  // a read of bytes that nobody has written
  kSharedRace,     // two threads of a block, no barrier between
  kBlockRace,      // two blocks of a launch on a byte of global memory
  kStreamRace,     // two operations of streams that nothing orders on a byte of device memory
  kNeverReached,   // a barrier or warp collective that a thread never reaches
  kWrongMask,      // a warp collective whose mask leaves out a caller, or a read of a lane that it
                   // lacks
  kPinnedReuse,    // a host buffer that changed, or was freed, while a copy was pending
  kHostBuffer,     // a copy that names device memory as host memory, or the other way round
  kEndless,        // no end after the most instructions that a launch may execute
  kTrap,           // trap, or a failed assertion
  kUnsupported,    // an instruction or a use of the API that the emulation does not know
};

std::string_view ViolationName(ViolationKind kind);

struct Violation {
  ViolationKind kind = ViolationKind::kUnsupported;
  std::string message;  // one line: kernel, instruction, thread, block, address, what is wrong
};

// Thrown where a check fails, caught by the operation that runs. Never crosses the package's
// border.
struct Fault {
  ViolationKind kind = ViolationKind::kUnsupported;
  std::string text;
  uint64_t address = 0;  // of the first bad byte; 0: none
  int lane = -1;         // of the warp that runs; -1: whoever accesses `address`
  // kBlockRace: which of the blocks that have run is the other one, in their order; -1: several.
  int64_t other_block = -1;
};

// Hands a violation to whoever expects it. Without anybody, prints it and aborts. Thread-safe.
void ReportViolation(Violation violation);

// While one is alive, violations are collected in it and the process goes on. One at a time.
class ViolationCollector {
 public:
  ViolationCollector();
  ~ViolationCollector();
  ViolationCollector(const ViolationCollector&) = delete;
  ViolationCollector& operator=(const ViolationCollector&) = delete;

  // Those since construction or the last call.
  std::vector<Violation> Take();
};

}  // namespace tiny_knn::emulation
