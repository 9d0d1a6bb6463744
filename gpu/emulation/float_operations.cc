// Floating point arithmetic. Results are IEEE's, of one rounding; a NaN of 16 or 32 bits is the
// canonical one, as on a GPU. The approximate functions (rcp.approx, ex2, ...) are rounded
// correctly here: their error on a GPU is greater.
#include <algorithm>
#include <cfenv>
#include <cmath>
#include <limits>
#include <string_view>

#include "core/matrix/convert.h"
#include "gpu/emulation/lane_operations.h"

namespace tiny_knn::emulation {
namespace {

constexpr uint16_t kNan16 = 0x7fff;

float Canonical(float value) {
  return std::isnan(value) ? std::bit_cast<float>(0x7fffffffU) : value;
}
double Canonical(double value) { return value; }

// What .ftz does to an operand or a result.
float Flushed(float value) {
  return std::fabs(value) < std::numeric_limits<float>::min() ? std::copysign(0.0F, value) : value;
}
double Flushed(double value) { return value; }

// NaN becomes +0.
template <typename T>
T Saturated(T value) {
  return value > 0 ? std::min(value, T{1}) : T{0};
}

struct Add {
  template <typename T>
  T operator()(T a, T b) const {
    return a + b;
  }
};
struct Subtract {
  template <typename T>
  T operator()(T a, T b) const {
    return a - b;
  }
};
struct Multiply {
  template <typename T>
  T operator()(T a, T b) const {
    return a * b;
  }
};
struct Divide {
  template <typename T>
  T operator()(T a, T b) const {
    return a / b;
  }
};
// min and max: of a number and a NaN the number, -0 below +0.
struct Minimum {
  template <typename T>
  T operator()(T a, T b) const {
    if (std::isnan(a)) return b;
    if (std::isnan(b)) return a;
    if (a == b) return std::signbit(a) ? a : b;
    return a < b ? a : b;
  }
};
struct Maximum {
  template <typename T>
  T operator()(T a, T b) const {
    if (std::isnan(a)) return b;
    if (std::isnan(b)) return a;
    if (a == b) return std::signbit(a) ? b : a;
    return a < b ? b : a;
  }
};
template <typename F>
struct OrNan {  // .NaN
  template <typename T>
  T operator()(T a, T b) const {
    return std::isnan(a) || std::isnan(b) ? std::numeric_limits<T>::quiet_NaN() : F()(a, b);
  }
};
struct CopySign {
  template <typename T>
  T operator()(T a, T b) const {
    return std::copysign(b, a);
  }
};
struct Fma {
  template <typename T>
  T operator()(T a, T b, T c) const {
    return std::fma(a, b, c);
  }
};
struct Negate {
  template <typename T>
  T operator()(T a) const {
    return -a;
  }
};
struct Absolute {
  template <typename T>
  T operator()(T a) const {
    return std::fabs(a);
  }
};
struct SquareRoot {
  template <typename T>
  T operator()(T a) const {
    return std::sqrt(a);
  }
};
struct Reciprocal {
  template <typename T>
  T operator()(T a) const {
    return 1 / a;
  }
};
struct ReciprocalRoot {
  template <typename T>
  T operator()(T a) const {
    return 1 / std::sqrt(a);
  }
};
struct Exp2 {
  template <typename T>
  T operator()(T a) const {
    return std::exp2(a);
  }
};
struct Log2 {
  template <typename T>
  T operator()(T a) const {
    return std::log2(a);
  }
};
struct Sine {
  template <typename T>
  T operator()(T a) const {
    return std::sin(a);
  }
};
struct Cosine {
  template <typename T>
  T operator()(T a) const {
    return std::cos(a);
  }
};
struct HyperbolicTangent {
  template <typename T>
  T operator()(T a) const {
    return std::tanh(a);
  }
};

// How an operation is rounded and finished; `variant` of an operation.
enum : uint8_t { kFlush = 1, kSaturate = 2, kDown = 4, kUp = 8, kToZero = 12, kDirection = 12 };

// Rounds as `variant` says while it lives.
class ScopedRounding {
 public:
  explicit ScopedRounding(uint8_t variant) : directed_((variant & kDirection) != 0) {
    if (!directed_) return;
    const int direction = variant & kDirection;
    std::fesetround(direction == kDown ? FE_DOWNWARD
                                       : (direction == kUp ? FE_UPWARD : FE_TOWARDZERO));
  }
  ~ScopedRounding() {
    if (directed_) std::fesetround(FE_TONEAREST);
  }
  ScopedRounding(const ScopedRounding&) = delete;
  ScopedRounding& operator=(const ScopedRounding&) = delete;

