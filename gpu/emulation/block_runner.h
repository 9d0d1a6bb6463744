// Schedules the warps of one block: groups of lanes, branches, barriers, and who waits for whom.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gpu/emulation/interpreter.h"
#include "gpu/emulation/random.h"
#include "gpu/emulation/warp.h"

namespace tiny_knn::emulation {

// Where in a launch a fault happened.
struct FaultPlace {
  const Operation* operation = nullptr;
  int64_t thread = -1;  // in the block; -1: not known
};

// Runs blocks of one launch, one after another, and keeps their register files between them.
class BlockRunner {
 public:
  // All outlive the runner.
  BlockRunner(const Launch& launch, DeviceMemory& memory, SharedMemory& shared);
  ~BlockRunner();
  BlockRunner(const BlockRunner&) = delete;
  BlockRunner& operator=(const BlockRunner&) = delete;

  // Runs the block `index` of the grid as `actor`. Throws Fault; place() then says where.
  void Run(const Extent& index, const Actor& actor);

  FaultPlace place() const { return place_; }
  uint64_t executed() const { return block_.executed; }

 private:
  enum class State : uint8_t { kReady, kAtBarrier, kAtCollective };
  // Lanes of a warp that are at the same place.
  struct Group {
    LaneMask lanes = 0;
    uint32_t pc = 0;
    State state = State::kReady;
    LaneMask mask = 0;     // kAtCollective: who has to come
    uint32_t barrier = 0;  // kAtBarrier
    uint32_t needed = 0;   // kAtBarrier: threads
  };
  struct WarpState {
    Warp warp;
    std::vector<Group> groups;
    LaneMask exited = 0;
  };

  void Begin(const Extent& index, const Actor& actor);
  void RunWarp(WarpState& state);
  // Picks the next group of a warp, merged with others at its place; false if none is ready.
  // `limit`: where another ready group waits for it.
  bool PickGroup(WarpState& state, bool any, Group* group, uint32_t* limit);
  // Runs `group` until it has to be looked at again; what is left of it goes back to the warp.
  void RunGroup(WarpState& state, Group group, uint32_t limit, uint64_t* budget);
  // Each returns false when the group is done with, having put its lanes back.
  bool Branch(WarpState& state, Group& group, const Operation& operation, LaneMask lanes);
  bool IndexedBranch(WarpState& state, Group& group, const Operation& operation, LaneMask lanes);
  bool Exit(WarpState& state, Group& group, LaneMask lanes);
  void ArriveAtCollective(WarpState& state, Group group, const Operation& operation,
                          LaneMask lanes);
  void ArriveAtBarrier(WarpState& state, Group group, const Operation& operation, LaneMask lanes);
  void ReleaseBarrier(uint32_t barrier);
  bool CompleteCollective(WarpState& state, uint32_t pc, LaneMask arrived, LaneMask mask);
  [[noreturn]] void ReportStuck();
  std::string WhereIs(uint32_t thread) const;
  const Operation& At(uint32_t pc) const { return launch_.program->code[pc]; }

  const Launch& launch_;
  SharedMemory& shared_;
  BlockState block_;
  std::vector<WarpState> warps_;
  Random random_;
  std::vector<uint32_t> turns_;  // the warps, in the order in which they run next
  uint32_t arrived_[16] = {};    // threads that wait at each barrier
  FaultPlace place_;
  uint32_t threads_ = 0;
  uint32_t exited_threads_ = 0;
};

// "line 12 `bar.sync 0`", of the PTX text, with the source's line where the PTX names it.
std::string DescribeStatement(const Program& program, uint32_t statement);

}  // namespace tiny_knn::emulation
