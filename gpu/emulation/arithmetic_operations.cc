// Integer arithmetic: add, sub, mul, mad, div, rem, min, max, abs, neg, sad, dp4a, and with
// carries.
#include <algorithm>
#include <string_view>
#include <type_traits>

#include "gpu/emulation/lane_operations.h"

namespace tiny_knn::emulation {
namespace {

template <typename T>
using Unsigned = std::make_unsigned_t<T>;

// Twice as wide.
template <typename T>
struct WideOf;
template <>
struct WideOf<uint16_t> {
  using Type = uint32_t;
};
template <>
struct WideOf<int16_t> {
  using Type = int32_t;
};
template <>
struct WideOf<uint32_t> {
  using Type = uint64_t;
};
template <>
struct WideOf<int32_t> {
  using Type = int64_t;
};
template <>
struct WideOf<uint64_t> {
  using Type = unsigned __int128;
};
template <>
struct WideOf<int64_t> {
  using Type = __int128;
};
template <typename T>
using Wide = typename WideOf<T>::Type;

// All arithmetic wraps around, so it is done on unsigned values of at least 32 bits.
template <typename T>
T Multiply(T a, T b) {
  return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}

struct Add {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Unsigned<T>>(a) + static_cast<Unsigned<T>>(b));
  }
};
struct Subtract {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Unsigned<T>>(a) - static_cast<Unsigned<T>>(b));
  }
};
// add.sat.s32, sub.sat.s32.
struct AddSaturated {
  int32_t operator()(int32_t a, int32_t b) const {
    const int64_t sum = int64_t{a} + b;
    return static_cast<int32_t>(std::clamp<int64_t>(sum, INT32_MIN, INT32_MAX));
  }
};
struct SubtractSaturated {
  int32_t operator()(int32_t a, int32_t b) const {
    const int64_t difference = int64_t{a} - b;
    return static_cast<int32_t>(std::clamp<int64_t>(difference, INT32_MIN, INT32_MAX));
  }
};
struct MultiplyLow {
  template <typename T>
  T operator()(T a, T b) const {
    return Multiply(a, b);
  }
};
struct MultiplyHigh {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>((static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b)) >> (8 * sizeof(T)));
  }
};
struct MultiplyWide {
  template <typename T>
  Wide<T> operator()(T a, T b) const {
    return static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b);
  }
};
struct MultiplyLowAdd {
  template <typename T>
  T operator()(T a, T b, T c) const {
    return Add()(Multiply(a, b), c);
  }
};
struct MultiplyHighAdd {
  template <typename T>
  T operator()(T a, T b, T c) const {
    return Add()(MultiplyHigh()(a, b), c);
  }
};
struct MultiplyWideAdd {
  template <typename T>
  Wide<T> operator()(T a, T b, Wide<T> c) const {
    return Add()(static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b), c);
  }
};
// Of 24 bits each.
struct Multiply24 {
  template <typename T>
  T operator()(T a, T b) const {
    constexpr int kShift = 8;
    const T low_a = static_cast<T>(static_cast<T>(static_cast<uint32_t>(a) << kShift) >> kShift);
    const T low_b = static_cast<T>(static_cast<T>(static_cast<uint32_t>(b) << kShift) >> kShift);
    return Multiply(low_a, low_b);
  }
};
// Division by zero and of the least by -1 are left open by PTX; these are what GPUs give.
struct Divide {
  template <typename T>
  T operator()(T a, T b) const {
    if (b == 0) return static_cast<T>(-1);
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return Subtract()(T{0}, a);
    return static_cast<T>(a / b);
  }
};
struct Remainder {
  template <typename T>
  T operator()(T a, T b) const {
    if (b == 0) return a;
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
    return static_cast<T>(a % b);
  }
};
struct Minimum {
  template <typename T>
  T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};