 private:
  bool directed_;
};

// Any number of operands of one type, plainly: to nearest, nothing flushed.
template <typename T, typename F, int kOperands>
void Plain(Warp& warp, const Operation& operation, LaneMask lanes) {
  const T* a = warp.Lanes<T>(operation.source[0]);
  const T* b = warp.Lanes<T>(operation.source[kOperands > 1 ? 1 : 0]);
  const T* c = warp.Lanes<T>(operation.source[kOperands > 2 ? 2 : 0]);
  T* d = warp.Lanes<T>(operation.destination);
  ForLanes(lanes, [=](int lane) {
    if constexpr (kOperands == 1) d[lane] = Canonical(F()(a[lane]));
    if constexpr (kOperands == 2) d[lane] = Canonical(F()(a[lane], b[lane]));
    if constexpr (kOperands == 3) d[lane] = Canonical(F()(a[lane], b[lane], c[lane]));
  });
}

// The same with rounding, flushing and saturation as asked for.
template <typename T, typename F, int kOperands>
void Special(Warp& warp, const Operation& operation, LaneMask lanes) {
  const uint8_t variant = operation.variant;
  const ScopedRounding rounding(variant);
  const auto load = [&](int source, int lane) -> T {
    const T value = warp.Lanes<T>(operation.source[source])[lane];
    return (variant & kFlush) != 0 ? Flushed(value) : value;
  };
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    // Volatile: the compiler does not know that the rounding has been changed.
    volatile T a = load(0, lane);
    volatile T result = 0;
    if constexpr (kOperands == 1) {
      result = F()(static_cast<T>(a));
    } else {
      volatile T b = load(1, lane);
      if constexpr (kOperands == 2) {
        result = F()(static_cast<T>(a), static_cast<T>(b));
      } else {
        volatile T c = load(2, lane);
        result = F()(static_cast<T>(a), static_cast<T>(b), static_cast<T>(c));
      }
    }
    T finished = Canonical(static_cast<T>(result));
    if ((variant & kFlush) != 0) finished = Flushed(finished);
    if ((variant & kSaturate) != 0) finished = Saturated(finished);
    warp.Lanes<T>(operation.destination)[lane] = finished;
  }
}

// a + b, where a bit that is rounded off is kept in the last place: rounding the result to a format
// of half the bits is then as if the sum had been exact.
double SumToOdd(double a, double b) {
  const double sum = a + b;
  if (!std::isfinite(sum)) return sum;
  const double of_b = sum - a;
  const double error = (a - (sum - of_b)) + (b - of_b);
  if (error == 0 || (std::bit_cast<uint64_t>(sum) & 1) != 0) return sum;
  return std::nextafter(sum, error > 0 ? HUGE_VAL : -HUGE_VAL);
}

// Operations on 16-bit floats: exact in double, or rounded to odd there, and rounded once.
struct HalfAdd {
  double operator()(double a, double b, double /*c*/) const { return SumToOdd(a, b); }
};
struct HalfSubtract {
  double operator()(double a, double b, double /*c*/) const { return SumToOdd(a, -b); }
};
struct HalfMultiply {
  double operator()(double a, double b, double /*c*/) const { return a * b; }
};
struct HalfFma {
  double operator()(double a, double b, double c) const { return SumToOdd(a * b, c); }
};
template <typename F>
struct HalfUnary {
  double operator()(double a, double /*b*/, double /*c*/) const { return F()(a); }
};
template <typename F>
struct HalfBinary {
  double operator()(double a, double b, double /*c*/) const { return F()(a, b); }
};

template <typename F, bool kBFloat>
void Half(Warp& warp, const Operation& operation, LaneMask lanes) {
  const int packed = operation.values;
  const auto load = [&](int source, int index) -> double {
    const uint16_t bits = warp.Lanes<uint16_t>(operation.source[source])[index];
    return kBFloat ? BFloat16ToFloat32(bits) : Float16ToFloat32(bits);
  };
  for (; lanes != 0; lanes &= lanes - 1) {
    for (int part = 0; part < packed; ++part) {
      const int index = __builtin_ctz(lanes) * packed + part;
      double value = F()(load(0, index), load(1, index), load(2, index));
      if ((operation.variant & kSaturate) != 0) value = Saturated(value);
      uint16_t bits = kBFloat ? Float64ToBFloat16(value) : Float64ToFloat16(value);
      if (std::isnan(value)) bits = kNan16;
      warp.Lanes<uint16_t>(operation.destination)[index] = bits;
    }
  }
}

template <typename F>
Handler HalfHandler(PtxType type) {
  return type.kind == TypeKind::kBFloat ? &Half<F, true> : &Half<F, false>;
}

Handler HalfHandlerOf(std::string_view opcode, bool keeps_nan, PtxType type) {
  if (opcode == "add") return HalfHandler<HalfAdd>(type);
  if (opcode == "sub") return HalfHandler<HalfSubtract>(type);
  if (opcode == "mul") return HalfHandler<HalfMultiply>(type);
  if (opcode == "fma") return HalfHandler<HalfFma>(type);
  if (opcode == "neg") return HalfHandler<HalfUnary<Negate>>(type);
  if (opcode == "abs") return HalfHandler<HalfUnary<Absolute>>(type);
  if (opcode == "min" && keeps_nan) return HalfHandler<HalfBinary<OrNan<Minimum>>>(type);
  if (opcode == "max" && keeps_nan) return HalfHandler<HalfBinary<OrNan<Maximum>>>(type);
  if (opcode == "min") return HalfHandler<HalfBinary<Minimum>>(type);
  if (opcode == "max") return HalfHandler<HalfBinary<Maximum>>(type);
  throw KernelDecoder::Unsupported{"this function of 16-bit floats"};
}

bool DecodeHalf(KernelDecoder& decoder, const PtxInstruction& statement, PtxType type) {
  if (statement.has("ftz") || statement.has("relu")) {
    throw KernelDecoder::Unsupported{"flushing of 16-bit floats"};
  }
  Operation operation = decoder.New(HalfHandlerOf(statement.opcode, statement.has("NaN"), type));
  operation.values = type.packed;
  operation.variant = statement.has("sat") ? kSaturate : 0;
  for (size_t i = 0; i < 3; ++i) {
    operation.source[i] = i + 1 < statement.operands.size()
                              ? decoder.Source(statement.operands[i + 1], type)
                              : operation.source[0];
  }
  operation.destination = decoder.Destination(statement.operands.at(0), type);
  decoder.Emit(operation);
  return true;
}

uint8_t VariantOf(const PtxInstruction& statement) {
  int variant = (statement.has("ftz") ? kFlush : 0) | (statement.has("sat") ? kSaturate : 0);
  if (statement.has("rm")) variant |= kDown;
  if (statement.has("rp")) variant |= kUp;
  if (statement.has("rz")) variant |= kToZero;
  return static_cast<uint8_t>(variant);
}

template <typename F, int kOperands>
bool Emit(KernelDecoder& decoder, const PtxInstruction& statement, PtxType type) {
  if (statement.operands.size() != kOperands + 1) {
    throw KernelDecoder::Unsupported{"another number of operands"};
  }
  const uint8_t variant = VariantOf(statement);
  const Handler of_float =
      variant == 0 ? &Plain<float, F, kOperands> : &Special<float, F, kOperands>;
  const Handler of_double =
      variant == 0 ? &Plain<double, F, kOperands> : &Special<double, F, kOperands>;
  const Handler handler = type.bytes == 4 ? of_float : of_double;
  Operation operation = decoder.New(handler);
  operation.variant = variant;
  for (size_t i = 0; i < kOperands; ++i) {
    operation.source[i] = decoder.Source(statement.operands[i + 1], type);
  }
  operation.destination = decoder.Destination(statement.operands[0], type);
  decoder.Emit(operation);
  return true;
}

}  // namespace

