#include "core/matrix/convert.h"

#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "core/matrix/stored_elements.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

static_assert(FLT_EVAL_METHOD == 0, "float expressions must be evaluated in float");

// Elements that are not C++ arithmetic types.
struct Bool {
  uint8_t byte;
};
struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <typename F>
auto VisitDType(DType dtype, F&& visit) {
  switch (dtype) {
    case DType::kBool:
      return visit(Bool{});
    case DType::kInt8:
      return visit(int8_t{});
    case DType::kUInt8:
      return visit(uint8_t{});
    case DType::kInt16:
      return visit(int16_t{});
    case DType::kInt32:
      return visit(int32_t{});
    case DType::kInt64:
      return visit(int64_t{});
    case DType::kFloat16:
      return visit(Float16{});
    case DType::kBFloat16:
      return visit(BFloat16{});
    case DType::kFloat32:
      return visit(float{});
    case DType::kFloat64:
      return visit(double{});
  }
  std::abort();  // not a DType
}

template <typename E>
inline constexpr bool kIsInteger = std::is_integral_v<E> || std::is_same_v<E, Bool>;

// `condition ? a : b` on unsigned integers. As bit masks for 32 bits: with ?: GCC sinks the
// floating-point operations behind `a` into a branch, and then does not vectorise the loop. The
// baseline has no 64-bit vector compare, so there ?: is the faster one.
template <typename Bits>
inline Bits Select(bool condition, Bits a, Bits b) {
  if constexpr (sizeof(Bits) == 8) return condition ? a : b;
  const Bits mask = Bits{0} - static_cast<Bits>(condition);
  return (a & mask) | (b & ~mask);
}

// a < b for bits without the sign bit. Vector units of the baseline compare signed integers only.
template <typename Bits>
inline bool Less(Bits a, Bits b) {
  return static_cast<std::make_signed_t<Bits>>(a) < static_cast<std::make_signed_t<Bits>>(b);
}

// Branch-free, so that loops over it vectorise at the baseline instruction set. No step has a
// subnormal operand: DAZ cannot change it.
inline float WidenFloat16(uint16_t bits) { return WidenElement(StoredFloat16{bits}); }
inline float WidenBFloat16(uint16_t bits) { return WidenElement(StoredBFloat16{bits}); }

// A narrow binary format, and the numbers that rounding a wider float V to it needs.
template <typename V>
struct Binary;
template <>
struct Binary<float> {
  using Bits = uint32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr Bits kInfinity = 0x7F800000u;
  static constexpr Bits kQuietBit = 0x00400000u;
};
template <>
struct Binary<double> {
  using Bits = uint64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr Bits kInfinity = 0x7FF0000000000000u;
  static constexpr Bits kQuietBit = 0x0008000000000000u;
};

struct Float16Format {
  static constexpr int kMantissaBits = 10;
  static constexpr double kMinNormal = 0x1p-14;
  static constexpr double kOverflow = 0x1p16;        // smallest power of two that is too large
  static constexpr double kSubnormalStep = 0x1p-24;  // distance of subnormals
};
struct BFloat16Format {
  static constexpr int kMantissaBits = 7;
  static constexpr double kMinNormal = 0x1p-126;
  static constexpr double kOverflow = 0x1p128;
  static constexpr double kSubnormalStep = 0x1p-133;
};

