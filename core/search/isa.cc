#include "core/search/isa.h"

#include <fmt/format.h>

#include <atomic>
#include <cstdint>

#include "hwy/highway.h"

namespace tiny_knn {
namespace {

// Highway's targets of each level and below; a lower bit is a better target.
int64_t TargetsUpTo(IsaLevel level) {
  constexpr int64_t kPortable = HWY_SCALAR | HWY_EMU128;
  constexpr int64_t kAvx2 = kPortable | HWY_SSSE3 | HWY_SSE4 | HWY_AVX2;
  switch (level) {
    case IsaLevel::kPortable:
      return kPortable;
    case IsaLevel::kAvx2:
      return kAvx2;
    case IsaLevel::kAvx512:
      break;
  }
  return kAvx2 | HWY_AVX3 | HWY_AVX3_DL;
}

IsaLevel LevelOf(int64_t targets) {
  if ((targets & (HWY_AVX3 | HWY_AVX3_DL)) != 0) return IsaLevel::kAvx512;
  if ((targets & HWY_AVX2) != 0) return IsaLevel::kAvx2;
  return IsaLevel::kPortable;
}

bool FindInt8DotProducts() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512vnni") != 0 &&
         LevelOf(hwy::SupportedTargets()) == IsaLevel::kAvx512;
#else
  return false;
#endif
}

// Inner loops want to know, and asking the processor takes longer than what they do.
std::atomic<bool>& KnownInt8DotProducts() {
  static std::atomic<bool> known = FindInt8DotProducts();
  return known;
}

}  // namespace

std::string_view IsaLevelName(IsaLevel level) {
  switch (level) {
    case IsaLevel::kPortable:
      return "portable";
    case IsaLevel::kAvx2:
      return "avx2";
    case IsaLevel::kAvx512:
      return "avx512";
  }
  return "portable";
}

std::optional<IsaLevel> ParseIsaLevel(std::string_view name) {
  for (const IsaLevel level : {IsaLevel::kPortable, IsaLevel::kAvx2, IsaLevel::kAvx512}) {
    if (name == IsaLevelName(level)) return level;
  }
  return std::nullopt;
}

IsaLevel CurrentIsaLevel() { return LevelOf(hwy::SupportedTargets()); }

IsaLevel BestIsaLevel() {
  static const IsaLevel best = LevelOf(hwy::SupportedTargets());
  return best;
}

bool HasInt8DotProducts() { return KnownInt8DotProducts(); }

absl::Status ForceIsaLevelForTest(IsaLevel level) {
  if (static_cast<int>(level) > static_cast<int>(BestIsaLevel())) {
    return absl::FailedPreconditionError(fmt::format("this machine has no {} (its best is {})",
                                                     IsaLevelName(level),
                                                     IsaLevelName(BestIsaLevel())));
  }
  const int64_t targets = hwy::SupportedTargets() & TargetsUpTo(level);
  hwy::SetSupportedTargetsForTest(targets);
  hwy::GetChosenTarget().Update(targets);
  KnownInt8DotProducts() = FindInt8DotProducts();
  return absl::OkStatus();
}

}  // namespace tiny_knn
