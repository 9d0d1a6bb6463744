// Branches, exits, block-wide barriers, fences and traps.
#include <string_view>

#include "gpu/emulation/kernel_decoder.h"
#include "gpu/emulation/warp.h"

namespace tiny_knn::emulation {
namespace {

constexpr PtxType kU32{TypeKind::kUnsigned, 4, 1};

void Nothing(Warp& /*warp*/, const Operation& /*operation*/, LaneMask /*lanes*/) {}

void Trap(Warp& /*warp*/, const Operation& /*operation*/, LaneMask /*lanes*/) {
  throw Fault{ViolationKind::kTrap, "was executed"};
}

void FailAssertion(Warp& /*warp*/, const Operation& /*operation*/, LaneMask /*lanes*/) {
  throw Fault{ViolationKind::kTrap, "an assertion of the device code failed"};
}

// After a bar.red has been passed by all: its result. `variant`: 1 popc, 2 and, 3 or.
void StoreReduction(Warp& warp, const Operation& operation, LaneMask lanes) {
  const uint32_t barrier = warp.Lanes<uint32_t>(operation.source[0])[__builtin_ctz(lanes)] & 15;
  const BlockState::Reduction& reduction = warp.block->reductions[barrier];
  if (operation.variant == 1) {
    uint32_t* d = warp.Lanes<uint32_t>(operation.destination);
    ForLanes(lanes, [=](int lane) { d[lane] = reduction.count; });
    return;
  }
  const bool result = operation.variant == 2 ? reduction.all : reduction.any;
  LaneMask& d = warp.Predicate(operation.destination);
  d = result ? d | lanes : d & ~lanes;
}

// bar.sync a{, b}; bar.red.op d, a{, b}, p. source[0]: the barrier; [1]: the threads, where
// `values` is 2; [2]: the predicate of a reduction.
bool DecodeBarrier(KernelDecoder& decoder, const PtxInstruction& statement) {
  const bool reduces = statement.has("red");
  if (!reduces && !statement.has("sync")) throw KernelDecoder::Unsupported{"this barrier"};
  if (statement.has("cluster")) throw KernelDecoder::Unsupported{"a barrier of clusters"};
  Operation operation = decoder.New(reduces ? &StoreReduction : nullptr);
  operation.control = Control::kBlockBarrier;
  const size_t first = reduces ? 1 : 0;
  const size_t last = statement.operands.size() - (reduces ? 1 : 0);
  operation.source[0] = decoder.Source(statement.operands.at(first), kU32);
  if (last - first == 2) {
    operation.values = 2;
    operation.source[1] = decoder.Source(statement.operands.at(first + 1), kU32);
  }
  if (reduces) {
    operation.variant = statement.has("popc") ? 1 : (statement.has("and") ? 2 : 3);
    operation.source[2] = decoder.PredicateSource(statement.operands.at(last), 2, &operation);
    const PtxType type = operation.variant == 1 ? kU32 : PtxType{TypeKind::kPredicate, 0, 1};
    operation.destination = decoder.Destination(statement.operands[0], type);
  }
  decoder.Emit(operation);
  return true;
}

bool EmitControl(KernelDecoder& decoder, Control control) {
  Operation operation = decoder.New(nullptr);
  operation.control = control;
  decoder.Emit(operation);
  return true;
}

bool EmitHandler(KernelDecoder& decoder, Handler handler) {
  decoder.Emit(decoder.New(handler));
  return true;
}

}  // namespace

bool DecodeControl(KernelDecoder& decoder, const PtxInstruction& statement) {
  const std::string_view opcode = statement.opcode;
  if (opcode == "bra") {
    if (statement.operands.size() != 1) throw KernelDecoder::Unsupported{"this branch"};
    return EmitControl(decoder, Control::kBranch);
  }
  if (opcode == "brx") {
    Operation operation = decoder.New(nullptr);
    operation.control = Control::kIndexedBranch;
    operation.source[0] = decoder.Source(statement.operands.at(0), kU32);
    if (statement.operands.size() != 2) throw KernelDecoder::Unsupported{"this branch"};
    decoder.Emit(operation);
    return true;
  }
  if (opcode == "ret" || opcode == "exit") return EmitControl(decoder, Control::kExit);
  if (opcode == "trap" || opcode == "brkpt") return EmitHandler(decoder, &Trap);
  if (opcode == "membar" || opcode == "fence" || opcode == "nanosleep" || opcode == "pmevent" ||
      opcode == "griddepcontrol") {
    return EmitHandler(decoder, &Nothing);
  }
  if (opcode == "call") {
    for (const PtxOperand& operand : statement.operands) {
      if (operand.name == "__assertfail") return EmitHandler(decoder, &FailAssertion);
    }
    throw KernelDecoder::Unsupported{"a call"};
  }
  if (opcode == "barrier" || (opcode == "bar" && !statement.has("warp"))) {
    return DecodeBarrier(decoder, statement);
  }
  return false;
}

}  // namespace tiny_knn::emulation
