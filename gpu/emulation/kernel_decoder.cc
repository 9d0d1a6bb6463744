#include "gpu/emulation/kernel_decoder.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>
#include <type_traits>

#include "fmt/format.h"
#include "gpu/emulation/warp.h"

namespace tiny_knn::emulation {
namespace {

// Free bytes between shared variables, so that one that is overrun is noticed.
constexpr uint32_t kSharedGap = 16;

constexpr PtxType kU32{TypeKind::kUnsigned, 4, 1};
constexpr PtxType kU64{TypeKind::kUnsigned, 8, 1};

uint32_t RoundUp(uint32_t value, uint32_t align) {
  return align <= 1 ? value : (value + align - 1) / align * align;
}

// Slots take 32 values of their width; those of predicates are one mask.
uint32_t SlotBytes(PtxType type) {
  return type.kind == TypeKind::kPredicate ? 16
                                           : static_cast<uint32_t>(type.total_bytes()) * kLanes;
}

Slot SpecialSlot(Special special) { return static_cast<Slot>(special) * 4 * kLanes; }

static_assert(static_cast<int>(Special::kCount) <= 32);

// The slots of special registers; those that are wider than 32 bits are widened like any other.
const std::unordered_map<std::string_view, Special>& SpecialRegisters() {
  static const auto& names = *new std::unordered_map<std::string_view, Special>{
      {"%tid.x", Special::kTidX},
      {"%tid.y", Special::kTidY},
      {"%tid.z", Special::kTidZ},
      {"%ntid.x", Special::kNtidX},
      {"%ntid.y", Special::kNtidY},
      {"%ntid.z", Special::kNtidZ},
      {"%ctaid.x", Special::kCtaidX},
      {"%ctaid.y", Special::kCtaidY},
      {"%ctaid.z", Special::kCtaidZ},
      {"%nctaid.x", Special::kNctaidX},
      {"%nctaid.y", Special::kNctaidY},
      {"%nctaid.z", Special::kNctaidZ},
      {"%laneid", Special::kLaneId},
      {"%warpid", Special::kWarpId},
      {"%nwarpid", Special::kWarps},
      {"%lanemask_eq", Special::kMaskEq},
      {"%lanemask_lt", Special::kMaskLt},
      {"%lanemask_le", Special::kMaskLe},
      {"%lanemask_gt", Special::kMaskGt},
      {"%lanemask_ge", Special::kMaskGe},
      {"%smid", Special::kSmId},
      {"%nsmid", Special::kSms},
      {"%clock", Special::kClock},
      {"%clock64", Special::kClock},
      {"%globaltimer", Special::kClock},
      {"%gridid", Special::kZero},
      {"%dynamic_smem_size", Special::kDynamicShared},
      {"%total_smem_size", Special::kTotalShared},
  };
  return names;
}

template <typename From, typename To>
void Resize(Warp& warp, const Operation& operation, LaneMask lanes) {
  const From* from = warp.Lanes<From>(operation.source[0]);
  To* to = warp.Lanes<To>(operation.destination);
  ForLanes(lanes, [=](int lane) {
    to[lane] =
        static_cast<To>(from[lane]);  // NOLINT(bugprone-signed-char-misuse): signs are extended
  });
}

// From `from` bytes to `to`, in registers.
Handler ResizeHandler(int from, int to, bool is_signed) {
  const auto pick = [to]<typename From>(From) -> Handler {
    constexpr bool kSigned = std::is_signed_v<From>;
    switch (to) {
      case 1:
        return &Resize<From, uint8_t>;
      case 2:
        return &Resize<From, std::conditional_t<kSigned, int16_t, uint16_t>>;
      case 4:
        return &Resize<From, std::conditional_t<kSigned, int32_t, uint32_t>>;
      case 8:
        return &Resize<From, std::conditional_t<kSigned, int64_t, uint64_t>>;
      default:
        throw KernelDecoder::Unsupported{"a register of this width"};
    }
  };
  switch (from) {
    case 1:
      return is_signed ? pick(int8_t{}) : pick(uint8_t{});
    case 2:
      return is_signed ? pick(int16_t{}) : pick(uint16_t{});
    case 4:
      return is_signed ? pick(int32_t{}) : pick(uint32_t{});
    case 8:
      return is_signed ? pick(int64_t{}) : pick(uint64_t{});
    default:
      throw KernelDecoder::Unsupported{"a register of this width"};
  }
}

void ReportUnsupported(Warp& /*warp*/, const Operation& /*operation*/, LaneMask /*lanes*/) {
  throw Fault{ViolationKind::kUnsupported, "the emulation does not know this instruction"};
}

}  // namespace

PtxType TypeOf(const PtxInstruction& statement) {
  PtxType type;
  bool found = false;
  for (const std::string& modifier : statement.modifiers) found |= ParsePtxType(modifier, &type);
  if (!found) throw KernelDecoder::Unsupported{"an instruction without a type"};
  return type;
}

std::unique_ptr<Program> DecodeKernel(const PtxModule& module, const PtxKernel& kernel,
                                      const VariableAddresses& variables,
                                      const AddressSpace& space) {
  return KernelDecoder(module, kernel, variables, space).Decode();
}

KernelDecoder::KernelDecoder(const PtxModule& module, const PtxKernel& kernel,
                             const VariableAddresses& variables, const AddressSpace& space)
    : module_(module), kernel_(kernel), space_(space), program_(std::make_unique<Program>()) {
  program_->module = &module;
  program_->kernel = &kernel;
  for (const auto& [name, address] : variables) named_[name] = {address, StateSpace::kGlobal};
  for (const PtxParameter& parameter : kernel.parameters) {
    named_[parameter.name] = {parameter.offset, StateSpace::kParam};
  }
  LayOutVariables();
  LayOutRegisters();
}

void KernelDecoder::LayOutRegisters() {
  program_->register_file_bytes = SpecialSlot(Special::kCount);
  for (const PtxType type : kernel_.registers) {
    register_slots_.push_back(program_->register_file_bytes);
    program_->register_file_bytes += SlotBytes(type);
  }
}

void KernelDecoder::LayOutVariables() {
  std::vector<const PtxVariable*> shared, dynamic;
  for (const PtxVariable& variable : kernel_.variables) {
    if (variable.space == StateSpace::kShared) {
      (variable.bytes == 0 ? dynamic : shared).push_back(&variable);
    } else {
      program_->local_bytes = RoundUp(program_->local_bytes, variable.align);
      named_[variable.name] = {program_->local_bytes, StateSpace::kLocal};
      program_->local_bytes += static_cast<uint32_t>(variable.bytes);
    }
  }
  // Of the module's only those that the kernel names.
  for (const PtxVariable& variable : module_.variables) {
    if (variable.space != StateSpace::kShared) continue;
    const auto names = [&](const PtxOperand& operand) { return operand.name == variable.name; };
    const bool used = std::any_of(kernel_.code.begin(), kernel_.code.end(), [&](const auto& each) {
      return std::any_of(each.operands.begin(), each.operands.end(), names);
    });
    if (used) (variable.bytes == 0 ? dynamic : shared).push_back(&variable);
  }
  SharedLayout& layout = program_->shared;
  uint32_t end = 0;
  for (const PtxVariable* variable : shared) {
    layout.static_bytes =
        RoundUp(layout.static_bytes, variable->align) + static_cast<uint32_t>(variable->bytes);
    const uint32_t begin = RoundUp(end + kSharedGap, variable->align);
    named_[variable->name] = {begin, StateSpace::kShared};
    layout.variables.emplace_back(begin, static_cast<uint32_t>(variable->bytes));
    end = begin + static_cast<uint32_t>(variable->bytes);
  }
  uint32_t align = 16;
  for (const PtxVariable* variable : dynamic) align = std::max(align, variable->align);
  layout.dynamic_begin = RoundUp(end + kSharedGap, align);
  for (const PtxVariable* variable : dynamic) {
    named_[variable->name] = {layout.dynamic_begin, StateSpace::kShared};
  }
}

const KernelDecoder::Named* KernelDecoder::FindNamed(const std::string& name) const {
  const auto found = named_.find(name);
  return found == named_.end() ? nullptr : &found->second;
}

Slot KernelDecoder::Temporary(int bytes) {
  const Slot slot = program_->register_file_bytes;
  program_->register_file_bytes += static_cast<uint32_t>(bytes) * kLanes;
  return slot;
}

Slot KernelDecoder::Constant(uint64_t bits, int bytes) {
  if (bytes < 8) bits &= (uint64_t{1} << (8 * bytes)) - 1;
  const auto [found, is_new] = constants_.try_emplace({bits, bytes}, 0);
  if (is_new) {
    found->second = Temporary(bytes);
    constant_values_.push_back({found->second, {bits, bytes}});
  }
  return found->second;
}

PtxType KernelDecoder::RegisterType(const PtxOperand& operand) const {
  if (operand.kind != PtxOperand::Kind::kRegister)
    throw Unsupported{"an operand that is no register"};
  return kernel_.registers[operand.index];
}

Slot KernelDecoder::Source(const PtxOperand& operand, PtxType type) {
  const int bytes = type.total_bytes();
  switch (operand.kind) {
    case PtxOperand::Kind::kRegister: {
      const PtxType own = kernel_.registers[operand.index];
      const Slot slot = register_slots_[operand.index];
      if (own.total_bytes() == bytes) return slot;
      if (own.kind == TypeKind::kPredicate || bytes == 0) throw Unsupported{"a predicate here"};
      Operation resize =
          New(ResizeHandler(own.total_bytes(), bytes, type.kind == TypeKind::kSigned));
      resize.source[0] = slot;
      resize.destination = Temporary(bytes);
      Emit(resize);
      return resize.destination;
    }
    case PtxOperand::Kind::kInteger:
      if (type.kind == TypeKind::kFloat && operand.bits != 0) throw Unsupported{"an integer here"};
      return Constant(operand.bits, bytes);
    case PtxOperand::Kind::kFloat32:
      if (bytes == 8) {
        const double value = std::bit_cast<float>(static_cast<uint32_t>(operand.bits));
        return Constant(std::bit_cast<uint64_t>(value), 8);
      }
      return Constant(operand.bits, bytes);
    case PtxOperand::Kind::kFloat64:
      if (bytes == 4) {
        const auto value = static_cast<float>(std::bit_cast<double>(operand.bits));
        return Constant(std::bit_cast<uint32_t>(value), 4);
      }
      return Constant(operand.bits, bytes);
    case PtxOperand::Kind::kName: {
      if (operand.name == "WARP_SZ") return Constant(kLanes, bytes);
      if (const auto special = SpecialRegisters().find(operand.name);
          special != SpecialRegisters().end()) {
        const Slot slot = SpecialSlot(special->second);
        program_->specials |= 1U << static_cast<int>(special->second);
        if (bytes == 4) return slot;
        Operation resize = New(ResizeHandler(4, bytes, false));
        resize.source[0] = slot;
        resize.destination = Temporary(bytes);
        Emit(resize);
        return resize.destination;
      }
      if (const Named* named = FindNamed(operand.name)) {
        return Constant(named->value + static_cast<uint64_t>(operand.offset), bytes);
      }
      throw Unsupported{fmt::format("the operand {}", operand.name)};
    }
    default:
      throw Unsupported{"an operand of this kind"};
  }
}

Slot KernelDecoder::Destination(const PtxOperand& operand, PtxType type) {
  if (operand.kind == PtxOperand::Kind::kDiscarded)
    return Temporary(std::max(type.total_bytes(), 1));
  if (operand.kind != PtxOperand::Kind::kRegister) throw Unsupported{"a result of this kind"};
  const PtxType own = kernel_.registers[operand.index];
  const Slot slot = register_slots_[operand.index];
  if (own.total_bytes() == type.total_bytes()) return slot;
  Operation resize =
      New(ResizeHandler(type.total_bytes(), own.total_bytes(), type.kind == TypeKind::kSigned));
  resize.source[0] = Temporary(type.total_bytes());
  resize.destination = slot;
  after_.push_back(resize);
  return resize.source[0];
}

Slot KernelDecoder::PredicateSource(const PtxOperand& operand, int index, Operation* operation) {
  if (operand.negated) operation->negated_sources |= static_cast<uint8_t>(1 << index);
  if (operand.kind == PtxOperand::Kind::kRegister &&
      kernel_.registers[operand.index].kind == TypeKind::kPredicate) {
    return register_slots_[operand.index];
  }
  // A mask is no more than a 32-bit value in the first lane.
  if (operand.kind == PtxOperand::Kind::kInteger) return Constant(operand.bits != 0 ? ~0ULL : 0, 4);
  throw Unsupported{"an operand that is no predicate"};
}

void KernelDecoder::Address(const PtxOperand& operand, Operation* operation) {
  if (operand.kind != PtxOperand::Kind::kAddress)
    throw Unsupported{"an operand that is no address"};
  operation->immediate = operand.offset;
  if (operand.based) {
    operation->has_base = true;
    operation->source[0] = register_slots_[operand.index];
    operation->wide_address = kernel_.registers[operand.index].bytes == 8;
    return;
  }
  if (operand.name.empty()) return;
  const Named* named = FindNamed(operand.name);
  if (named == nullptr) throw Unsupported{fmt::format("the address of {}", operand.name)};
  operation->immediate += static_cast<int64_t>(named->value);
}

Operation KernelDecoder::New(Handler run) const {
  const PtxInstruction& statement = kernel_.code[statement_];
  Operation operation;
  operation.run = run;
  operation.statement = statement_;
  operation.predicated = statement.predicated;
  operation.predicate_negated = statement.predicate_negated;
  if (statement.predicated) operation.predicate = register_slots_[statement.predicate];
  return operation;
}

void KernelDecoder::DecodeStatement(const PtxInstruction& statement) {
  static constexpr bool (*kFamilies[])(KernelDecoder&, const PtxInstruction&) = {
      DecodeMove,       DecodeMemory,     DecodeArithmetic, DecodeFloatArithmetic, DecodeBits,
      DecodeComparison, DecodeConversion, DecodeControl,    DecodeCollective,      DecodeAtomic};
  const size_t before = program_->code.size();
  after_.clear();
  try {
    for (const auto family : kFamilies) {
      if (!family(*this, statement)) continue;
      for (const Operation& operation : after_) Emit(operation);
      return;
    }
  } catch (const Unsupported&) {
    program_->code.resize(before);
  }
  Emit(New(&ReportUnsupported));
}

std::unique_ptr<Program> KernelDecoder::Decode() {
  for (statement_ = 0; statement_ < kernel_.code.size(); ++statement_) {
    operation_of_statement_.push_back(static_cast<uint32_t>(program_->code.size()));
    DecodeStatement(kernel_.code[statement_]);
  }
  // Falling off the end is an exit.
  operation_of_statement_.push_back(static_cast<uint32_t>(program_->code.size()));
  Operation exit;
  exit.control = Control::kExit;
  exit.statement = kernel_.code.empty() ? 0 : static_cast<uint32_t>(kernel_.code.size() - 1);
  Emit(exit);
  if (!kernel_.code.empty()) ResolveBranches();
  program_->initial_registers.assign(program_->register_file_bytes, std::byte{0});
  for (const auto& [slot, value] : constant_values_) {
    for (int lane = 0; lane < kLanes; ++lane) {
      std::memcpy(&program_->initial_registers[slot + static_cast<uint32_t>(lane * value.second)],
                  &value.first, static_cast<size_t>(value.second));
    }
  }
  return std::move(program_);
}

void KernelDecoder::ResolveBranches() {
  const auto resolve = [&](const std::string& label) -> std::optional<uint32_t> {
    const auto found = kernel_.labels.find(label);
    if (found == kernel_.labels.end()) return std::nullopt;
    return operation_of_statement_[found->second];
  };
  for (Operation& operation : program_->code) {
    const PtxInstruction& statement = kernel_.code[operation.statement];
    if (operation.control == Control::kBranch) {
      const std::optional<uint32_t> target = resolve(statement.operands[0].name);
      if (target) {
        operation.target = *target;
      } else {
        operation.control = Control::kNone;
        operation.run = &ReportUnsupported;
      }
    } else if (operation.control == Control::kIndexedBranch) {
      std::vector<uint32_t> targets;
      const auto labels = kernel_.branch_targets.find(statement.operands[1].name);
      if (labels != kernel_.branch_targets.end()) {
        for (const std::string& label : labels->second) {
          if (const std::optional<uint32_t> target = resolve(label)) targets.push_back(*target);
        }
      }
      operation.target = static_cast<uint32_t>(program_->indexed_targets.size());
      program_->indexed_targets.push_back(std::move(targets));
    }
  }
}

}  // namespace tiny_knn::emulation