bool DecodeFloatArithmetic(KernelDecoder& decoder, const PtxInstruction& statement) {
  static constexpr std::string_view kKnown[] = {
      "add",  "sub",   "mul", "mad", "fma", "div", "min", "max",  "neg",     "abs",
      "sqrt", "rsqrt", "rcp", "ex2", "lg2", "sin", "cos", "tanh", "copysign"};
  const std::string_view opcode = statement.opcode;
  if (std::find(std::begin(kKnown), std::end(kKnown), opcode) == std::end(kKnown)) return false;
  const PtxType type = TypeOf(statement);
  if (!IsFloat(type)) return false;
  if (statement.has("xorsign")) throw KernelDecoder::Unsupported{"xorsign"};
  if (type.bytes == 2) return DecodeHalf(decoder, statement, type);
  const bool keeps_nan = statement.has("NaN");
  if (opcode == "add") return Emit<Add, 2>(decoder, statement, type);
  if (opcode == "sub") return Emit<Subtract, 2>(decoder, statement, type);
  if (opcode == "mul") return Emit<Multiply, 2>(decoder, statement, type);
  if (opcode == "fma" || opcode == "mad") return Emit<Fma, 3>(decoder, statement, type);
  if (opcode == "div") return Emit<Divide, 2>(decoder, statement, type);
  if (opcode == "min" && keeps_nan) return Emit<OrNan<Minimum>, 2>(decoder, statement, type);
  if (opcode == "max" && keeps_nan) return Emit<OrNan<Maximum>, 2>(decoder, statement, type);
  if (opcode == "min") return Emit<Minimum, 2>(decoder, statement, type);
  if (opcode == "max") return Emit<Maximum, 2>(decoder, statement, type);
  if (opcode == "copysign") return Emit<CopySign, 2>(decoder, statement, type);
  if (opcode == "neg") return Emit<Negate, 1>(decoder, statement, type);
  if (opcode == "abs") return Emit<Absolute, 1>(decoder, statement, type);
  if (opcode == "sqrt") return Emit<SquareRoot, 1>(decoder, statement, type);
  if (opcode == "rcp") return Emit<Reciprocal, 1>(decoder, statement, type);
  if (opcode == "rsqrt") return Emit<ReciprocalRoot, 1>(decoder, statement, type);
  if (opcode == "ex2") return Emit<Exp2, 1>(decoder, statement, type);
  if (opcode == "lg2") return Emit<Log2, 1>(decoder, statement, type);
  if (opcode == "sin") return Emit<Sine, 1>(decoder, statement, type);
  if (opcode == "cos") return Emit<Cosine, 1>(decoder, statement, type);
  return Emit<HyperbolicTangent, 1>(decoder, statement, type);
}

}  // namespace tiny_knn::emulation