// `value` rounded once, to nearest even, to what Format can hold, as a V. NaN stays a quiet NaN.
// Branch-free. In the range of normals the mantissa is rounded as an integer (a carry into the
// exponent is the right result); below it, adding and subtracting a power of two whose last place
// is Format's smallest subnormal rounds to that place.
template <typename Format, typename V>
inline V RoundTo(V value) {
  using B = Binary<V>;
  using Bits = typename B::Bits;
  constexpr int kDropped = B::kMantissaBits - Format::kMantissaBits;
  constexpr Bits kHalf = (Bits{1} << (kDropped - 1)) - 1;
  constexpr Bits kSign = Bits{1} << (sizeof(Bits) * 8 - 1);
  const Bits bits = std::bit_cast<Bits>(value);
  const Bits magnitude = bits & ~kSign;
  const Bits rounded = (magnitude + kHalf + ((magnitude >> kDropped) & 1)) >> kDropped << kDropped;
  Bits result = rounded;
  if constexpr (Format::kMinNormal > std::numeric_limits<V>::min()) {
    constexpr V kMagic =
        static_cast<V>(Format::kSubnormalStep * static_cast<double>(Bits{1} << B::kMantissaBits));
    constexpr Bits kMinNormalBits = std::bit_cast<Bits>(static_cast<V>(Format::kMinNormal));
    const V stepped = (std::bit_cast<V>(magnitude) + kMagic) - kMagic;
    result = Select(Less(magnitude, kMinNormalBits), std::bit_cast<Bits>(stepped), result);
  }
  if constexpr (Format::kOverflow <= std::numeric_limits<V>::max()) {
    constexpr Bits kOverflowBits = std::bit_cast<Bits>(static_cast<V>(Format::kOverflow));
    result = Select(Less(rounded, kOverflowBits), result, B::kInfinity);
  }
  const Bits quiet_nan = (magnitude | B::kQuietBit) >> kDropped << kDropped;
  result = Select(Less(B::kInfinity, magnitude), quiet_nan, result);
  return std::bit_cast<V>(result | (bits & kSign));
}

// |value| as a double whose distance from any rounding boundary of bfloat16 has the right sign:
// what does not fit 53 bits is folded into the last one.
inline double Int64ToStickyFloat64(int64_t value) {
  const uint64_t magnitude =
      value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  double result = static_cast<double>(static_cast<int64_t>(magnitude));
  if (magnitude >= uint64_t{1} << 53) {
    const uint64_t sticky = (magnitude >> 11) | ((magnitude & 0x7FF) != 0 ? 1 : 0);
    result = static_cast<double>(static_cast<int64_t>(sticky)) * 2048.0;
  }
  return value < 0 ? -result : result;
}

// The value of a file element as an arithmetic type that holds it exactly.
inline int8_t Exact(Bool element) { return element.byte != 0 ? 1 : 0; }
inline float Exact(Float16 element) { return WidenFloat16(element.bits); }
inline float Exact(BFloat16 element) { return WidenBFloat16(element.bits); }
template <typename E>
requires std::is_arithmetic_v<E>
inline E Exact(E element) { return element; }

// The floating-point type to round a Value in: float where it holds every Value, because it
// vectorises. (Integers beyond 2^53 round in the conversion to double; callers know.)
template <typename Value>
using RoundingType =
    std::conditional_t<std::is_same_v<Value, float> ||
                           (std::is_integral_v<Value> && sizeof(Value) <= sizeof(int16_t)),
                       float, double>;

// File element -> compute dtype (one rounding) -> working type. Integer compute dtypes: the value
// is in range already.
template <typename Compute, typename Working, typename E>
inline Working Convert(E element) {
  const auto value = Exact(element);
  using Value = std::remove_const_t<decltype(value)>;
  if constexpr (std::is_same_v<Compute, Float16> && !std::is_same_v<E, Float16>) {
    // Integers beyond 2^53 are infinite in float16, rounded or not.
    return static_cast<Working>(RoundTo<Float16Format>(static_cast<RoundingType<Value>>(value)));
  } else if constexpr (std::is_same_v<Compute, BFloat16> && !std::is_same_v<E, BFloat16>) {
    if constexpr (std::is_same_v<E, int64_t>) {
      return static_cast<Working>(RoundTo<BFloat16Format>(Int64ToStickyFloat64(value)));
    } else {
      return static_cast<Working>(RoundTo<BFloat16Format>(static_cast<RoundingType<Value>>(value)));
    }
  } else {
    // Same type, a float that holds it, or the one rounding of the hardware's conversion.
    return static_cast<Working>(value);
  }
}

// Whether converting E to Compute can make an infinity of a finite value.
template <typename E, typename Compute>
constexpr bool CanOverflow() {
  if constexpr (std::is_same_v<Compute, Float16>) {
    return !(std::is_same_v<E, Float16> || std::is_same_v<E, Bool> || sizeof(E) == 1 ||
             std::is_same_v<E, int16_t>);
  } else if constexpr (std::is_same_v<Compute, BFloat16>) {
    return std::is_same_v<E, float> || std::is_same_v<E, double>;
  } else if constexpr (std::is_same_v<Compute, float>) {
    return std::is_same_v<E, double>;
  }
  return false;
}

