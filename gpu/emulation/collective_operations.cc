// What the lanes of a warp do together: shfl, vote, match, redux, elect and bar.warp.sync. The
// scheduler calls a handler when all lanes of the mask, which is source[3], have come.
#include <algorithm>
#include <string_view>

#include "fmt/format.h"
#include "gpu/emulation/lane_operations.h"

namespace tiny_knn::emulation {
namespace {

constexpr PtxType kU32{TypeKind::kUnsigned, 4, 1};
constexpr PtxType kPredicate{TypeKind::kPredicate, 0, 1};

enum class Shuffle : uint8_t { kUp, kDown, kButterfly, kIndex };

void SetPredicate(Warp& warp, Slot slot, LaneMask lanes, LaneMask values) {
  LaneMask& d = warp.Predicate(slot);
  d = (d & ~lanes) | (values & lanes);
}

// Where a lane reads: segments of the warp shuffle among themselves, and `last` is the last lane of
// one (the first, for `up`): see shfl.sync in the PTX manual. `valid`: else it reads itself.
template <Shuffle kMode>
int LaneToRead(int lane, uint32_t b, uint32_t c, uint8_t* valid) {
  const auto by = static_cast<int>(b & 31);
  const auto clamp = static_cast<int>(c & 31);
  const auto segment = static_cast<int>((c >> 8) & 31);
  const int last = (lane & segment) | (clamp & ~segment);
  int from = lane;
  if constexpr (kMode == Shuffle::kUp) from = lane - by;
  if constexpr (kMode == Shuffle::kDown) from = lane + by;
  if constexpr (kMode == Shuffle::kButterfly) from = lane ^ by;
  if constexpr (kMode == Shuffle::kIndex) from = (lane & segment) | (by & ~segment);
  const bool is_valid = kMode == Shuffle::kUp ? from >= last : from <= last;
  *valid = is_valid ? 1 : 0;
  return is_valid ? from : lane;
}

// `values` 2: the predicate result's slot is vector[1].
template <Shuffle kMode>
void RunShuffle(Warp& warp, const Operation& operation, LaneMask lanes) {
  const uint32_t* a = warp.Lanes<uint32_t>(operation.source[0]);
  const uint32_t* b = warp.Lanes<uint32_t>(operation.source[1]);
  const uint32_t* c = warp.Lanes<uint32_t>(operation.source[2]);
  int from[kLanes];
  uint8_t valid[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    from[lane] = LaneToRead<kMode>(lane, b[lane], c[lane], &valid[lane]);
  }
  for (LaneMask rest = lanes == kAllLanes ? 0 : lanes; rest != 0; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    if (((lanes >> from[lane]) & 1) != 0) continue;
    throw Fault{ViolationKind::kWrongMask,
                fmt::format("reads lane {}, which takes no part (mask {:#x})", from[lane], lanes),
                0, lane};
  }
  uint32_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) results[lane] = a[from[lane]];
  uint32_t* d = warp.Lanes<uint32_t>(operation.destination);
  ForLanes(lanes, [&](int lane) { d[lane] = results[lane]; });
  if (operation.values == 2) SetPredicate(warp, operation.vector[1], lanes, MaskOf(valid));
}

enum class Vote : uint8_t { kAll, kAny, kUniform, kBallot };

void RunVote(Warp& warp, const Operation& operation, LaneMask lanes) {
  LaneMask votes = warp.Predicate(operation.source[0]);
  if ((operation.negated_sources & 1) != 0) votes = ~votes;
  votes &= lanes;
  switch (static_cast<Vote>(operation.variant)) {
    case Vote::kAll:
      SetPredicate(warp, operation.destination, lanes, votes == lanes ? kAllLanes : 0);
      return;
    case Vote::kAny:
      SetPredicate(warp, operation.destination, lanes, votes != 0 ? kAllLanes : 0);
      return;
    case Vote::kUniform:
      SetPredicate(warp, operation.destination, lanes,
                   votes == lanes || votes == 0 ? kAllLanes : 0);
      return;
    case Vote::kBallot:
      uint32_t* d = warp.Lanes<uint32_t>(operation.destination);
      ForLanes(lanes, [=](int lane) { d[lane] = votes; });
  }
}

template <typename T>
void RunMatchAny(Warp& warp, const Operation& operation, LaneMask lanes) {
  const T* a = warp.Lanes<T>(operation.source[0]);
  uint32_t results[kLanes];
  for (LaneMask rest = lanes; rest != 0; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    LaneMask same = 0;
    for (int other = 0; other < kLanes; ++other) {
      same |= static_cast<LaneMask>(a[other] == a[lane]) << other;
    }
    results[lane] = same & lanes;
  }
  uint32_t* d = warp.Lanes<uint32_t>(operation.destination);
  ForLanes(lanes, [&](int lane) { d[lane] = results[lane]; });
}

template <typename T>
void RunMatchAll(Warp& warp, const Operation& operation, LaneMask lanes) {
  const T* a = warp.Lanes<T>(operation.source[0]);
  bool all = true;
  const T first = a[__builtin_ctz(lanes)];
  for (LaneMask rest = lanes; rest != 0; rest &= rest - 1) all &= a[__builtin_ctz(rest)] == first;
  uint32_t* d = warp.Lanes<uint32_t>(operation.destination);
  ForLanes(lanes, [=](int lane) { d[lane] = all ? lanes : 0; });
  if (operation.values == 2) SetPredicate(warp, operation.vector[1], lanes, all ? kAllLanes : 0);
}

enum class Reduction : uint8_t { kAdd, kMin, kMax, kAnd, kOr, kXor };

template <typename T>
void RunReduction(Warp& warp, const Operation& operation, LaneMask lanes) {
  const T* a = warp.Lanes<T>(operation.source[0]);
  T result = a[__builtin_ctz(lanes)];
  for (LaneMask rest = lanes & (lanes - 1); rest != 0; rest &= rest - 1) {
    const T value = a[__builtin_ctz(rest)];
    switch (static_cast<Reduction>(operation.variant)) {
      case Reduction::kAdd:
        result = static_cast<T>(static_cast<uint32_t>(result) + static_cast<uint32_t>(value));
        break;
      case Reduction::kMin:
        result = std::min(result, value);
        break;
      case Reduction::kMax:
        result = std::max(result, value);
        break;
      case Reduction::kAnd:
        result &= value;
        break;
      case Reduction::kOr:
        result |= value;
        break;
      case Reduction::kXor:
        result ^= value;
        break;
    }
  }
  T* d = warp.Lanes<T>(operation.destination);
  ForLanes(lanes, [=](int lane) { d[lane] = result; });
}

// One lane of the mask is elected: the lowest, which is as good as any.
void RunElect(Warp& warp, const Operation& operation, LaneMask lanes) {
  const int leader = __builtin_ctz(lanes);
  uint32_t* d = warp.Lanes<uint32_t>(operation.destination);
  ForLanes(lanes, [=](int lane) { d[lane] = static_cast<uint32_t>(leader); });
  SetPredicate(warp, operation.vector[1], lanes, LaneMask{1} << leader);
}

template <size_t kCount>
uint8_t VariantOf(const PtxInstruction& statement, const std::string_view (&names)[kCount]) {
  for (size_t i = 0; i < kCount; ++i) {
    if (statement.has(names[i])) return static_cast<uint8_t>(i);
  }
  throw KernelDecoder::Unsupported{"this form of a warp collective"};
}

// The result d, or d|p.
void DecodeResults(KernelDecoder& decoder, const PtxOperand& result, PtxType type,
                   Operation* operation) {
  if (result.kind != PtxOperand::Kind::kList) {
    operation->destination = decoder.Destination(result, type);
    return;
  }
  operation->values = 2;
  operation->destination = decoder.Destination(result.list.at(0), type);
  operation->vector[1] = decoder.Destination(result.list.at(1), kPredicate);
}

bool DecodeShuffle(KernelDecoder& decoder, const PtxInstruction& statement) {
  static constexpr std::string_view kModes[] = {"up", "down", "bfly", "idx"};
  static constexpr Handler kHandlers[] = {&RunShuffle<Shuffle::kUp>, &RunShuffle<Shuffle::kDown>,
                                          &RunShuffle<Shuffle::kButterfly>,
                                          &RunShuffle<Shuffle::kIndex>};
  Operation operation = decoder.New(kHandlers[VariantOf(statement, kModes)]);
  operation.control = Control::kWarpCollective;
  for (size_t i = 0; i < 4; ++i) {
    operation.source[i] = decoder.Source(statement.operands.at(i + 1), kU32);
  }
  DecodeResults(decoder, statement.operands[0], kU32, &operation);
  decoder.Emit(operation);
  return true;
}

bool DecodeVote(KernelDecoder& decoder, const PtxInstruction& statement) {
  static constexpr std::string_view kModes[] = {"all", "any", "uni", "ballot"};
  Operation operation = decoder.New(&RunVote);
  operation.control = Control::kWarpCollective;
  operation.variant = VariantOf(statement, kModes);
  operation.source[0] = decoder.PredicateSource(statement.operands.at(1), 0, &operation);
  operation.source[3] = decoder.Source(statement.operands.at(2), kU32);
  const bool is_ballot = static_cast<Vote>(operation.variant) == Vote::kBallot;
  operation.destination = decoder.Destination(statement.operands[0], is_ballot ? kU32 : kPredicate);
  decoder.Emit(operation);
  return true;
}

bool DecodeMatch(KernelDecoder& decoder, const PtxInstruction& statement) {
  const PtxType type = TypeOf(statement);
  const bool any = statement.has("any");
  const Handler handler = type.bytes == 8 ? (any ? &RunMatchAny<uint64_t> : &RunMatchAll<uint64_t>)
                                          : (any ? &RunMatchAny<uint32_t> : &RunMatchAll<uint32_t>);
  Operation operation = decoder.New(handler);
  operation.control = Control::kWarpCollective;
  operation.source[0] = decoder.Source(statement.operands.at(1), type);
  operation.source[3] = decoder.Source(statement.operands.at(2), kU32);
  DecodeResults(decoder, statement.operands[0], kU32, &operation);
  decoder.Emit(operation);
  return true;
}

bool DecodeReduction(KernelDecoder& decoder, const PtxInstruction& statement) {
  static constexpr std::string_view kModes[] = {"add", "min", "max", "and", "or", "xor"};
  const PtxType type = TypeOf(statement);
  if (!IsInteger(type) || type.bytes != 4) throw KernelDecoder::Unsupported{"this type"};
  Operation operation = decoder.New(type.kind == TypeKind::kSigned ? &RunReduction<int32_t>
                                                                   : &RunReduction<uint32_t>);
  operation.control = Control::kWarpCollective;
  operation.variant = VariantOf(statement, kModes);
  operation.source[0] = decoder.Source(statement.operands.at(1), type);
  operation.source[3] = decoder.Source(statement.operands.at(2), kU32);
  operation.destination = decoder.Destination(statement.operands[0], type);
  decoder.Emit(operation);
  return true;
}

}  // namespace

bool DecodeCollective(KernelDecoder& decoder, const PtxInstruction& statement) {
  const std::string_view opcode = statement.opcode;
  if (opcode == "shfl" && statement.has("sync")) return DecodeShuffle(decoder, statement);
  if (opcode == "vote" && statement.has("sync")) return DecodeVote(decoder, statement);
  if (opcode == "match") return DecodeMatch(decoder, statement);
  if (opcode == "redux") return DecodeReduction(decoder, statement);
  if (opcode == "elect") {
    Operation operation = decoder.New(&RunElect);
    operation.control = Control::kWarpCollective;
    operation.source[3] = decoder.Source(statement.operands.at(1), kU32);
    DecodeResults(decoder, statement.operands[0], kU32, &operation);
    decoder.Emit(operation);
    return true;
  }
  if (opcode == "bar" && statement.has("warp")) {
    Operation operation = decoder.New(nullptr);
    operation.control = Control::kWarpBarrier;
    operation.source[3] = decoder.Source(statement.operands.at(0), kU32);
    decoder.Emit(operation);
    return true;
  }
  return false;
}

}  // namespace tiny_knn::emulation
