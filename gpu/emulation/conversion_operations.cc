// cvt: between integers and floats of all widths, with every rounding.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>
#include <type_traits>

#include "core/matrix/convert.h"
#include "gpu/emulation/lane_operations.h"

namespace tiny_knn::emulation {
namespace {

constexpr uint16_t kNan16 = 0x7fff;
constexpr uint32_t kNan32 = 0x7fffffff;
constexpr PtxType kF32{TypeKind::kFloat, 4, 1};
constexpr PtxType kB32{TypeKind::kUnsigned, 4, 1};

enum class Rounding : uint8_t { kNearest, kToZero, kDown, kUp, kNearestAway };

struct Conversion {
  PtxType from, to;
  Rounding rounding = Rounding::kNearest;
  bool to_integral = false;  // rni, rzi, rmi, rpi
  bool flush = false;
  bool saturate = false;
};
static_assert(sizeof(Conversion) <= sizeof(Operation::vector));

// The conversion travels in the operation, where branches and addresses have their numbers.
Conversion ConversionOf(const Operation& operation) {
  Conversion conversion;
  std::memcpy(&conversion, operation.vector, sizeof(conversion));
  return conversion;
}

// A value on its way: exact for every source type.
struct Number {
  bool is_float = false;
  double real = 0;       // is_float
  __int128 integer = 0;  // otherwise
};

Number Load(const std::byte* bytes, PtxType type) {
  uint64_t bits = 0;
  std::memcpy(&bits, bytes, type.bytes);
  Number number;
  if (IsFloat(type)) {
    number.is_float = true;
    if (type.kind == TypeKind::kBFloat) {
      number.real = BFloat16ToFloat32(static_cast<uint16_t>(bits));
    } else if (type.bytes == 2) {
      number.real = Float16ToFloat32(static_cast<uint16_t>(bits));
    } else if (type.bytes == 4) {
      number.real = std::bit_cast<float>(static_cast<uint32_t>(bits));
    } else {
      number.real = std::bit_cast<double>(bits);
    }
  } else if (type.kind == TypeKind::kSigned) {
    const int unused = 64 - 8 * type.bytes;
    number.integer = static_cast<int64_t>(bits << unused) >> unused;
  } else {
    number.integer = bits;
  }
  return number;
}

double Integral(double value, Rounding rounding) {
  switch (rounding) {
    case Rounding::kToZero:
      return std::trunc(value);
    case Rounding::kDown:
      return std::floor(value);
    case Rounding::kUp:
      return std::ceil(value);
    default:
      return std::nearbyint(value);
  }
}

uint64_t ToInteger(double value, PtxType from, const Conversion& conversion) {
  const PtxType to = conversion.to;
  const int bits = 8 * to.bytes;
  const bool is_signed = to.kind == TypeKind::kSigned;
  if (std::isnan(value)) {
    return from.bytes < 8 && to.bytes < 8 ? 0 : uint64_t{1} << (bits - 1);
  }
  const double rounded = Integral(value, conversion.rounding);
  // What does not fit becomes the nearest that does.
  const double limit = std::ldexp(1.0, is_signed ? bits - 1 : bits);
  if (rounded >= limit) return is_signed ? (uint64_t{1} << (bits - 1)) - 1 : ~uint64_t{0};
  if (!is_signed && rounded <= 0) return 0;
  if (rounded < -limit) return uint64_t{1} << (bits - 1);
  return rounded < 0 ? static_cast<uint64_t>(static_cast<int64_t>(rounded))
                     : static_cast<uint64_t>(rounded);
}

// A double that rounds to any narrower format as `value` itself does: inexactness is kept in the
// last bit.
double ToOdd(__int128 value) {
  const auto nearest = static_cast<double>(value);
  const auto back = static_cast<__int128>(nearest);
  if (back == value || (std::bit_cast<uint64_t>(nearest) & 1) != 0) return nearest;
  return std::nextafter(nearest, back < value ? HUGE_VAL : -HUGE_VAL);
}

// `bits`, the nearest of a format with the given value, or its neighbour on the side that is asked
// for. Formats are sign and magnitude, so neighbours differ by one.
uint64_t Directed(uint64_t bits, double of_bits, double value, Rounding rounding, uint64_t sign) {
  const bool negative = (bits & sign) != 0;
  if (rounding == Rounding::kToZero && std::fabs(of_bits) > std::fabs(value)) return bits - 1;
  if (rounding == Rounding::kDown && of_bits > value) {
    return negative ? bits + 1 : ((bits & ~sign) == 0 ? sign | 1 : bits - 1);
  }
  if (rounding == Rounding::kUp && of_bits < value) {
    return negative ? ((bits & ~sign) == 0 ? 1 : bits - 1) : bits + 1;
  }
  return bits;
}

uint64_t ToFloat(double value, PtxType to, const Conversion& conversion) {
  if (conversion.saturate) value = value > 0 ? std::min(value, 1.0) : 0.0;
  if (to.bytes == 8) return std::bit_cast<uint64_t>(value);
  if (to.bytes == 4) {
    if (std::isnan(value)) return kNan32;
    const auto nearest = static_cast<float>(value);
    auto bits = static_cast<uint32_t>(Directed(std::bit_cast<uint32_t>(nearest), nearest, value,
                                               conversion.rounding, 0x80000000));
    if (conversion.flush && (bits & 0x7f800000) == 0) bits &= 0x80000000;
    return bits;
  }
  if (std::isnan(value)) return kNan16;
  if (to.kind == TypeKind::kBFloat) {
    const uint16_t bits = Float64ToBFloat16(value);
    return Directed(bits, BFloat16ToFloat32(bits), value, conversion.rounding, 0x8000);
  }
  const uint16_t bits = Float64ToFloat16(value);
  return Directed(bits, Float16ToFloat32(bits), value, conversion.rounding, 0x8000);
}

uint64_t Convert(Number number, const Conversion& conversion) {
  const PtxType to = conversion.to;
  if (number.is_float) {
    double value = number.real;
    if (conversion.flush && conversion.from == kF32 &&
        std::fabs(value) < std::numeric_limits<float>::min()) {
      value = std::copysign(0.0, value);
    }
    if (!IsFloat(to)) return ToInteger(value, conversion.from, conversion);
    if (!conversion.to_integral) return ToFloat(value, to, conversion);
    Conversion exact = conversion;
    exact.rounding = Rounding::kNearest;
    return ToFloat(Integral(value, conversion.rounding), to, exact);
  }
  if (IsFloat(to)) {
    // A double itself is rounded as asked for, a narrower format once, from an odd double.
    if (to.bytes < 8) return ToFloat(ToOdd(number.integer), to, conversion);
    const auto nearest = static_cast<double>(number.integer);
    const auto back = static_cast<__int128>(nearest);
    if (back == number.integer || conversion.rounding == Rounding::kNearest) {
      return ToFloat(nearest, to, conversion);
    }
    const bool down = conversion.rounding == Rounding::kDown ||
                      (conversion.rounding == Rounding::kToZero && number.integer > 0);
    if (down == (back > number.integer)) {
      return ToFloat(std::nextafter(nearest, down ? -HUGE_VAL : HUGE_VAL), to, conversion);
    }
    return ToFloat(nearest, to, conversion);
  }
  if (conversion.saturate) {
    const int bits = 8 * to.bytes;
    const bool is_signed = to.kind == TypeKind::kSigned;
    const __int128 most = (static_cast<__int128>(1) << (is_signed ? bits - 1 : bits)) - 1;
    const __int128 least = is_signed ? -most - 1 : 0;
    number.integer = std::clamp(number.integer, least, most);
  }
  return static_cast<uint64_t>(number.integer);
}

void ConvertLanes(Warp& warp, const Operation& operation, LaneMask lanes) {
  const Conversion conversion = ConversionOf(operation);
  const std::byte* source = warp.Lanes<std::byte>(operation.source[0]);
  std::byte* destination = warp.Lanes<std::byte>(operation.destination);
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    const uint64_t bits =
        Convert(Load(source + lane * conversion.from.bytes, conversion.from), conversion);
    std::memcpy(destination + lane * conversion.to.bytes, &bits, conversion.to.bytes);
  }
}

// cvt.rn.f16x2.f32 d, a, b: a above, b below.
void ConvertPairs(Warp& warp, const Operation& operation, LaneMask lanes) {
  const Conversion conversion = ConversionOf(operation);
  const float* high = warp.Lanes<float>(operation.source[0]);
  const float* low = warp.Lanes<float>(operation.source[1]);
  uint32_t* d = warp.Lanes<uint32_t>(operation.destination);
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    d[lane] = static_cast<uint32_t>((ToFloat(high[lane], conversion.to, conversion) << 16) |
                                    ToFloat(low[lane], conversion.to, conversion));
  }
}