// Whether every E is an integer that Compute holds.
template <typename E, typename Compute>
constexpr bool Fits() {
  if constexpr (std::is_same_v<E, Bool>) {
    return true;
  } else {
    return std::in_range<Compute>(std::numeric_limits<E>::min()) &&
           std::in_range<Compute>(std::numeric_limits<E>::max());
  }
}

template <typename E>
inline E Load(const std::byte* row, int64_t i) {
  E element;  // rows need not be aligned
  std::memcpy(&element, row + i * static_cast<int64_t>(sizeof(E)), sizeof(E));
  return element;
}

template <typename E>
bool IsFiniteElement(E element) {
  const auto value = Exact(element);
  if constexpr (std::is_floating_point_v<decltype(Exact(element))>) return std::isfinite(value);
  return true;
}

template <typename E, typename Compute>
absl::Status CheckRange(const std::byte* row, int64_t dim, int64_t row_index, DType from,
                        DType compute_dtype) {
  constexpr E kLow = std::in_range<E>(std::numeric_limits<Compute>::min())
                         ? static_cast<E>(std::numeric_limits<Compute>::min())
                         : std::numeric_limits<E>::min();
  constexpr E kHigh = std::in_range<E>(std::numeric_limits<Compute>::max())
                          ? static_cast<E>(std::numeric_limits<Compute>::max())
                          : std::numeric_limits<E>::max();
  bool outside = false;
  for (int64_t j = 0; j < dim; ++j) {
    const E value = Load<E>(row, j);
    outside |= static_cast<bool>((value < kLow) | (value > kHigh));
  }
  if (!outside) return absl::OkStatus();
  int64_t j = 0;
  while (Load<E>(row, j) >= kLow && Load<E>(row, j) <= kHigh) ++j;
  return absl::InvalidArgumentError(fmt::format(
      "the {} value {} in row {}, column {} does not fit --dtype {} ({} to {}); use --dtype {} or "
      "float32",
      DTypeName(from), int64_t{Load<E>(row, j)}, row_index, j, DTypeName(compute_dtype),
      int64_t{std::numeric_limits<Compute>::min()}, int64_t{std::numeric_limits<Compute>::max()},
      DTypeName(from)));
}

