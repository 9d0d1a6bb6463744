// atom and red, on global and shared memory, lane after lane.
#include <algorithm>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <utility>

#include "gpu/emulation/kernel_decoder.h"
#include "gpu/emulation/memory_access.h"

namespace tiny_knn::emulation {
namespace {

enum class Atomic : uint8_t { kAdd, kMin, kMax, kInc, kDec, kAnd, kOr, kXor, kExchange, kSwap };

template <typename T>
T ApplyToInteger(Atomic what, T old, T value, T other) {
  using U = std::make_unsigned_t<T>;
  switch (what) {
    case Atomic::kAdd:
      return static_cast<T>(static_cast<U>(old) + static_cast<U>(value));
    case Atomic::kMin:
      return std::min(old, value);
    case Atomic::kMax:
      return std::max(old, value);
    case Atomic::kInc:
      return old >= value ? T{0} : static_cast<T>(old + 1);
    case Atomic::kDec:
      return old == 0 || old > value ? value : static_cast<T>(old - 1);
    case Atomic::kAnd:
      return static_cast<T>(old & value);
    case Atomic::kOr:
      return static_cast<T>(old | value);
    case Atomic::kXor:
      return static_cast<T>(old ^ value);
    case Atomic::kExchange:
      return value;
    case Atomic::kSwap:
      return old == value ? other : old;
  }
  return old;
}

template <typename T>
T Apply(Atomic what, T old, T value, T other) {
  if constexpr (std::is_floating_point_v<T>) {
    if (what == Atomic::kAdd) return old + value;
    throw Fault{ViolationKind::kUnsupported, "the emulation does not know this atomic operation"};
  } else {
    return ApplyToInteger(what, old, value, other);
  }
}

// Sources: the address, the value, for cas what replaces it. `values` 1: the old value is wanted.
template <typename T>
void Update(Warp& warp, const Operation& operation, LaneMask lanes) {
  const auto what = static_cast<Atomic>(operation.variant);
  uint64_t addresses[kLanes];
  LaneAddresses(warp, operation, lanes, addresses);
  const T* values = warp.Lanes<T>(operation.source[1]);
  const T* others = warp.Lanes<T>(operation.source[2]);
  T* olds = warp.Lanes<T>(operation.destination);
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    uint64_t address = addresses[lane];
    const StateSpace space = ResolveSpace(warp, operation.space, &address);
    std::byte* memory = UpdateLane(warp, space, lane, address, sizeof(T));
    T old;
    std::memcpy(&old, memory, sizeof(T));
    const T changed = Apply(what, old, values[lane], others[lane]);
    std::memcpy(memory, &changed, sizeof(T));
    if (operation.values == 1) olds[lane] = old;
  }
}

Handler UpdateHandler(PtxType type) {
  if (type.kind == TypeKind::kFloat) {
    if (type.bytes == 4) return &Update<float>;
    if (type.bytes == 8) return &Update<double>;
  } else if (type.kind == TypeKind::kSigned) {
    if (type.bytes == 4) return &Update<int32_t>;
    if (type.bytes == 8) return &Update<int64_t>;
  } else if (type.kind == TypeKind::kUnsigned) {
    if (type.bytes == 2) return &Update<uint16_t>;
    if (type.bytes == 4) return &Update<uint32_t>;
    if (type.bytes == 8) return &Update<uint64_t>;
  }
  throw KernelDecoder::Unsupported{"an atomic operation on this type"};
}

Atomic AtomicOf(const PtxInstruction& statement) {
  static constexpr std::pair<std::string_view, Atomic> kNames[] = {
      {"add", Atomic::kAdd}, {"min", Atomic::kMin}, {"max", Atomic::kMax},
      {"inc", Atomic::kInc}, {"dec", Atomic::kDec}, {"and", Atomic::kAnd},
      {"or", Atomic::kOr},   {"xor", Atomic::kXor}, {"exch", Atomic::kExchange},
      {"cas", Atomic::kSwap}};
  for (const auto& [name, what] : kNames) {
    if (statement.has(name)) return what;
  }
  throw KernelDecoder::Unsupported{"this atomic operation"};
}

}  // namespace

bool DecodeAtomic(KernelDecoder& decoder, const PtxInstruction& statement) {
  const bool returns = statement.opcode == "atom";
  if (!returns && statement.opcode != "red") return false;
  if (statement.has("noftz") || statement.has("v2") || statement.has("v4")) {
    throw KernelDecoder::Unsupported{"this form of an atomic operation"};
  }
  const PtxType type = TypeOf(statement);
  const size_t first = returns ? 1 : 0;
  Operation operation = decoder.New(UpdateHandler(type));
  const Atomic what = AtomicOf(statement);
  operation.variant = static_cast<uint8_t>(what);
  operation.values = returns ? 1 : 0;
  if (statement.has("global")) operation.space = StateSpace::kGlobal;
  if (statement.has("shared") || statement.has("shared::cta"))
    operation.space = StateSpace::kShared;
  decoder.Address(statement.operands.at(first), &operation);
  operation.source[1] = decoder.Source(statement.operands.at(first + 1), type);
  operation.source[2] = what == Atomic::kSwap
                            ? decoder.Source(statement.operands.at(first + 2), type)
                            : operation.source[1];
  operation.destination =
      returns ? decoder.Destination(statement.operands[0], type) : operation.source[1];
  decoder.Emit(operation);
  return true;
}

}  // namespace tiny_knn::emulation
