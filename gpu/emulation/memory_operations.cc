// ld, ldu, st and prefetches.
#include <cstring>
#include <string_view>

#include "gpu/emulation/kernel_decoder.h"
#include "gpu/emulation/memory_access.h"

namespace tiny_knn::emulation {
namespace {

void Nothing(Warp& /*warp*/, const Operation& /*operation*/, LaneMask /*lanes*/) {}

Strength StrengthOf(const Operation& operation) {
  return operation.strong ? Strength::kStrong : Strength::kWeak;
}

// Writes one lane's values, as they lie in memory, to registers of another width than they have.
void Extend(Warp& warp, const Operation& operation, int lane, const std::byte* values) {
  const size_t bytes = operation.bytes;
  const size_t width = operation.register_bytes;
  for (size_t i = 0; i < operation.values; ++i) {
    std::byte* to = warp.Lanes<std::byte>(operation.vector[i]) + static_cast<size_t>(lane) * width;
    std::memcpy(to, values + i * bytes, bytes);
    const bool ones = operation.sign_extends && (to[bytes - 1] & std::byte{0x80}) != std::byte{0};
    std::memset(to + bytes, ones ? 0xff : 0, width - bytes);
  }
}

template <typename T>
void ToRegistersOf(Warp& warp, const Operation& operation, int lane, const std::byte* values) {
  for (size_t i = 0; i < operation.values; ++i) {
    std::memcpy(&warp.Lanes<T>(operation.vector[i])[lane], values + i * sizeof(T), sizeof(T));
  }
}

// Writes one lane's values, as they lie in memory, to the registers.
void ToRegisters(Warp& warp, const Operation& operation, int lane, const std::byte* values) {
  if (operation.bytes != operation.register_bytes) {
    Extend(warp, operation, lane, values);
  } else if (operation.bytes == 4) {
    ToRegistersOf<uint32_t>(warp, operation, lane, values);
  } else if (operation.bytes == 8) {
    ToRegistersOf<uint64_t>(warp, operation, lane, values);
  } else if (operation.bytes == 2) {
    ToRegistersOf<uint16_t>(warp, operation, lane, values);
  } else {
    ToRegistersOf<uint8_t>(warp, operation, lane, values);
  }
}

template <typename T>
void FillLanes(Warp& warp, Slot slot, LaneMask lanes, const std::byte* value) {
  T* to = warp.Lanes<T>(slot);
  T filler;
  std::memcpy(&filler, value, sizeof(T));
  ForLanes(lanes, [=](int lane) { to[lane] = filler; });
}

// The same values to the registers of all lanes.
void Broadcast(Warp& warp, const Operation& operation, LaneMask lanes, const std::byte* values) {
  if (operation.bytes == operation.register_bytes && operation.bytes >= 4) {
    for (size_t i = 0; i < operation.values; ++i) {
      const std::byte* value = values + i * operation.bytes;
      if (operation.bytes == 4) {
        FillLanes<uint32_t>(warp, operation.vector[i], lanes, value);
      } else {
        FillLanes<uint64_t>(warp, operation.vector[i], lanes, value);
      }
    }
    return;
  }
  for (; lanes != 0; lanes &= lanes - 1) {
    ToRegisters(warp, operation, __builtin_ctz(lanes), values);
  }
}

void FromRegisters(Warp& warp, const Operation& operation, int lane, std::byte* values) {
  const size_t bytes = operation.bytes;
  const size_t width = operation.register_bytes;
  for (size_t i = 0; i < operation.values; ++i) {
    const std::byte* from =
        warp.Lanes<std::byte>(operation.vector[i]) + static_cast<size_t>(lane) * width;
    std::memcpy(values + i * bytes, from, bytes);
  }
}

// Whether all lanes take part and their accesses adjoin: then they are checked as one.
bool AreContiguous(LaneMask lanes, const uint64_t addresses[kLanes], uint64_t bytes) {
  if (lanes != kAllLanes) return false;
  uint64_t different = 0;
  for (int lane = 1; lane < kLanes; ++lane) {
    different |= addresses[lane] - addresses[0] - static_cast<uint64_t>(lane) * bytes;
  }
  return different == 0;
}

bool AreTheSame(LaneMask lanes, const uint64_t addresses[kLanes], uint64_t first) {
  for (; lanes != 0; lanes &= lanes - 1) {
    if (addresses[__builtin_ctz(lanes)] != first) return false;
  }
  return true;
}

void BlameLane(Fault& fault, uint64_t first, uint64_t bytes) {
  fault.lane = static_cast<int>((fault.address - first) / bytes);
  if (fault.lane < 0 || fault.lane >= kLanes) fault.lane = 0;
}

template <typename T>
void Gather(T* to, LaneMask lanes, const std::byte* memory, const uint64_t addresses[kLanes]) {
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    std::memcpy(&to[lane], memory + addresses[lane], sizeof(T));
  }
}

void LoadShared(Warp& warp, const Operation& operation, LaneMask lanes,
                const uint64_t addresses[kLanes]) {
  const uint32_t bytes = static_cast<uint32_t>(operation.bytes) * operation.values;
  const std::byte* memory =
      warp.block->shared->Read(warp.index, lanes, addresses, bytes, StrengthOf(operation));
  if (operation.values == 1 && operation.register_bytes == operation.bytes) {
    if (bytes == 4)
      return Gather(warp.Lanes<uint32_t>(operation.vector[0]), lanes, memory, addresses);
    if (bytes == 8)
      return Gather(warp.Lanes<uint64_t>(operation.vector[0]), lanes, memory, addresses);
  }
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    ToRegisters(warp, operation, lane, memory + addresses[lane]);
  }
}