template <typename E, typename Compute, typename Working>
absl::Status ConvertAll(const MatrixView& rows, DType compute_dtype, int64_t first_row,
                        Working* out, int64_t out_stride, ConvertCounts& counts) {
  for (int64_t i = 0; i < rows.rows; ++i) {
    const auto* row = static_cast<const std::byte*>(rows.Row(i));
    Working* __restrict target = out + i * out_stride;
    if constexpr (kIsInteger<E> && kIsInteger<Compute>) {
      if constexpr (!Fits<E, Compute>()) {
        absl::Status status =
            CheckRange<E, Compute>(row, rows.dim, first_row + i, rows.dtype, compute_dtype);
        if (!status.ok()) return status;
      }
    }
    for (int64_t j = 0; j < rows.dim; ++j) {
      target[j] = Convert<Compute, Working>(Load<E>(row, j));
    }
    if constexpr (CanOverflow<E, Compute>()) {
      // The row is still in the cache. Infinities are rare: look closely only where one is.
      typename Binary<Working>::Bits any_infinity = 0;
      for (int64_t j = 0; j < rows.dim; ++j) {
        const auto bits = std::bit_cast<typename Binary<Working>::Bits>(target[j]);
        any_infinity |= (bits << 1) == Binary<Working>::kInfinity << 1 ? 1 : 0;
      }
      if (any_infinity != 0) {
        for (int64_t j = 0; j < rows.dim; ++j) {
          if (std::isinf(target[j]) && IsFiniteElement(Load<E>(row, j))) ++counts.infs_made;
        }
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

float Float16ToFloat32(uint16_t bits) { return WidenFloat16(bits); }

float BFloat16ToFloat32(uint16_t bits) { return WidenBFloat16(bits); }

uint16_t Float64ToFloat16(double value) {
  // The rounded value is exact in float16: only its bits need to move.
  const auto bits = std::bit_cast<uint64_t>(RoundTo<Float16Format>(value));
  const auto sign = static_cast<uint16_t>(bits >> 48 & 0x8000);
  const uint64_t magnitude = bits & 0x7FFFFFFFFFFFFFFF;
  const auto mantissa = static_cast<uint16_t>(magnitude >> 42 & 0x03FF);
  const auto exponent = static_cast<int>(magnitude >> 52);
  uint16_t result;
  if (exponent == 0x7FF) {
    result = static_cast<uint16_t>(0x7C00 | mantissa);
  } else if (magnitude < std::bit_cast<uint64_t>(Float16Format::kMinNormal)) {
    result = static_cast<uint16_t>(std::bit_cast<double>(magnitude) * 0x1p24);
  } else {
    result = static_cast<uint16_t>((exponent - 1023 + 15) << 10 | mantissa);
  }
  return static_cast<uint16_t>(sign | result);
}

uint16_t Float64ToBFloat16(double value) {
  const auto rounded = static_cast<float>(RoundTo<BFloat16Format>(value));
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(rounded) >> 16);
}

uint16_t Int64ToBFloat16(int64_t value) { return Float64ToBFloat16(Int64ToStickyFloat64(value)); }

absl::Status CheckConversion(DType from, DType compute_dtype) {
  if (!IsComputeDType(compute_dtype)) {
    return absl::InvalidArgumentError(fmt::format("--dtype {} cannot be searched in; use one of {}",
                                                  DTypeName(compute_dtype), ComputeDTypeNames()));
  }
  if (IsFloatingPoint(from) && !IsFloatingPoint(compute_dtype)) {
    return absl::InvalidArgumentError(fmt::format(
        "{} values cannot be searched in --dtype {}, which would lose their fractions; use --dtype "
        "{}{}",
        DTypeName(from), DTypeName(compute_dtype), DTypeName(from),
        from == DType::kFloat32 ? "" : " or float32"));
  }
  return absl::OkStatus();
}

bool IsIdentityConversion(DType from, DType compute_dtype) {
  return from == compute_dtype && from == WorkingDType(compute_dtype);
}

template <typename T>
bool AreWorkingRows(const MatrixView& rows, DType compute_dtype) {
  return IsIdentityConversion(rows.dtype, compute_dtype) &&
         ItemSize(rows.dtype) == static_cast<int64_t>(sizeof(T)) &&
         reinterpret_cast<uintptr_t>(rows.data) % alignof(T) == 0 &&
         rows.row_stride_bytes % static_cast<int64_t>(sizeof(T)) == 0;
}

template bool AreWorkingRows<float>(const MatrixView&, DType);
template bool AreWorkingRows<double>(const MatrixView&, DType);

template <typename T>
absl::Status ConvertRows(const MatrixView& rows, DType compute_dtype, int64_t first_row, T* out,
                         int64_t out_stride, ConvertCounts& counts) {
  if constexpr (std::is_same_v<T, float>) {
    if (IsWidenedExactly(rows.dtype, compute_dtype)) {
      for (int64_t i = 0; i < rows.rows; ++i) {
        WidenRow(rows.Row(i), rows.dtype, rows.dim, out + i * out_stride);
      }
      return absl::OkStatus();
    }
  }
  return VisitDType(rows.dtype, [&](auto element) {
    return VisitDType(compute_dtype, [&](auto compute) -> absl::Status {
      using E = decltype(element);
      using Compute = decltype(compute);
      constexpr bool kSupported =
          !std::is_same_v<Compute, Bool> &&
          (kIsInteger<E> || !kIsInteger<Compute>)&&std::is_same_v<T, double> ==
              std::is_same_v<Compute, double>;
      if constexpr (kSupported) {
        return ConvertAll<E, Compute, T>(rows, compute_dtype, first_row, out, out_stride, counts);
      } else {
        return absl::InternalError(fmt::format("no conversion of {} rows for --dtype {}",
                                               DTypeName(rows.dtype), DTypeName(compute_dtype)));
      }
    });
  });
}

template absl::Status ConvertRows<float>(const MatrixView&, DType, int64_t, float*, int64_t,
                                         ConvertCounts&);
template absl::Status ConvertRows<double>(const MatrixView&, DType, int64_t, double*, int64_t,
                                          ConvertCounts&);

}  // namespace tiny_knn
