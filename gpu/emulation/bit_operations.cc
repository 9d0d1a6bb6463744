// Logic, shifts, bit fields and permutations, on integers and predicates.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "gpu/emulation/lane_operations.h"

namespace tiny_knn::emulation {
namespace {

constexpr PtxType kU32{TypeKind::kUnsigned, 4, 1};

struct And {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(a ^ b);
  }
};
struct Not {
  template <typename T>
  T operator()(T a) const {
    return static_cast<T>(~a);
  }
};
struct IsZero {  // cnot
  template <typename T>
  T operator()(T a) const {
    return a == 0 ? 1 : 0;
  }
};
// Shifts by the width or more give zeros (copies of the sign).
struct ShiftLeft {
  template <typename T>
  T operator()(T a, uint32_t by) const {
    return by < 8 * sizeof(T) ? static_cast<T>(a << by) : T{0};
  }
};
struct ShiftRight {
  template <typename T>
  T operator()(T a, uint32_t by) const {
    constexpr uint32_t kLast = 8 * sizeof(T) - 1;
    if (by <= kLast) return static_cast<T>(a >> by);
    return std::is_signed_v<T> ? static_cast<T>(a >> kLast) : T{0};
  }
};
struct CountOnes {
  template <typename T>
  uint32_t operator()(T a) const {
    return static_cast<uint32_t>(std::popcount(a));
  }
};
struct CountLeadingZeros {
  template <typename T>
  uint32_t operator()(T a) const {
    return static_cast<uint32_t>(std::countl_zero(a));
  }
};
struct Reverse {
  template <typename T>
  T operator()(T a) const {
    T result = 0;
    for (size_t i = 0; i < 8 * sizeof(T); ++i) {
      result = static_cast<T>((result << 1) | ((a >> i) & 1));
    }
    return result;
  }
};
// The highest bit that is set (of a negative number: that is not); -1 if there is none.
struct FindHighest {
  template <typename T>
  uint32_t operator()(T a) const {
    using U = std::make_unsigned_t<T>;
    const U bits = static_cast<U>(a < 0 ? ~a : a);
    return static_cast<uint32_t>(static_cast<int>(8 * sizeof(T)) - 1 - std::countl_zero(bits));
  }
};
// By how much to shift left to bring it to the top.
struct FindHighestShift {
  template <typename T>
  uint32_t operator()(T a) const {
    const uint32_t at = FindHighest()(a);
    return at == ~0U ? at : static_cast<uint32_t>(8 * sizeof(T)) - 1 - at;
  }
};
struct ExtractField {  // bfe
  template <typename T>
  T operator()(T a, uint32_t begin, uint32_t length) const {
    constexpr uint32_t kBits = 8 * sizeof(T);
    begin &= 0xff;
    length &= 0xff;
    if (length == 0) return 0;
    const uint32_t top = std::min(begin + length - 1, kBits - 1);
    const bool sign = std::is_signed_v<T> && ((a >> top) & 1) != 0;
    std::make_unsigned_t<T> result = sign ? ~std::make_unsigned_t<T>{0} : 0;
    for (uint32_t i = 0; i < length && i < kBits; ++i) {
      const auto mask = static_cast<std::make_unsigned_t<T>>(std::make_unsigned_t<T>{1} << i);
      const bool bit = begin + i < kBits ? ((a >> (begin + i)) & 1) != 0 : sign;
      result = bit ? result | mask : result & ~mask;
    }
    return static_cast<T>(result);
  }
};
struct ByteMask {  // bmsk: `length` ones from bit `begin` on
  bool wraps = false;
  uint32_t operator()(uint32_t begin, uint32_t length) const {
    if (wraps) {
      begin &= 31;
      length &= 31;
    }
    const uint64_t ones = length >= 32 ? 0xffffffffULL : (uint64_t{1} << length) - 1;
    return begin >= 32 ? 0 : static_cast<uint32_t>(ones << begin);
  }
};
struct ByteMaskClamp {
  uint32_t operator()(uint32_t begin, uint32_t length) const { return ByteMask()(begin, length); }
};
struct ByteMaskWrap {
  uint32_t operator()(uint32_t begin, uint32_t length) const {
    return ByteMask{true}(begin, length);
  }
};
// shf: 32 bits of b:a shifted. By how much: modulo 32 (wrap) or at most 32 (clamp).
template <bool kLeft, bool kWraps>
struct FunnelShift {
  uint32_t operator()(uint32_t low, uint32_t high, uint32_t by) const {
    by = kWraps ? by & 31 : std::min(by, 32U);
    const uint64_t both = (static_cast<uint64_t>(high) << 32) | low;
    return static_cast<uint32_t>(kLeft ? (both << by) >> 32 : both >> by);
  }
};
struct Permute {  // prmt without a mode
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t selector) const {
    const uint64_t bytes = (static_cast<uint64_t>(b) << 32) | a;
    uint32_t result = 0;
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t nibble = (selector >> (4 * i)) & 0xf;
      auto byte = static_cast<uint32_t>((bytes >> (8 * (nibble & 7))) & 0xff);
      if ((nibble & 8) != 0) byte = (byte & 0x80) != 0 ? 0xff : 0;
      result |= byte << (8 * i);
    }
    return result;
  }
};