// To TF32: 10 bits of fraction in a float.
void ConvertToTf32(Warp& warp, const Operation& operation, LaneMask lanes) {
  const auto rounding = static_cast<Rounding>(operation.variant);
  const uint32_t* a = warp.Lanes<uint32_t>(operation.source[0]);
  uint32_t* d = warp.Lanes<uint32_t>(operation.destination);
  ForLanes(lanes, [=](int lane) {
    const uint32_t bits = a[lane];
    uint32_t add = 0;
    if (rounding == Rounding::kNearestAway) add = 0x1000;
    if (rounding == Rounding::kNearest) add = 0xfff + ((bits >> 13) & 1);
    const bool finite = (bits & 0x7f800000) != 0x7f800000;
    const bool nan = !finite && (bits & 0x7fffff) != 0;
    d[lane] = nan ? kNan32 : (finite ? (bits + add) & ~0x1fffU : bits);
  });
}

template <typename To, typename From>
void Plain(Warp& warp, const Operation& operation, LaneMask lanes) {
  const From* a = warp.Lanes<From>(operation.source[0]);
  To* d = warp.Lanes<To>(operation.destination);
  ForLanes(lanes, [=](int lane) {
    d[lane] = static_cast<To>(a[lane]);  // NOLINT(bugprone-signed-char-misuse): signs are extended
    if constexpr (std::is_same_v<To, float>) {
      if (d[lane] != d[lane]) d[lane] = std::bit_cast<float>(kNan32);
    }
  });
}

