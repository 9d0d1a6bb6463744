// mov, with packing and unpacking, and the conversions of addresses between state spaces.
#include <cstring>
#include <string_view>

#include "gpu/emulation/lane_operations.h"

namespace tiny_knn::emulation {
namespace {

constexpr PtxType kU32{TypeKind::kUnsigned, 4, 1};
constexpr PtxType kU64{TypeKind::kUnsigned, 8, 1};

struct Same {
  template <typename T>
  T operator()(T a) const {
    return a;
  }
};

void MovePredicate(Warp& warp, const Operation& operation, LaneMask lanes) {
  LaneMask source = warp.Predicate(operation.source[0]);
  if ((operation.negated_sources & 1) != 0) source = ~source;
  LaneMask& d = warp.Predicate(operation.destination);
  d = (d & ~lanes) | (source & lanes);
}

// mov.b64 {a, b}, c: `values` parts of `bytes` each to the slots of `vector`.
template <typename Part, int kParts>
void Unpack(Warp& warp, const Operation& operation, LaneMask lanes) {
  const Part* source = warp.Lanes<Part>(operation.source[0]);
  for (int i = 0; i < kParts; ++i) {
    Part* part = warp.Lanes<Part>(operation.vector[i]);
    ForLanes(lanes, [=](int lane) { part[lane] = source[lane * kParts + i]; });
  }
}

template <typename Part, int kParts>
void Pack(Warp& warp, const Operation& operation, LaneMask lanes) {
  Part* destination = warp.Lanes<Part>(operation.destination);
  for (int i = 0; i < kParts; ++i) {
    const Part* part = warp.Lanes<Part>(operation.vector[i]);
    ForLanes(lanes, [=](int lane) { destination[lane * kParts + i] = part[lane]; });
  }
}

bool DecodePacked(KernelDecoder& decoder, const PtxInstruction& statement, PtxType type) {
  const bool unpacks = statement.operands[0].kind == PtxOperand::Kind::kList;
  const PtxOperand& parts = statement.operands[unpacks ? 0 : 1];
  const PtxOperand& whole = statement.operands[unpacks ? 1 : 0];
  const size_t count = parts.list.size();
  if (count != 2 && count != 4) throw KernelDecoder::Unsupported{"this many parts"};
  PtxType part{TypeKind::kUnsigned, static_cast<uint8_t>(static_cast<size_t>(type.bytes) / count),
               1};
  if (part.bytes == 0) throw KernelDecoder::Unsupported{"this many parts"};
  Operation operation = decoder.New(ForInteger(part.bytes, false, [&]<typename Part>() -> Handler {
    if (count == 2) return unpacks ? &Unpack<Part, 2> : &Pack<Part, 2>;
    return unpacks ? &Unpack<Part, 4> : &Pack<Part, 4>;
  }));
  operation.values = static_cast<uint8_t>(count);
  operation.bytes = part.bytes;
  for (size_t i = 0; i < count; ++i) {
    operation.vector[i] =
        unpacks ? decoder.Destination(parts.list[i], part) : decoder.Source(parts.list[i], part);
  }
  if (unpacks) {
    operation.source[0] = decoder.Source(whole, type);
  } else {
    operation.destination = decoder.Destination(whole, type);
  }
  decoder.Emit(operation);
  return true;
}

// Adds `immediate`, the beginning of a state space's window.
template <typename T>
void AddWindow(Warp& warp, const Operation& operation, LaneMask lanes) {
  const T* a = warp.Lanes<T>(operation.source[0]);
  T* d = warp.Lanes<T>(operation.destination);
  const auto window = static_cast<T>(operation.immediate);
  ForLanes(lanes, [=](int lane) { d[lane] = a[lane] + window; });
}

uint64_t WindowOf(const KernelDecoder& decoder, const PtxInstruction& statement) {
  for (const std::string& modifier : statement.modifiers) {
    if (modifier.starts_with("shared")) return decoder.space().shared;
    if (modifier.starts_with("local")) return decoder.space().local;
    if (modifier.starts_with("param")) return decoder.space().param;
    if (modifier == "global" || modifier == "const") return 0;
  }
  throw KernelDecoder::Unsupported{"this state space"};
}

bool DecodeConvertAddress(KernelDecoder& decoder, const PtxInstruction& statement) {
  const PtxType type = TypeOf(statement);
  Operation operation = decoder.New(type.bytes == 8 ? &AddWindow<uint64_t> : &AddWindow<uint32_t>);
  const auto window = static_cast<int64_t>(WindowOf(decoder, statement));
  operation.immediate = statement.has("to") ? -window : window;
  operation.source[0] = decoder.Source(statement.operands.at(1), type);
  operation.destination = decoder.Destination(statement.operands.at(0), type);
  decoder.Emit(operation);
  return true;
}

// isspacep: whether a generic address lies in the window [immediate, immediate + target).
void IsInSpace(Warp& warp, const Operation& operation, LaneMask lanes) {
  const uint64_t* a = warp.Lanes<uint64_t>(operation.source[0]);
  LaneMask result = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint64_t offset = a[lane] - static_cast<uint64_t>(operation.immediate);
    const bool inside =
        offset < (operation.variant != 0 ? AddressSpace::kGlobalBytes : AddressSpace::kWindowBytes);
    result |= static_cast<LaneMask>(inside) << lane;
  }
  LaneMask& d = warp.Predicate(operation.destination);
  d = (d & ~lanes) | (result & lanes);
}

bool DecodeIsInSpace(KernelDecoder& decoder, const PtxInstruction& statement) {
  Operation operation = decoder.New(&IsInSpace);
  operation.variant = statement.has("global") ? 1 : 0;
  operation.immediate = static_cast<int64_t>(operation.variant != 0 ? decoder.space().global
                                                                    : WindowOf(decoder, statement));
  operation.source[0] = decoder.Source(statement.operands.at(1), kU64);
  operation.destination =
      decoder.Destination(statement.operands.at(0), {TypeKind::kPredicate, 0, 1});
  decoder.Emit(operation);
  return true;
}

// The lanes that run together right now.
void ActiveMask(Warp& warp, const Operation& operation, LaneMask lanes) {
  uint32_t* d = warp.Lanes<uint32_t>(operation.destination);
  ForLanes(lanes, [=](int lane) { d[lane] = lanes; });
}

}  // namespace