// Any function of three bits: bit i of the constant is the result for (a, b, c) = i.
void Logic3(Warp& warp, const Operation& operation, LaneMask lanes) {
  const uint32_t* a = warp.Lanes<uint32_t>(operation.source[0]);
  const uint32_t* b = warp.Lanes<uint32_t>(operation.source[1]);
  const uint32_t* c = warp.Lanes<uint32_t>(operation.source[2]);
  uint32_t* d = warp.Lanes<uint32_t>(operation.destination);
  const auto table = static_cast<uint32_t>(operation.immediate);
  ForLanes(lanes, [=](int lane) {
    uint32_t result = 0;
    for (uint32_t i = 0; i < 8; ++i) {
      const uint32_t is_a = (i & 4) != 0 ? a[lane] : ~a[lane];
      const uint32_t is_b = (i & 2) != 0 ? b[lane] : ~b[lane];
      const uint32_t is_c = (i & 1) != 0 ? c[lane] : ~c[lane];
      result |= (is_a & is_b & is_c) & (0U - ((table >> i) & 1));
    }
    d[lane] = result;
  });
}

template <typename T>
void InsertField(Warp& warp, const Operation& operation, LaneMask lanes) {
  const T* a = warp.Lanes<T>(operation.source[0]);
  const T* b = warp.Lanes<T>(operation.source[1]);
  const uint32_t* begins = warp.Lanes<uint32_t>(operation.source[2]);
  const uint32_t* lengths = warp.Lanes<uint32_t>(operation.source[3]);
  T* d = warp.Lanes<T>(operation.destination);
  constexpr uint32_t kBits = 8 * sizeof(T);
  ForLanes(lanes, [=](int lane) {
    const uint32_t begin = begins[lane] & 0xff;
    const uint32_t length = lengths[lane] & 0xff;
    const T ones = length >= kBits ? static_cast<T>(~T{0}) : static_cast<T>((T{1} << length) - 1);
    const T mask = begin >= kBits ? T{0} : static_cast<T>(ones << begin);
    const T value = begin >= kBits ? T{0} : static_cast<T>(a[lane] << begin);
    d[lane] = static_cast<T>((b[lane] & ~mask) | (value & mask));
  });
}

// Predicates are masks: one operation for the whole warp.
template <typename F>
void PredicateLogic(Warp& warp, const Operation& operation, LaneMask lanes) {
  const auto source = [&](int i) {
    const LaneMask mask = warp.Predicate(operation.source[i]);
    return (operation.negated_sources & (1 << i)) != 0 ? ~mask : mask;
  };
  LaneMask& d = warp.Predicate(operation.destination);
  d = (d & ~lanes) | (F()(source(0), source(1)) & lanes);
}

