#include "gpu/emulation/ptx_program.h"

#include <algorithm>

namespace tiny_knn::emulation {

bool ParsePtxType(std::string_view name, PtxType* type) {
  struct Named {
    std::string_view name;
    PtxType type;
  };
  static constexpr Named kTypes[] = {
      {"pred", {TypeKind::kPredicate, 0, 1}}, {"b8", {TypeKind::kUnsigned, 1, 1}},
      {"u8", {TypeKind::kUnsigned, 1, 1}},    {"s8", {TypeKind::kSigned, 1, 1}},
      {"b16", {TypeKind::kUnsigned, 2, 1}},   {"u16", {TypeKind::kUnsigned, 2, 1}},
      {"s16", {TypeKind::kSigned, 2, 1}},     {"f16", {TypeKind::kFloat, 2, 1}},
      {"bf16", {TypeKind::kBFloat, 2, 1}},    {"f16x2", {TypeKind::kFloat, 2, 2}},
      {"bf16x2", {TypeKind::kBFloat, 2, 2}},  {"b32", {TypeKind::kUnsigned, 4, 1}},
      {"u32", {TypeKind::kUnsigned, 4, 1}},   {"s32", {TypeKind::kSigned, 4, 1}},
      {"f32", {TypeKind::kFloat, 4, 1}},      {"b64", {TypeKind::kUnsigned, 8, 1}},
      {"u64", {TypeKind::kUnsigned, 8, 1}},   {"s64", {TypeKind::kSigned, 8, 1}},
      {"f64", {TypeKind::kFloat, 8, 1}},      {"b128", {TypeKind::kUnsigned, 16, 1}},
  };
  const auto* found = std::find_if(std::begin(kTypes), std::end(kTypes),
                                   [&](const Named& named) { return named.name == name; });
  if (found == std::end(kTypes)) return false;
  *type = found->type;
  return true;
}

bool PtxInstruction::has(std::string_view modifier) const {
  return std::find(modifiers.begin(), modifiers.end(), modifier) != modifiers.end();
}

}  // namespace tiny_knn::emulation