struct Maximum {
  template <typename T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
struct Negate {
  template <typename T>
  T operator()(T a) const {
    return Subtract()(T{0}, a);
  }
};
struct Absolute {
  template <typename T>
  T operator()(T a) const {
    return a < 0 ? Subtract()(T{0}, a) : a;
  }
};
struct SumOfDifference {
  template <typename T>
  T operator()(T a, T b, T c) const {
    return Add()(c, a < b ? Subtract()(b, a) : Subtract()(a, b));
  }
};

// dp4a and dp2a: c and the products of bytes of a and b (dp2a: of two 16-bit halves of a, and the
// lower or upper two bytes of b). `variant`: bit 0 a is signed, bit 1 b is, bit 2 upper bytes.
int64_t Part(uint32_t word, int bits, int index, bool is_signed) {
  const uint32_t part = (word >> (bits * index)) & ((1U << bits) - 1);
  if (!is_signed) return part;
  return static_cast<int32_t>(part << (32 - bits)) >> (32 - bits);
}

template <int kParts>
void DotProduct(Warp& warp, const Operation& operation, LaneMask lanes) {
  const uint32_t* a = warp.Lanes<uint32_t>(operation.source[0]);
  const uint32_t* b = warp.Lanes<uint32_t>(operation.source[1]);
  const uint32_t* c = warp.Lanes<uint32_t>(operation.source[2]);
  uint32_t* d = warp.Lanes<uint32_t>(operation.destination);
  const int variant = operation.variant;
  ForLanes(lanes, [=](int lane) {
    int64_t sum = c[lane];
    for (int i = 0; i < kParts; ++i) {
      const int of_b = kParts == 2 && (variant & 4) != 0 ? i + 2 : i;
      sum += Part(a[lane], 32 / kParts, i, (variant & 1) != 0) *
             Part(b[lane], 8, of_b, (variant & 2) != 0);
    }
    d[lane] = static_cast<uint32_t>(sum);
  });
}

// add.cc, addc, addc.cc, sub.cc, subc, subc.cc. `variant`: bit 0 reads the carry, bit 1 writes it,
// bit 2 subtracts. A subtraction's carry is its borrow.
template <typename T>
void AddWithCarry(Warp& warp, const Operation& operation, LaneMask lanes) {
  const T* a = warp.Lanes<T>(operation.source[0]);
  const T* b = warp.Lanes<T>(operation.source[1]);
  T* d = warp.Lanes<T>(operation.destination);
  const int variant = operation.variant;
  ForLanes(lanes, [&](int lane) {
    uint8_t& carry = warp.carries[lane];
    const unsigned in = (variant & 1) != 0 ? carry : 0;
    const auto wide_a = static_cast<unsigned __int128>(a[lane]);
    const auto wide_b = static_cast<unsigned __int128>(b[lane]);
    const unsigned __int128 sum = (variant & 4) != 0 ? wide_a - wide_b - in : wide_a + wide_b + in;
    d[lane] = static_cast<T>(sum);
    if ((variant & 2) != 0) carry = static_cast<uint8_t>((sum >> (8 * sizeof(T))) & 1);
  });
}

bool DecodeCarry(KernelDecoder& decoder, const PtxInstruction& statement, PtxType type) {
  const std::string_view opcode = statement.opcode;
  const bool subtracts = opcode.starts_with("sub");
  Operation operation = decoder.New(ForInteger(
      type.bytes, false, []<typename T>() -> Handler { return &AddWithCarry<Unsigned<T>>; }));
  operation.variant = static_cast<uint8_t>((opcode.ends_with("c") ? 1 : 0) |
                                           (statement.has("cc") ? 2 : 0) | (subtracts ? 4 : 0));
  operation.source[0] = decoder.Source(statement.operands.at(1), type);
  operation.source[1] = decoder.Source(statement.operands.at(2), type);
  operation.destination = decoder.Destination(statement.operands.at(0), type);
  decoder.Emit(operation);
  return true;
}

bool DecodeDotProduct(KernelDecoder& decoder, const PtxInstruction& statement) {
  constexpr PtxType kU32{TypeKind::kUnsigned, 4, 1};
  const auto types = statement.modifiers.end();
  const bool of_four = statement.opcode == "dp4a";
  Operation operation = decoder.New(of_four ? &DotProduct<4> : &DotProduct<2>);
  operation.variant = static_cast<uint8_t>(
      (types[-2] == "s32" ? 1 : 0) | (types[-1] == "s32" ? 2 : 0) | (statement.has("hi") ? 4 : 0));
  for (size_t i = 0; i < 3; ++i) {
    operation.source[i] = decoder.Source(statement.operands.at(i + 1), kU32);
  }
  operation.destination = decoder.Destination(statement.operands.at(0), kU32);
  decoder.Emit(operation);
  return true;
}

template <typename F>
Handler BinaryHandler(PtxType type) {
  return ForInteger(type.bytes, type.kind == TypeKind::kSigned,
                    []<typename T>() -> Handler { return &Binary<T, T, T, F>; });
}

template <typename F>
Handler UnaryHandler(PtxType type) {
  return ForInteger(type.bytes, type.kind == TypeKind::kSigned,
                    []<typename T>() -> Handler { return &Unary<T, T, F>; });
}

// mul and mad in their .lo, .hi and .wide forms.
bool DecodeMultiply(KernelDecoder& decoder, const PtxInstruction& statement, PtxType type) {
  const bool adds = statement.opcode == "mad";
  const bool wide = statement.has("wide");
  const bool high = statement.has("hi");
  PtxType result = type;
  if (wide) result.bytes = static_cast<uint8_t>(2 * type.bytes);
  const Handler handler =
      ForInteger(type.bytes, type.kind == TypeKind::kSigned, [=]<typename T>() -> Handler {
        if constexpr (sizeof(T) == 1) {
          throw KernelDecoder::Unsupported{"a product of bytes"};
        } else {
          if constexpr (sizeof(T) < 8) {
            if (wide && adds) return &Ternary<Wide<T>, T, T, Wide<T>, MultiplyWideAdd>;
            if (wide) return &Binary<Wide<T>, T, T, MultiplyWide>;
          }
          if (high && adds) return &Ternary<T, T, T, T, MultiplyHighAdd>;
          if (high) return &Binary<T, T, T, MultiplyHigh>;
          if (adds) return &Ternary<T, T, T, T, MultiplyLowAdd>;
          return &Binary<T, T, T, MultiplyLow>;
        }
      });
  if (adds) return EmitLanes(decoder, statement, handler, result, {type, type, result});
  return EmitLanes(decoder, statement, handler, result, {type, type});
}

}  // namespace