struct NotFirst {
  LaneMask operator()(LaneMask a, LaneMask /*b*/) const { return ~a; }
};

bool DecodePredicateLogic(KernelDecoder& decoder, const PtxInstruction& statement) {
  const std::string_view opcode = statement.opcode;
  Handler handler = nullptr;
  if (opcode == "and") handler = &PredicateLogic<And>;
  if (opcode == "or") handler = &PredicateLogic<Or>;
  if (opcode == "xor") handler = &PredicateLogic<Xor>;
  if (opcode == "not") handler = &PredicateLogic<NotFirst>;
  if (handler == nullptr) return false;
  Operation operation = decoder.New(handler);
  operation.source[0] = decoder.PredicateSource(statement.operands.at(1), 0, &operation);
  operation.source[1] = opcode == "not"
                            ? operation.source[0]
                            : decoder.PredicateSource(statement.operands.at(2), 1, &operation);
  operation.destination = decoder.Destination(statement.operands.at(0), TypeOf(statement));
  decoder.Emit(operation);
  return true;
}

template <typename F>
Handler BinaryHandler(PtxType type) {
  return ForInteger(type.total_bytes(), false,
                    []<typename T>() -> Handler { return &Binary<T, T, T, F>; });
}

template <typename F>
Handler UnaryHandler(PtxType type) {
  return ForInteger(type.total_bytes(), false,
                    []<typename T>() -> Handler { return &Unary<T, T, F>; });
}

// A function whose result has 32 bits.
template <typename F>
Handler CountHandler(PtxType type) {
  return ForInteger(type.bytes, type.kind == TypeKind::kSigned, []<typename T>() -> Handler {
    if constexpr (std::is_same_v<F, CountOnes> || std::is_same_v<F, CountLeadingZeros>) {
      return &Unary<uint32_t, std::make_unsigned_t<T>, F>;
    } else {
      return &Unary<uint32_t, T, F>;
    }
  });
}

Handler FunnelHandler(const PtxInstruction& statement) {
  const bool wraps = statement.has("wrap");
  if (statement.has("l")) {
    return wraps ? &Ternary<uint32_t, uint32_t, uint32_t, uint32_t, FunnelShift<true, true>>
                 : &Ternary<uint32_t, uint32_t, uint32_t, uint32_t, FunnelShift<true, false>>;
  }
  return wraps ? &Ternary<uint32_t, uint32_t, uint32_t, uint32_t, FunnelShift<false, true>>
               : &Ternary<uint32_t, uint32_t, uint32_t, uint32_t, FunnelShift<false, false>>;
}

bool DecodeFields(KernelDecoder& decoder, const PtxInstruction& statement, PtxType type) {
  if (statement.opcode == "bfe") {
    const Handler handler = ForInteger(
        type.bytes, type.kind == TypeKind::kSigned,
        []<typename T>() -> Handler { return &Ternary<T, T, uint32_t, uint32_t, ExtractField>; });
    return EmitLanes(decoder, statement, handler, type, {type, kU32, kU32});
  }
  const Handler handler = ForInteger(type.bytes, false, []<typename T>() -> Handler {
    return &InsertField<std::make_unsigned_t<T>>;
  });
  return EmitLanes(decoder, statement, handler, type, {type, type, kU32, kU32});
}

bool DecodeLogic3(KernelDecoder& decoder, const PtxInstruction& statement) {
  if (statement.operands.size() != 5 || statement.operands[4].kind != PtxOperand::Kind::kInteger ||
      statement.modifiers.size() != 1) {
    throw KernelDecoder::Unsupported{"this form of lop3"};
  }
  Operation operation = decoder.New(&Logic3);
  operation.immediate = static_cast<int64_t>(statement.operands[4].bits);
  for (size_t i = 0; i < 3; ++i) {
    operation.source[i] = decoder.Source(statement.operands[i + 1], kU32);
  }
  operation.destination = decoder.Destination(statement.operands[0], kU32);
  decoder.Emit(operation);
  return true;
}

}  // namespace