void Load(Warp& warp, const Operation& operation, LaneMask lanes) {
  const uint32_t bytes = static_cast<uint32_t>(operation.bytes) * operation.values;
  const Strength strength = StrengthOf(operation);
  uint64_t addresses[kLanes];
  LaneAddresses(warp, operation, lanes, addresses);
  if (AreShared(warp, operation.space, lanes, addresses)) {
    LoadShared(warp, operation, lanes, addresses);
    return;
  }
  const int first = __builtin_ctz(lanes);
  uint64_t address = addresses[first];
  StateSpace space = ResolveSpace(warp, operation.space, &address);
  if (space == StateSpace::kGlobal || space == StateSpace::kConst) {
    if (AreContiguous(lanes, addresses, bytes)) {
      const std::byte* source = nullptr;
      try {
        source = warp.block->memory->Read(warp.block->actor, address, uint64_t{bytes} * kLanes,
                                          bytes, strength);
      } catch (Fault& fault) {
        BlameLane(fault, address, bytes);
        throw;
      }
      if (operation.values == 1 && operation.register_bytes == operation.bytes) {
        std::memcpy(warp.Lanes<std::byte>(operation.vector[0]), source, size_t{bytes} * kLanes);
        return;
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        ToRegisters(warp, operation, lane, source + static_cast<size_t>(lane) * bytes);
      }
      return;
    }
  }
  // Generic addresses of several spaces are not the same.
  if (space != StateSpace::kShared && space != StateSpace::kLocal &&
      AreTheSame(lanes, addresses, addresses[first])) {
    const std::byte* source = ReadLane(warp, space, first, address, bytes, strength);
    Broadcast(warp, operation, lanes, source);
    return;
  }
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    address = addresses[lane];
    space = ResolveSpace(warp, operation.space, &address);
    ToRegisters(warp, operation, lane, ReadLane(warp, space, lane, address, bytes, strength));
  }
}

// The values that the lanes store, side by side as they lie in memory; `room` holds them if they
// do not lie so in the registers.
const std::byte* StoredValues(Warp& warp, const Operation& operation, LaneMask lanes,
                              std::byte* room) {
  if (operation.values == 1 && operation.register_bytes == operation.bytes) {
    return warp.Lanes<std::byte>(operation.vector[0]);
  }
  const size_t bytes = static_cast<size_t>(operation.bytes) * operation.values;
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    FromRegisters(warp, operation, lane, room + static_cast<size_t>(lane) * bytes);
  }
  return room;
}

void Store(Warp& warp, const Operation& operation, LaneMask lanes) {
  const uint32_t bytes = static_cast<uint32_t>(operation.bytes) * operation.values;
  const Strength strength = StrengthOf(operation);
  uint64_t addresses[kLanes];
  LaneAddresses(warp, operation, lanes, addresses);
  std::byte room[64 * kLanes];
  const std::byte* values = StoredValues(warp, operation, lanes, room);
  if (AreShared(warp, operation.space, lanes, addresses)) {
    warp.block->shared->Write(warp.index, lanes, addresses, bytes, strength, values);
    return;
  }
  uint64_t address = addresses[__builtin_ctz(lanes)];
  StateSpace space = ResolveSpace(warp, operation.space, &address);
  if (space == StateSpace::kGlobal && AreContiguous(lanes, addresses, bytes)) {
    try {
      std::memcpy(warp.block->memory->Write(warp.block->actor, address, uint64_t{bytes} * kLanes,
                                            bytes, strength),
                  values, size_t{bytes} * kLanes);
    } catch (Fault& fault) {
      BlameLane(fault, address, bytes);
      throw;
    }
    return;
  }
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    address = addresses[lane];
    space = ResolveSpace(warp, operation.space, &address);
    WriteLane(warp, space, lane, address, bytes, strength, values);
  }
}

