// setp, set, selp, slct and testp.
#include <algorithm>
#include <cmath>
#include <string_view>

#include "core/matrix/convert.h"
#include "gpu/emulation/lane_operations.h"

namespace tiny_knn::emulation {
namespace {

enum class Relation : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kNumber, kNan };
// How setp combines the comparison with a third operand.
enum class Combine : uint8_t { kNone, kAnd, kOr, kXor };

struct Comparison {
  Relation relation = Relation::kEq;
  bool unordered = false;  // true if an operand is a NaN
  Combine combine = Combine::kNone;
};

Comparison ComparisonOf(const PtxInstruction& statement) {
  struct Named {
    std::string_view name;
    Relation relation;
    bool unordered;
  };
  static constexpr Named kNames[] = {
      {"eq", Relation::kEq, false},      {"ne", Relation::kNe, false},
      {"lt", Relation::kLt, false},      {"le", Relation::kLe, false},
      {"gt", Relation::kGt, false},      {"ge", Relation::kGe, false},
      {"lo", Relation::kLt, false},      {"ls", Relation::kLe, false},
      {"hi", Relation::kGt, false},      {"hs", Relation::kGe, false},
      {"equ", Relation::kEq, true},      {"neu", Relation::kNe, true},
      {"ltu", Relation::kLt, true},      {"leu", Relation::kLe, true},
      {"gtu", Relation::kGt, true},      {"geu", Relation::kGe, true},
      {"num", Relation::kNumber, false}, {"nan", Relation::kNan, false},
  };
  if (statement.modifiers.empty()) throw KernelDecoder::Unsupported{"no relation"};
  const auto* found = std::find_if(std::begin(kNames), std::end(kNames), [&](const Named& named) {
    return named.name == statement.modifiers[0];
  });
  if (found == std::end(kNames)) throw KernelDecoder::Unsupported{"this relation"};
  Comparison comparison{found->relation, found->unordered};
  if (statement.has("and")) comparison.combine = Combine::kAnd;
  if (statement.has("or")) comparison.combine = Combine::kOr;
  if (statement.has("xor")) comparison.combine = Combine::kXor;
  return comparison;
}

// The lanes of which f(lane).
template <typename F>
LaneMask LanesOf(F&& f) {
  uint8_t flags[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) flags[lane] = f(lane) ? 1 : 0;
  return MaskOf(flags);
}

template <typename T>
LaneMask Compare(const T* a, const T* b, Relation relation) {
  switch (relation) {
    case Relation::kEq:
      return LanesOf([=](int i) { return a[i] == b[i]; });
    case Relation::kNe:
      // False if one is a NaN: ne is ordered. "Neither less nor equal nor greater" is a NaN's.
      return LanesOf([=](int i) { return (a[i] < b[i]) | (a[i] > b[i]); });
    case Relation::kLt:
      return LanesOf([=](int i) { return a[i] < b[i]; });
    case Relation::kLe:
      return LanesOf([=](int i) { return a[i] <= b[i]; });
    case Relation::kGt:
      return LanesOf([=](int i) { return a[i] > b[i]; });
    case Relation::kGe:
      return LanesOf([=](int i) { return a[i] >= b[i]; });
    default:
      return 0;
  }
}

template <typename T>
LaneMask NanLanes(const T* a, const T* b) {
  return LanesOf([=](int i) { return (a[i] != a[i]) | (b[i] != b[i]); });
}

// `variant`: relation, | 8 for unordered, | Combine << 4, | 64 for ftz.
template <typename T>
LaneMask Relate(const T* a, const T* b, int variant) {
  const auto relation = static_cast<Relation>(variant & 7);
  if constexpr (std::is_floating_point_v<T>) {
    T flushed[2][kLanes];
    if ((variant & 64) != 0) {
      for (int i = 0; i < kLanes; ++i) {
        flushed[0][i] = std::fpclassify(a[i]) == FP_SUBNORMAL ? T{0} : a[i];
        flushed[1][i] = std::fpclassify(b[i]) == FP_SUBNORMAL ? T{0} : b[i];
      }
      a = flushed[0];
      b = flushed[1];
    }
    if (relation == Relation::kNan) return NanLanes(a, b);
    if (relation == Relation::kNumber) return ~NanLanes(a, b);
    const LaneMask mask = Compare(a, b, relation);
    return (variant & 8) != 0 ? mask | NanLanes(a, b) : mask;
  } else {
    return Compare(a, b, relation);
  }
}

LaneMask Combined(Warp& warp, const Operation& operation, LaneMask result) {
  const auto combine = static_cast<Combine>((operation.variant >> 4) & 3);
  if (combine == Combine::kNone) return result;
  LaneMask third = warp.Predicate(operation.source[2]);
  if ((operation.negated_sources & 4) != 0) third = ~third;
  if (combine == Combine::kAnd) return result & third;
  return combine == Combine::kOr ? result | third : result ^ third;
}

// The result, and its complement combined with the third operand where there is a second result.
void StorePredicates(Warp& warp, const Operation& operation, LaneMask lanes, LaneMask result) {
  const LaneMask first = Combined(warp, operation, result);
  const LaneMask second = Combined(warp, operation, ~result);
  LaneMask& d = warp.Predicate(operation.destination);
  d = (d & ~lanes) | (first & lanes);
  if (operation.values != 2) return;
  LaneMask& q = warp.Predicate(operation.vector[1]);
  q = (q & ~lanes) | (second & lanes);
}

template <typename T>
void SetPredicate(Warp& warp, const Operation& operation, LaneMask lanes) {
  const LaneMask result = Relate(warp.Lanes<T>(operation.source[0]),
                                 warp.Lanes<T>(operation.source[1]), operation.variant);
  StorePredicates(warp, operation, lanes, result);
}

template <bool kBFloat>
void SetPredicateHalf(Warp& warp, const Operation& operation, LaneMask lanes) {
  float values[2][kLanes];
  for (int source = 0; source < 2; ++source) {
    for (int i = 0; i < kLanes; ++i) {
      const uint16_t bits = warp.Lanes<uint16_t>(operation.source[source])[i];
      values[source][i] = kBFloat ? BFloat16ToFloat32(bits) : Float16ToFloat32(bits);
    }
  }
  StorePredicates(warp, operation, lanes, Relate(values[0], values[1], operation.variant));
}

// set: all ones, or 1.0, where true.
template <typename T>
void SetValue(Warp& warp, const Operation& operation, LaneMask lanes) {
  const LaneMask result = Combined(warp, operation,
                                   Relate(warp.Lanes<T>(operation.source[0]),
                                          warp.Lanes<T>(operation.source[1]), operation.variant));
  uint32_t* d = warp.Lanes<uint32_t>(operation.destination);
  const auto if_true = static_cast<uint32_t>(operation.immediate);
  ForLanes(lanes, [=](int lane) { d[lane] = ((result >> lane) & 1) != 0 ? if_true : 0; });
}

template <typename T>
void Select(Warp& warp, const Operation& operation, LaneMask lanes) {
  const T* a = warp.Lanes<T>(operation.source[0]);
  const T* b = warp.Lanes<T>(operation.source[1]);
  T* d = warp.Lanes<T>(operation.destination);
  LaneMask choice = warp.Predicate(operation.source[2]);
  if ((operation.negated_sources & 4) != 0) choice = ~choice;
  ForLanes(lanes, [=](int lane) { d[lane] = ((choice >> lane) & 1) != 0 ? a[lane] : b[lane]; });
}

// slct: by the sign of the third operand; a NaN is no number at or above zero.
template <typename T, typename S>
void SelectBySign(Warp& warp, const Operation& operation, LaneMask lanes) {
  const T* a = warp.Lanes<T>(operation.source[0]);
  const T* b = warp.Lanes<T>(operation.source[1]);
  const S* sign = warp.Lanes<S>(operation.source[2]);
  T* d = warp.Lanes<T>(operation.destination);
  ForLanes(lanes, [=](int lane) { d[lane] = sign[lane] >= 0 ? a[lane] : b[lane]; });
}

enum class Property : uint8_t { kFinite, kInfinite, kNumber, kNotANumber, kNormal, kSubnormal };

template <typename T>
void TestProperty(Warp& warp, const Operation& operation, LaneMask lanes) {
  const T* a = warp.Lanes<T>(operation.source[0]);
  const LaneMask result = LanesOf([&](int lane) {
    switch (static_cast<Property>(operation.variant)) {
      case Property::kFinite:
        return std::isfinite(a[lane]);
      case Property::kInfinite:
        return std::isinf(a[lane]);
      case Property::kNumber:
        return !std::isnan(a[lane]);
      case Property::kNotANumber:
        return std::isnan(a[lane]);
      case Property::kNormal:
        return std::isnormal(a[lane]) || a[lane] == 0;
      default:
        return std::fpclassify(a[lane]) == FP_SUBNORMAL;
    }
  });
  LaneMask& d = warp.Predicate(operation.destination);
  d = (d & ~lanes) | (result & lanes);
}

template <template <typename> class Handlers>
Handler HandlerOf(PtxType type) {
  if (type.kind == TypeKind::kFloat && type.bytes == 4) return &Handlers<float>::Run;
  if (type.kind == TypeKind::kFloat && type.bytes == 8) return &Handlers<double>::Run;
  return ForInteger(type.bytes, type.kind == TypeKind::kSigned,
                    []<typename T>() -> Handler { return &Handlers<T>::Run; });
}
template <typename T>
struct SetPredicateOf {
  static void Run(Warp& warp, const Operation& operation, LaneMask lanes) {
    SetPredicate<T>(warp, operation, lanes);
  }
};
template <typename T>
struct SetValueOf {
  static void Run(Warp& warp, const Operation& operation, LaneMask lanes) {
    SetValue<T>(warp, operation, lanes);
  }
};

bool DecodeSet(KernelDecoder& decoder, const PtxInstruction& statement, bool to_predicate) {
  const PtxType type = TypeOf(statement);
  const Comparison comparison = ComparisonOf(statement);
  if (type.packed != 1) throw KernelDecoder::Unsupported{"a comparison of pairs"};
  Operation operation;
  if (to_predicate && IsFloat(type) && type.bytes == 2) {
    operation = decoder.New(type.kind == TypeKind::kBFloat ? &SetPredicateHalf<true>
                                                           : &SetPredicateHalf<false>);
  } else {
    if (IsFloat(type) && type.bytes == 2) throw KernelDecoder::Unsupported{"set of 16-bit floats"};
    operation =
        decoder.New(to_predicate ? HandlerOf<SetPredicateOf>(type) : HandlerOf<SetValueOf>(type));
  }
  operation.variant = static_cast<uint8_t>(
      static_cast<int>(comparison.relation) | (comparison.unordered ? 8 : 0) |
      (static_cast<int>(comparison.combine) << 4) | (statement.has("ftz") ? 64 : 0));
  operation.source[0] = decoder.Source(statement.operands.at(1), type);
  operation.source[1] = decoder.Source(statement.operands.at(2), type);
  if (comparison.combine != Combine::kNone) {
    operation.source[2] = decoder.PredicateSource(statement.operands.at(3), 2, &operation);
  }
  const PtxOperand& result = statement.operands[0];
  constexpr PtxType kPredicate{TypeKind::kPredicate, 0, 1};
  if (!to_predicate) {
    // set.lt.u32.f32 d, a, b.
    operation.immediate = statement.modifiers.at(1) == "f32" ? 0x3f800000 : 0xffffffff;
    operation.destination = decoder.Destination(result, {TypeKind::kUnsigned, 4, 1});
  } else if (result.kind == PtxOperand::Kind::kList && result.list.size() == 2) {
    operation.values = 2;
    operation.destination = decoder.Destination(result.list[0], kPredicate);
    operation.vector[1] = decoder.Destination(result.list[1], kPredicate);
  } else {
    operation.destination = decoder.Destination(result, kPredicate);
  }
  decoder.Emit(operation);
  return true;
}

bool DecodeSelect(KernelDecoder& decoder, const PtxInstruction& statement) {
  const PtxType type = TypeOf(statement);
  Operation operation = decoder.New(
      ForInteger(type.total_bytes(), false, []<typename T>() -> Handler { return &Select<T>; }));
  operation.source[0] = decoder.Source(statement.operands.at(1), type);
  operation.source[1] = decoder.Source(statement.operands.at(2), type);
  operation.source[2] = decoder.PredicateSource(statement.operands.at(3), 2, &operation);
  operation.destination = decoder.Destination(statement.operands.at(0), type);
  decoder.Emit(operation);
  return true;
}

bool DecodeSelectBySign(KernelDecoder& decoder, const PtxInstruction& statement) {
  PtxType type;
  const PtxType sign = TypeOf(statement);
  if (!ParsePtxType(statement.modifiers.end()[-2], &type)) {
    throw KernelDecoder::Unsupported{"this form of slct"};
  }
  const bool by_float = sign.kind == TypeKind::kFloat;
  const Handler handler = ForInteger(type.bytes, false, [=]<typename T>() -> Handler {
    return by_float ? &SelectBySign<T, float> : &SelectBySign<T, int32_t>;
  });
  return EmitLanes(decoder, statement, handler, type, {type, type, sign});
}

bool DecodeTest(KernelDecoder& decoder, const PtxInstruction& statement) {
  static constexpr std::string_view kNames[] = {"finite",     "infinite", "number",
                                                "notanumber", "normal",   "subnormal"};
  const auto* found = std::find(std::begin(kNames), std::end(kNames), statement.modifiers.at(0));
  if (found == std::end(kNames)) throw KernelDecoder::Unsupported{"this property"};
  const PtxType type = TypeOf(statement);
  Operation operation = decoder.New(type.bytes == 8 ? &TestProperty<double> : &TestProperty<float>);
  operation.variant = static_cast<uint8_t>(found - std::begin(kNames));
  operation.source[0] = decoder.Source(statement.operands.at(1), type);
  operation.destination =
      decoder.Destination(statement.operands.at(0), {TypeKind::kPredicate, 0, 1});
  decoder.Emit(operation);
  return true;
}

}  // namespace

bool DecodeComparison(KernelDecoder& decoder, const PtxInstruction& statement) {
  if (statement.opcode == "setp") return DecodeSet(decoder, statement, true);
  if (statement.opcode == "set") return DecodeSet(decoder, statement, false);
  if (statement.opcode == "selp") return DecodeSelect(decoder, statement);
  if (statement.opcode == "slct") return DecodeSelectBySign(decoder, statement);
  if (statement.opcode == "testp") return DecodeTest(decoder, statement);
  return false;
}

}  // namespace tiny_knn::emulation