bool DecodeBits(KernelDecoder& decoder, const PtxInstruction& statement) {
  static constexpr std::string_view kKnown[] = {"and", "or",   "xor", "not",  "cnot",  "shl",
                                                "shr", "popc", "clz", "brev", "bfind", "bfe",
                                                "bfi", "bmsk", "shf", "prmt", "lop3"};
  const std::string_view opcode = statement.opcode;
  if (std::find(std::begin(kKnown), std::end(kKnown), opcode) == std::end(kKnown)) return false;
  const PtxType type = TypeOf(statement);
  if (type.kind == TypeKind::kPredicate) return DecodePredicateLogic(decoder, statement);
  if (opcode == "and") {
    return EmitLanes(decoder, statement, BinaryHandler<And>(type), type, {type, type});
  }
  if (opcode == "or") {
    return EmitLanes(decoder, statement, BinaryHandler<Or>(type), type, {type, type});
  }
  if (opcode == "xor") {
    return EmitLanes(decoder, statement, BinaryHandler<Xor>(type), type, {type, type});
  }
  if (opcode == "not") return EmitLanes(decoder, statement, UnaryHandler<Not>(type), type, {type});
  if (opcode == "cnot") {
    return EmitLanes(decoder, statement, UnaryHandler<IsZero>(type), type, {type});
  }
  if (opcode == "brev") {
    return EmitLanes(decoder, statement, UnaryHandler<Reverse>(type), type, {type});
  }
  if (opcode == "shl" || opcode == "shr") {
    const bool left = opcode == "shl";
    const Handler handler =
        ForInteger(type.bytes, type.kind == TypeKind::kSigned, [=]<typename T>() -> Handler {
          if (left) {
            using U = std::make_unsigned_t<T>;
            return &Binary<U, U, uint32_t, ShiftLeft>;
          }
          return &Binary<T, T, uint32_t, ShiftRight>;
        });
    return EmitLanes(decoder, statement, handler, type, {type, kU32});
  }
  if (opcode == "popc") {
    return EmitLanes(decoder, statement, CountHandler<CountOnes>(type), kU32, {type});
  }
  if (opcode == "clz") {
    return EmitLanes(decoder, statement, CountHandler<CountLeadingZeros>(type), kU32, {type});
  }
  if (opcode == "bfind") {
    const Handler handler = statement.has("shiftamt") ? CountHandler<FindHighestShift>(type)
                                                      : CountHandler<FindHighest>(type);
    return EmitLanes(decoder, statement, handler, kU32, {type});
  }
  if (opcode == "bfe" || opcode == "bfi") return DecodeFields(decoder, statement, type);
  if (opcode == "bmsk") {
    const Handler handler = statement.has("wrap")
                                ? &Binary<uint32_t, uint32_t, uint32_t, ByteMaskWrap>
                                : &Binary<uint32_t, uint32_t, uint32_t, ByteMaskClamp>;
    return EmitLanes(decoder, statement, handler, kU32, {kU32, kU32});
  }
  if (opcode == "shf") {
    return EmitLanes(decoder, statement, FunnelHandler(statement), kU32, {kU32, kU32, kU32});
  }
  if (opcode == "lop3") return DecodeLogic3(decoder, statement);
  if (statement.modifiers.size() != 1) throw KernelDecoder::Unsupported{"a mode of prmt"};
  return EmitLanes(decoder, statement, &Ternary<uint32_t, uint32_t, uint32_t, uint32_t, Permute>,
                   kU32, {kU32, kU32, kU32});
}

}  // namespace tiny_knn::emulation