// The handlers of what is common and needs no more than a cast; null for the rest.
Handler PlainHandler(const Conversion& conversion) {
  if (conversion.saturate || conversion.flush || conversion.to_integral ||
      conversion.rounding != Rounding::kNearest) {
    return nullptr;
  }
  const PtxType from = conversion.from, to = conversion.to;
  const auto is = [](PtxType type, int bytes) {
    return type.kind == TypeKind::kFloat && type.bytes == bytes;
  };
  if (is(from, 4) && is(to, 8)) return &Plain<double, float>;
  if (is(from, 8) && is(to, 4)) return &Plain<float, double>;
  if (!IsInteger(from)) return nullptr;
  const bool is_signed = from.kind == TypeKind::kSigned;
  return ForInteger(from.bytes, is_signed, [&]<typename From>() -> Handler {
    if (is(to, 4)) return &Plain<float, From>;
    if (is(to, 8)) return &Plain<double, From>;
    if (!IsInteger(to)) return nullptr;
    return ForInteger(to.bytes, false, []<typename To>() -> Handler { return &Plain<To, From>; });
  });
}

Conversion Parse(const PtxInstruction& statement) {
  Conversion conversion;
  int types = 0;
  for (const std::string& modifier : statement.modifiers) {
    PtxType type;
    if (ParsePtxType(modifier, &type)) {
      (types++ == 0 ? conversion.to : conversion.from) = type;
      continue;
    }
    conversion.to_integral |= modifier.size() == 3 && modifier[0] == 'r' && modifier[2] == 'i';
    if (modifier.starts_with("rz")) conversion.rounding = Rounding::kToZero;
    if (modifier.starts_with("rm")) conversion.rounding = Rounding::kDown;
    if (modifier.starts_with("rp")) conversion.rounding = Rounding::kUp;
    if (modifier == "rna") conversion.rounding = Rounding::kNearestAway;
    conversion.flush |= modifier == "ftz";
    conversion.saturate |= modifier == "sat";
    if (modifier == "relu" || modifier == "satfinite") {
      throw KernelDecoder::Unsupported{"this form of cvt"};
    }
  }
  if (types != 2 && !statement.has("tf32")) throw KernelDecoder::Unsupported{"these types"};
  return conversion;
}

}  // namespace

bool DecodeConversion(KernelDecoder& decoder, const PtxInstruction& statement) {
  if (statement.opcode != "cvt") return false;
  Conversion conversion = Parse(statement);
  if (statement.has("tf32")) {
    Operation operation = decoder.New(&ConvertToTf32);
    operation.variant = static_cast<uint8_t>(conversion.rounding);
    operation.source[0] = decoder.Source(statement.operands.at(1), kB32);
    operation.destination = decoder.Destination(statement.operands.at(0), kB32);
    decoder.Emit(operation);
    return true;
  }
  const bool pairs = conversion.to.packed == 2;
  if (pairs && (conversion.from != kF32 || statement.operands.size() != 3)) {
    throw KernelDecoder::Unsupported{"these types"};
  }
  const PtxType result = conversion.to;
  Handler handler = pairs ? &ConvertPairs : PlainHandler(conversion);
  if (handler == nullptr) handler = &ConvertLanes;
  Operation operation = decoder.New(handler);
  conversion.to.packed = 1;
  std::memcpy(operation.vector, &conversion, sizeof(conversion));
  operation.source[0] = decoder.Source(statement.operands.at(1), conversion.from);
  if (pairs) operation.source[1] = decoder.Source(statement.operands.at(2), conversion.from);
  operation.destination = decoder.Destination(statement.operands.at(0), result);
  decoder.Emit(operation);
  return true;
}

}  // namespace tiny_knn::emulation