bool DecodeMove(KernelDecoder& decoder, const PtxInstruction& statement) {
  const std::string_view opcode = statement.opcode;
  if (opcode == "cvta") return DecodeConvertAddress(decoder, statement);
  if (opcode == "isspacep") return DecodeIsInSpace(decoder, statement);
  if (opcode == "activemask") {
    Operation operation = decoder.New(&ActiveMask);
    operation.destination = decoder.Destination(statement.operands.at(0), kU32);
    decoder.Emit(operation);
    return true;
  }
  if (opcode != "mov" || statement.operands.size() != 2) return false;
  const PtxType type = TypeOf(statement);
  if (statement.operands[0].kind == PtxOperand::Kind::kList ||
      statement.operands[1].kind == PtxOperand::Kind::kList) {
    return DecodePacked(decoder, statement, type);
  }
  if (type.kind == TypeKind::kPredicate) {
    Operation operation = decoder.New(&MovePredicate);
    operation.source[0] = decoder.PredicateSource(statement.operands[1], 0, &operation);
    operation.destination = decoder.Destination(statement.operands[0], type);
    decoder.Emit(operation);
    return true;
  }
  const Handler handler = ForInteger(type.total_bytes(), false,
                                     []<typename T>() -> Handler { return &Unary<T, T, Same>; });
  return EmitLanes(decoder, statement, handler, type, {type});
}

}  // namespace tiny_knn::emulation