// A parameter by its name: the same in all lanes, checked when it is decoded.
void LoadParameter(Warp& warp, const Operation& operation, LaneMask lanes) {
  Broadcast(warp, operation, lanes, warp.block->parameters->data() + operation.immediate);
}

StateSpace SpaceOf(const PtxInstruction& statement) {
  for (const std::string& modifier : statement.modifiers) {
    if (modifier == "global") return StateSpace::kGlobal;
    if (modifier == "const") return StateSpace::kConst;
    if (modifier == "local") return StateSpace::kLocal;
    if (modifier == "shared" || modifier == "shared::cta") return StateSpace::kShared;
    if (modifier == "param" || modifier == "param::entry") return StateSpace::kParam;
    if (modifier.starts_with("shared::") || modifier.starts_with("param::")) {
      throw KernelDecoder::Unsupported{"this state space"};
    }
  }
  return StateSpace::kGeneric;
}

bool IsStrong(const PtxInstruction& statement) {
  return statement.has("volatile") || statement.has("relaxed") || statement.has("acquire") ||
         statement.has("release") || statement.has("mmio");
}

bool DecodeAccess(KernelDecoder& decoder, const PtxInstruction& statement, bool loads) {
  const PtxType type = TypeOf(statement);
  const PtxOperand& registers = statement.operands.at(loads ? 0 : 1);
  const PtxOperand& address = statement.operands.at(loads ? 1 : 0);
  Operation operation = decoder.New(loads ? &Load : &Store);
  operation.space = SpaceOf(statement);
  // What is stored for a call: the only ones here are of failed assertions.
  if (!loads && operation.space == StateSpace::kParam) {
    operation.run = &Nothing;
    decoder.Emit(operation);
    return true;
  }
  operation.bytes = static_cast<uint8_t>(type.total_bytes());
  if (operation.bytes == 0 || operation.bytes > 8) throw KernelDecoder::Unsupported{"this type"};
  operation.strong = IsStrong(statement);
  operation.sign_extends = type.kind == TypeKind::kSigned;
  const bool is_list = registers.kind == PtxOperand::Kind::kList;
  const size_t count = is_list ? registers.list.size() : 1;
  if (count > std::size(operation.vector)) throw KernelDecoder::Unsupported{"this many values"};
  operation.values = static_cast<uint8_t>(count);
  for (size_t i = 0; i < count; ++i) {
    const PtxOperand& each = is_list ? registers.list[i] : registers;
    PtxType width = type;
    if (each.kind == PtxOperand::Kind::kRegister) width = decoder.RegisterType(each);
    if (i > 0 && width.total_bytes() != operation.register_bytes) {
      throw KernelDecoder::Unsupported{"registers of different widths"};
    }
    operation.register_bytes = static_cast<uint8_t>(width.total_bytes());
    operation.vector[i] = loads ? decoder.Destination(each, width) : decoder.Source(each, width);
  }
  if (operation.register_bytes < operation.bytes) throw KernelDecoder::Unsupported{"this register"};
  decoder.Address(address, &operation);
  if (loads && operation.space == StateSpace::kParam && !operation.has_base) {
    const auto end = static_cast<uint64_t>(operation.immediate) +
                     static_cast<uint64_t>(operation.bytes) * operation.values;
    if (operation.immediate < 0 || end > decoder.kernel().parameter_bytes) {
      throw KernelDecoder::Unsupported{"an address outside the parameters"};
    }
    operation.run = &LoadParameter;
  }
  decoder.Emit(operation);
  return true;
}

}  // namespace

bool DecodeMemory(KernelDecoder& decoder, const PtxInstruction& statement) {
  const std::string_view opcode = statement.opcode;
  if (opcode == "ld" || opcode == "ldu") return DecodeAccess(decoder, statement, true);
  if (opcode == "st") return DecodeAccess(decoder, statement, false);
  if (opcode == "prefetch" || opcode == "prefetchu" || opcode == "applypriority") {
    decoder.Emit(decoder.New(&Nothing));
    return true;
  }
  return false;
}

}  // namespace tiny_knn::emulation