bool DecodeArithmetic(KernelDecoder& decoder, const PtxInstruction& statement) {
  const std::string_view opcode = statement.opcode;
  if (opcode == "dp4a" || opcode == "dp2a") return DecodeDotProduct(decoder, statement);
  static constexpr std::string_view kKnown[] = {"add",  "sub",  "mul", "mad",  "div",
                                                "rem",  "min",  "max", "neg",  "abs",
                                                "addc", "subc", "sad", "mul24"};
  if (std::find(std::begin(kKnown), std::end(kKnown), opcode) == std::end(kKnown)) return false;
  const PtxType type = TypeOf(statement);
  if (!IsInteger(type)) return false;
  if (opcode == "addc" || opcode == "subc" || statement.has("cc")) {
    if (opcode == "mad") throw KernelDecoder::Unsupported{"mad with a carry"};
    return DecodeCarry(decoder, statement, type);
  }
  if (opcode == "mul" || opcode == "mad") return DecodeMultiply(decoder, statement, type);
  const auto binary = [&](Handler handler) {
    return EmitLanes(decoder, statement, handler, type, {type, type});
  };
  if (statement.has("sat")) {
    if (opcode == "add") return binary(&Binary<int32_t, int32_t, int32_t, AddSaturated>);
    if (opcode == "sub") return binary(&Binary<int32_t, int32_t, int32_t, SubtractSaturated>);
    throw KernelDecoder::Unsupported{"saturation"};
  }
  if (opcode == "add") return binary(BinaryHandler<Add>(type));
  if (opcode == "sub") return binary(BinaryHandler<Subtract>(type));
  if (opcode == "div") return binary(BinaryHandler<Divide>(type));
  if (opcode == "rem") return binary(BinaryHandler<Remainder>(type));
  if (opcode == "min") return binary(BinaryHandler<Minimum>(type));
  if (opcode == "max") return binary(BinaryHandler<Maximum>(type));
  if (opcode == "neg")
    return EmitLanes(decoder, statement, UnaryHandler<Negate>(type), type, {type});
  if (opcode == "abs") {
    return EmitLanes(decoder, statement, UnaryHandler<Absolute>(type), type, {type});
  }
  if (opcode == "sad") {
    const Handler handler =
        ForInteger(type.bytes, type.kind == TypeKind::kSigned,
                   []<typename T>() -> Handler { return &Ternary<T, T, T, T, SumOfDifference>; });
    return EmitLanes(decoder, statement, handler, type, {type, type, type});
  }
  // mul24: .lo; .hi is of no use to a compiler.
  if (statement.has("hi")) throw KernelDecoder::Unsupported{"mul24.hi"};
  return binary(type.kind == TypeKind::kSigned ? &Binary<int32_t, int32_t, int32_t, Multiply24>
                                               : &Binary<uint32_t, uint32_t, uint32_t, Multiply24>);
}

}  // namespace tiny_knn::emulation
