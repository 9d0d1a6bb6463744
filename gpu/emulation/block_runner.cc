#include "gpu/emulation/block_runner.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "fmt/format.h"

namespace tiny_knn::emulation {
namespace {

// Operations that a warp executes before others have their turn: one that waits for another in a
// loop does not keep it from running.
constexpr uint64_t kSlice = 100'000;

uint32_t Popcount(LaneMask lanes) { return static_cast<uint32_t>(__builtin_popcount(lanes)); }

// A path as nvcc saw it, which Bazel ran in a folder of its own:
// "/.../execroot/WORKSPACE/gpu/x.cu".
std::string_view InRepository(std::string_view path) {
  constexpr std::string_view kExecRoot = "/execroot/";
  const size_t root = path.rfind(kExecRoot);
  if (root == std::string_view::npos) return path;
  const size_t begin = path.find('/', root + kExecRoot.size());
  return begin == std::string_view::npos ? path : path.substr(begin + 1);
}

void FillSpecial(Warp& warp, Special special, uint32_t value) {
  if (((warp.block->program->specials >> static_cast<int>(special)) & 1) == 0) return;
  uint32_t* lanes = warp.Lanes<uint32_t>(static_cast<Slot>(special) * 4 * kLanes);
  std::fill(lanes, lanes + kLanes, value);
}

template <typename F>
void FillLanes(Warp& warp, Special special, F&& value) {
  if (((warp.block->program->specials >> static_cast<int>(special)) & 1) == 0) return;
  uint32_t* lanes = warp.Lanes<uint32_t>(static_cast<Slot>(special) * 4 * kLanes);
  for (uint32_t lane = 0; lane < kLanes; ++lane) lanes[lane] = value(lane);
}

// The special registers that are the same in every block.
void FillRegisters(Warp& warp, const Launch& launch, uint32_t warps) {
  std::vector<std::vector<std::byte>>& idle = launch.program->idle_registers;
  if (idle.empty()) {
    warp.registers = launch.program->initial_registers;
  } else {
    warp.registers = std::move(idle.back());
    idle.pop_back();
  }
  const Extent block = launch.block;
  const uint32_t first = warp.index * kLanes;
  FillLanes(warp, Special::kTidX, [=](uint32_t lane) { return (first + lane) % block.x; });
  FillLanes(warp, Special::kTidY,
            [=](uint32_t lane) { return (first + lane) / block.x % block.y; });
  FillLanes(warp, Special::kTidZ,
            [=](uint32_t lane) { return (first + lane) / block.x / block.y; });
  FillLanes(warp, Special::kLaneId, [](uint32_t lane) { return lane; });
  FillLanes(warp, Special::kMaskEq, [](uint32_t lane) { return 1U << lane; });
  FillLanes(warp, Special::kMaskLt, [](uint32_t lane) { return (1U << lane) - 1; });
  FillLanes(warp, Special::kMaskLe, [](uint32_t lane) { return (2U << lane) - 1; });
  FillLanes(warp, Special::kMaskGt, [](uint32_t lane) { return ~((2U << lane) - 1); });
  FillLanes(warp, Special::kMaskGe, [](uint32_t lane) { return ~((1U << lane) - 1); });
  FillSpecial(warp, Special::kNtidX, launch.block.x);
  FillSpecial(warp, Special::kNtidY, launch.block.y);
  FillSpecial(warp, Special::kNtidZ, launch.block.z);
  FillSpecial(warp, Special::kNctaidX, launch.grid.x);
  FillSpecial(warp, Special::kNctaidY, launch.grid.y);
  FillSpecial(warp, Special::kNctaidZ, launch.grid.z);
  FillSpecial(warp, Special::kWarpId, warp.index);
  FillSpecial(warp, Special::kWarps, warps);
  FillSpecial(warp, Special::kSms, launch.multiprocessors);
  FillSpecial(warp, Special::kDynamicShared, launch.dynamic_shared);
  FillSpecial(warp, Special::kTotalShared,
              launch.dynamic_shared + launch.program->shared.static_bytes);
}

}  // namespace

std::string DescribeStatement(const Program& program, uint32_t statement) {
  if (statement >= program.kernel->code.size()) return "the end";
  const PtxInstruction& instruction = program.kernel->code[statement];
  std::string_view text;
  if (instruction.line - 1 < program.module->lines.size()) {
    text = program.module->lines[instruction.line - 1];
  }
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  std::string described = fmt::format("PTX line {} `{}`", instruction.line, text);
  const auto file = program.module->files.find(instruction.source_file);
  if (file != program.module->files.end() && instruction.source_line != 0) {
    described += fmt::format(" ({}:{})", InRepository(file->second), instruction.source_line);
  }
  return described;
}

BlockRunner::BlockRunner(const Launch& launch, DeviceMemory& memory, SharedMemory& shared)
    : launch_(launch), shared_(shared), random_(launch.seed) {
  threads_ = static_cast<uint32_t>(launch.block.volume());
  block_.program = launch.program;
  block_.memory = &memory;
  block_.shared = &shared;
  block_.parameters = &launch.parameters;
  block_.threads = threads_;
  const uint32_t warps = (threads_ + kLanes - 1) / kLanes;
  warps_.resize(warps);
  for (uint32_t i = 0; i < warps; ++i) {
    Warp& warp = warps_[i].warp;
    warp.block = &block_;
    warp.index = i;
    const uint32_t lanes = std::min<uint32_t>(threads_ - i * kLanes, kLanes);
    warp.existing = lanes == kLanes ? kAllLanes : (LaneMask{1} << lanes) - 1;
    FillRegisters(warp, launch, warps);
    warp.local.resize(size_t{kLanes} * launch.program->local_bytes);
    turns_.push_back(i);
  }
  SharedLayout layout = launch.program->shared;
  if (launch.dynamic_shared > 0) {
    layout.variables.emplace_back(layout.dynamic_begin, launch.dynamic_shared);
  }
  shared.SetLayout(std::move(layout.variables), layout.dynamic_begin + launch.dynamic_shared);
}

BlockRunner::~BlockRunner() {
  for (WarpState& state : warps_) {
    launch_.program->idle_registers.push_back(std::move(state.warp.registers));
  }
}

void BlockRunner::Begin(const Extent& index, const Actor& actor) {
  block_.actor = actor;
  exited_threads_ = 0;
  for (BlockState::Reduction& reduction : block_.reductions) reduction = {};
  std::fill(std::begin(arrived_), std::end(arrived_), 0);
  shared_.BeginBlock(threads_);
  for (WarpState& state : warps_) {
    state.exited = 0;
    state.groups.assign(1, {.lanes = state.warp.existing});
    state.warp.local_written.assign(state.warp.local.size(), false);
    FillSpecial(state.warp, Special::kCtaidX, index.x);
    FillSpecial(state.warp, Special::kCtaidY, index.y);
    FillSpecial(state.warp, Special::kCtaidZ, index.z);
  }
}

void BlockRunner::Run(const Extent& index, const Actor& actor) {
  Begin(index, actor);
  while (exited_threads_ < threads_) {
    random_.Shuffle(turns_);
    const uint64_t before = block_.executed;
    for (const uint32_t i : turns_) RunWarp(warps_[i]);
    if (block_.executed == before) ReportStuck();
  }
}

void BlockRunner::RunWarp(WarpState& state) {
  uint64_t budget = kSlice;
  Group group;
  uint32_t limit = 0;
  bool any = false;
  while (PickGroup(state, any, &group, &limit)) {
    RunGroup(state, group, limit, &budget);
    if (budget > 0) continue;
    // Once more, with whichever group: the lowest may be waiting for another.
    if (any) return;
    any = true;
    budget = kSlice;
  }
}

bool BlockRunner::PickGroup(WarpState& state, bool any, Group* group, uint32_t* limit) {
  std::vector<Group>& groups = state.groups;
  const Group* picked = nullptr;
  size_t ready = 0;
  for (const Group& each : groups) {
    if (each.state != State::kReady) continue;
    ++ready;
    const bool better = any ? random_.Below(ready) == 0 : picked == nullptr || each.pc < picked->pc;
    if (better) picked = &each;
  }
  if (picked == nullptr) return false;
  *group = {.lanes = 0, .pc = picked->pc};
  *limit = ~uint32_t{0};
  size_t kept = 0;
  for (const Group& each : groups) {
    if (each.state == State::kReady && each.pc == group->pc) {
      group->lanes |= each.lanes;
      continue;
    }
    if (each.state == State::kReady && each.pc > group->pc) *limit = std::min(*limit, each.pc);
    groups[kept++] = each;
  }
  groups.resize(kept);
  return true;
}

void BlockRunner::RunGroup(WarpState& state, Group group, uint32_t limit, uint64_t* budget) {
  Warp& warp = state.warp;
  const Operation* code = launch_.program->code.data();
  const uint64_t begin = block_.executed;
  const uint64_t end = begin + *budget;
  for (; group.pc < limit && block_.executed < end; ++group.pc) {
    const Operation& operation = code[group.pc];
    place_.operation = &operation;
    place_.thread = -1;
    ++block_.executed;
    LaneMask lanes = group.lanes;
    if (operation.predicated) {
      const LaneMask predicate = warp.Predicate(operation.predicate);
      lanes &= operation.predicate_negated ? ~predicate : predicate;
      if (lanes == 0) continue;
    }
    if (operation.control == Control::kNone) {
      try {
        operation.run(warp, operation, lanes);
      } catch (const Fault& fault) {
        place_.thread = warp.Thread(fault.lane >= 0 ? fault.lane : __builtin_ctz(lanes));
        throw;
      }
      continue;
    }
    place_.thread = warp.Thread(__builtin_ctz(lanes));
    bool goes_on = false;
    switch (operation.control) {
      case Control::kBranch:
        goes_on = Branch(state, group, operation, lanes);
        break;
      case Control::kIndexedBranch:
        goes_on = IndexedBranch(state, group, operation, lanes);
        break;
      case Control::kExit:
        goes_on = Exit(state, group, lanes);
        break;
      case Control::kBlockBarrier:
        ArriveAtBarrier(state, group, operation, lanes);
        break;
      default:
        ArriveAtCollective(state, group, operation, lanes);
        break;
    }
    if (!goes_on) {
      *budget -= std::min(*budget, block_.executed - begin);
      return;
    }
  }
  state.groups.push_back(group);
  *budget -= std::min(*budget, block_.executed - begin);
  if (block_.executed > launch_.max_operations) {
    place_.thread = warp.Thread(__builtin_ctz(group.lanes));
    throw Fault{ViolationKind::kEndless,
                fmt::format("no end after {} operations", launch_.max_operations)};
  }
}

// A group that goes on is left at the operation before its next one.
bool BlockRunner::Branch(WarpState& state, Group& group, const Operation& operation,
                         LaneMask lanes) {
  if (lanes == group.lanes) {
    // Forward it may pass other groups: they are looked at again.
    const bool backward = operation.target <= group.pc;
    group.pc = operation.target;
    if (backward && state.groups.empty()) {
      --group.pc;
      return true;
    }
    state.groups.push_back(group);
    return false;
  }
  state.groups.push_back({.lanes = lanes, .pc = operation.target});
  state.groups.push_back({.lanes = group.lanes & ~lanes, .pc = group.pc + 1});
  return false;
}

bool BlockRunner::IndexedBranch(WarpState& state, Group& group, const Operation& operation,
                                LaneMask lanes) {
  const std::vector<uint32_t>& targets = launch_.program->indexed_targets[operation.target];
  const uint32_t* indices = state.warp.Lanes<uint32_t>(operation.source[0]);
  for (LaneMask rest = lanes; rest != 0;) {
    const int first = __builtin_ctz(rest);
    const uint32_t index = indices[first];
    if (index >= targets.size()) {
      place_.thread = state.warp.Thread(first);
      throw Fault{ViolationKind::kOutOfBounds,
                  fmt::format("branches to label {} of {}", index, targets.size())};
    }
    LaneMask same = 0;
    for (LaneMask each = rest; each != 0; each &= each - 1) {
      const int lane = __builtin_ctz(each);
      same |= static_cast<LaneMask>(indices[lane] == index) << lane;
    }
    state.groups.push_back({.lanes = same, .pc = targets[index]});
    rest &= ~same;
  }
  if (lanes != group.lanes) {
    state.groups.push_back({.lanes = group.lanes & ~lanes, .pc = group.pc + 1});
  }
  return false;
}

bool BlockRunner::Exit(WarpState& state, Group& group, LaneMask lanes) {
  state.exited |= lanes;
  exited_threads_ += Popcount(lanes);
  group.lanes &= ~lanes;
  return group.lanes != 0;
}

void BlockRunner::ArriveAtCollective(WarpState& state, Group group, const Operation& operation,
                                     LaneMask lanes) {
  if (lanes != group.lanes) {
    state.groups.push_back({.lanes = group.lanes & ~lanes, .pc = group.pc + 1});
  }
  const LaneMask* masks = state.warp.Lanes<LaneMask>(operation.source[3]);
  // Lanes that come together may name different masks: those of different parts of the warp.
  while (lanes != 0) {
    const LaneMask mask = masks[__builtin_ctz(lanes)];
    LaneMask same = 0;
    for (LaneMask rest = lanes; rest != 0; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      same |= static_cast<LaneMask>(masks[lane] == mask) << lane;
    }
    if ((same & ~mask) != 0) {
      const int lane = __builtin_ctz(same & ~mask);
      place_.thread = state.warp.Thread(lane);
      throw Fault{
          ViolationKind::kWrongMask,
          fmt::format("calls it with mask {:#x}, which leaves out lane {} itself", mask, lane)};
    }
    lanes &= ~same;
    if (!CompleteCollective(state, group.pc, same, mask)) {
      state.groups.push_back(
          {.lanes = same, .pc = group.pc, .state = State::kAtCollective, .mask = mask});
    }
  }
}

// Whether with the lanes `arrived` all of `mask` are there; then the collective is executed.
bool BlockRunner::CompleteCollective(WarpState& state, uint32_t pc, LaneMask arrived,
                                     LaneMask mask) {
  const Operation& operation = At(pc);
  const bool is_barrier = operation.control == Control::kWarpBarrier;
  const LaneMask needed = mask & state.warp.existing;
  if ((needed & state.exited) != 0) {
    const uint32_t gone = state.warp.Thread(__builtin_ctz(needed & state.exited));
    throw Fault{
        ViolationKind::kNeverReached,
        fmt::format("waits for a thread that never comes (mask {:#x}): thread {} has returned",
                    mask, gone)};
  }
  // A bar.warp.sync may stand at several places, any other collective is one instruction.
  const auto belongs = [&](const Group& group) {
    return group.state == State::kAtCollective && group.mask == mask &&
           (group.pc == pc || (is_barrier && At(group.pc).control == Control::kWarpBarrier));
  };
  LaneMask here = arrived;
  for (const Group& group : state.groups) {
    if (belongs(group)) here |= group.lanes;
  }
  if (here != needed) return false;
  if (is_barrier) {
    shared_.order().WarpBarrier(state.warp.index, needed);
  } else {
    try {
      operation.run(state.warp, operation, needed);
    } catch (const Fault& fault) {
      place_.thread = state.warp.Thread(fault.lane >= 0 ? fault.lane : __builtin_ctz(needed));
      throw;
    }
  }
  for (Group& group : state.groups) {
    if (belongs(group)) group = {.lanes = group.lanes, .pc = group.pc + 1};
  }
  state.groups.push_back({.lanes = arrived, .pc = pc + 1});
  return true;
}

void BlockRunner::ArriveAtBarrier(WarpState& state, Group group, const Operation& operation,
                                  LaneMask lanes) {
  if (lanes != group.lanes) {
    state.groups.push_back({.lanes = group.lanes & ~lanes, .pc = group.pc + 1});
  }
  const int first = __builtin_ctz(lanes);
  const uint32_t barrier = state.warp.Lanes<uint32_t>(operation.source[0])[first];
  if (barrier >= 16) throw Fault{ViolationKind::kOutOfBounds, "a block has 16 barriers"};
  uint32_t needed = threads_;
  if (operation.values == 2) needed = state.warp.Lanes<uint32_t>(operation.source[1])[first];
  if (operation.variant != 0) {
    LaneMask votes = state.warp.Predicate(operation.source[2]);
    if ((operation.negated_sources & 4) != 0) votes = ~votes;
    votes &= lanes;
    BlockState::Reduction& reduction = block_.reductions[barrier];
    reduction.count += Popcount(votes);
    reduction.all &= votes == lanes;
    reduction.any |= votes != 0;
  }
  state.groups.push_back({.lanes = lanes,
                          .pc = group.pc,
                          .state = State::kAtBarrier,
                          .barrier = barrier,
                          .needed = needed});
  arrived_[barrier] += Popcount(lanes);
  if (arrived_[barrier] >= needed) ReleaseBarrier(barrier);
}

void BlockRunner::ReleaseBarrier(uint32_t barrier) {
  shared_.order().BlockBarrier();
  arrived_[barrier] = 0;
  for (WarpState& state : warps_) {
    const Group* first = nullptr;
    for (Group& group : state.groups) {
      if (group.state != State::kAtBarrier || group.barrier != barrier) continue;
      // bar.sync is "aligned": a warp comes to one instruction, or hardware may hang.
      if (first != nullptr && first->pc != group.pc + 1) {
        place_.operation = &At(group.pc);
        place_.thread = state.warp.Thread(__builtin_ctz(group.lanes));
        throw Fault{
            ViolationKind::kNeverReached,
            fmt::format("thread {} of the same warp waits at another barrier instruction: {}",
                        state.warp.Thread(__builtin_ctz(first->lanes)),
                        DescribeStatement(*launch_.program, At(first->pc - 1).statement))};
      }
      const Operation& operation = At(group.pc);
      if (operation.run != nullptr) operation.run(state.warp, operation, group.lanes);
      group = {.lanes = group.lanes, .pc = group.pc + 1};
      if (first == nullptr) first = &group;
    }
  }
  block_.reductions[barrier] = {};
}

std::string BlockRunner::WhereIs(uint32_t thread) const {
  const WarpState& state = warps_[thread / kLanes];
  const LaneMask lane = LaneMask{1} << (thread % kLanes);
  if ((state.exited & lane) != 0) return "has returned";
  for (const Group& group : state.groups) {
    if ((group.lanes & lane) == 0) continue;
    return fmt::format("waits at {}", DescribeStatement(*launch_.program, At(group.pc).statement));
  }
  return "is nowhere";
}

// Every thread has returned or waits. The first that waits is blamed.
void BlockRunner::ReportStuck() {
  for (const WarpState& state : warps_) {
    for (const Group& group : state.groups) {
      LaneMask missing_lanes = group.mask & state.warp.existing & ~group.lanes;
      uint32_t missing = threads_;
      uint32_t count = 0;
      if (group.state == State::kAtCollective) {
        // Of those whom it names, who wait elsewhere.
        for (const Group& other : state.groups) {
          if (other.state == State::kAtCollective && other.pc == group.pc &&
              other.mask == group.mask) {
            missing_lanes &= ~other.lanes;
          }
        }
        count = Popcount(missing_lanes);
        if (count > 0) missing = state.warp.Thread(__builtin_ctz(missing_lanes));
      } else {
        for (uint32_t thread = threads_; thread-- > 0;) {
          const WarpState& its = warps_[thread / kLanes];
          const LaneMask lane = LaneMask{1} << (thread % kLanes);
          const bool waits = std::any_of(its.groups.begin(), its.groups.end(), [&](const auto& at) {
            return (at.lanes & lane) != 0 && at.state == State::kAtBarrier &&
                   at.barrier == group.barrier;
          });
          if (waits) continue;
          missing = thread;
          ++count;
        }
      }
      if (count == 0) continue;
      place_.operation = &At(group.pc);
      place_.thread = state.warp.Thread(__builtin_ctz(group.lanes));
      throw Fault{ViolationKind::kNeverReached,
                  fmt::format("waits for {}: thread {} {}",
                              count == 1 ? "a thread that never comes"
                                         : fmt::format("{} threads that never come", count),
                              missing, WhereIs(missing))};
    }
  }
  throw Fault{ViolationKind::kNeverReached, "the block's threads wait for each other"};
}

}  // namespace tiny_knn::emulation
