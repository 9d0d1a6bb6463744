// Handlers that do the same in every lane, made of a function on values.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "gpu/emulation/kernel_decoder.h"
#include "gpu/emulation/warp.h"

namespace tiny_knn::emulation {

// d = F()(a), F()(a, b), ...; the values' types are those of the slots.
template <typename D, typename A, typename F>
void Unary(Warp& warp, const Operation& operation, LaneMask lanes) {
  const A* a = warp.Lanes<A>(operation.source[0]);
  D* d = warp.Lanes<D>(operation.destination);
  ForLanes(lanes, [=](int lane) { d[lane] = static_cast<D>(F()(a[lane])); });
}

template <typename D, typename A, typename B, typename F>
void Binary(Warp& warp, const Operation& operation, LaneMask lanes) {
  const A* a = warp.Lanes<A>(operation.source[0]);
  const B* b = warp.Lanes<B>(operation.source[1]);
  D* d = warp.Lanes<D>(operation.destination);
  ForLanes(lanes, [=](int lane) { d[lane] = static_cast<D>(F()(a[lane], b[lane])); });
}

template <typename D, typename A, typename B, typename C, typename F>
void Ternary(Warp& warp, const Operation& operation, LaneMask lanes) {
  const A* a = warp.Lanes<A>(operation.source[0]);
  const B* b = warp.Lanes<B>(operation.source[1]);
  const C* c = warp.Lanes<C>(operation.source[2]);
  D* d = warp.Lanes<D>(operation.destination);
  ForLanes(lanes, [=](int lane) { d[lane] = static_cast<D>(F()(a[lane], b[lane], c[lane])); });
}

// Calls make.operator()<T>() with the C++ integer of the type's width (unsigned, or signed where
// `is_signed`), and returns its handler. Throws Unsupported for another type.
template <typename Make>
Handler ForInteger(int bytes, bool is_signed, Make make) {
  switch (bytes) {
    case 1:
      return is_signed ? make.template operator()<int8_t>() : make.template operator()<uint8_t>();
    case 2:
      return is_signed ? make.template operator()<int16_t>() : make.template operator()<uint16_t>();
    case 4:
      return is_signed ? make.template operator()<int32_t>() : make.template operator()<uint32_t>();
    case 8:
      return is_signed ? make.template operator()<int64_t>() : make.template operator()<uint64_t>();
    default:
      throw KernelDecoder::Unsupported{"an integer of this width"};
  }
}

inline bool IsInteger(PtxType type) {
  return type.kind == TypeKind::kUnsigned || type.kind == TypeKind::kSigned;
}
inline bool IsFloat(PtxType type) {
  return type.kind == TypeKind::kFloat || type.kind == TypeKind::kBFloat;
}

// Emits d = handler(sources...), all of the given types.
inline bool EmitLanes(KernelDecoder& decoder, const PtxInstruction& statement, Handler handler,
                      PtxType destination, std::initializer_list<PtxType> sources) {
  if (statement.operands.size() != sources.size() + 1) {
    throw KernelDecoder::Unsupported{"another number of operands"};
  }
  Operation operation = decoder.New(handler);
  size_t i = 0;
  for (const PtxType type : sources) {
    operation.source[i] = decoder.Source(statement.operands[i + 1], type);
    ++i;
  }
  operation.destination = decoder.Destination(statement.operands[0], destination);
  decoder.Emit(operation);
  return true;
}

}  // namespace tiny_knn::emulation
