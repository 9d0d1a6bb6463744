#include "core/search/isa.h"

#include <fmt/format.h>

#include <atomic>
#include <cstdint>

#include "hwy/highway.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

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
    case IsaLevel::kAmx:
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

// Whether the processor has tiles of 8-bit integers and the system lets this process use them.
bool FindInt8Tiles() {
#if defined(__x86_64__) && defined(__linux__)
  if (!FindInt8DotProducts()) return false;
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  constexpr unsigned kTiles = 1U << 24;
  constexpr unsigned kInt8 = 1U << 25;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kTiles) == 0 || (edx & kInt8) == 0) return false;
  constexpr int64_t kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM, in no header of Debian 12
  constexpr int64_t kTileData = 18;               // XFEATURE_XTILE_DATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

// What Highway does not know of. Inner loops want to know, and asking the processor takes longer
// than what they do.
struct Int8Units {
  std::atomic<bool> dot_products;
  std::atomic<bool> tiles;
};
Int8Units& KnownInt8Units() {
  static Int8Units known{FindInt8DotProducts(), FindInt8Tiles()};
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
    case IsaLevel::kAmx:
      return "amx";
  }
  return "portable";
}

std::optional<IsaLevel> ParseIsaLevel(std::string_view name) {
  for (const IsaLevel level : kIsaLevels) {
    if (name == IsaLevelName(level)) return level;
  }
  return std::nullopt;
}

IsaLevel CurrentIsaLevel() {
  return HasInt8Tiles() ? IsaLevel::kAmx : LevelOf(hwy::SupportedTargets());
}

IsaLevel BestIsaLevel() {
  static const IsaLevel best = CurrentIsaLevel();
  return best;
}

bool HasInt8DotProducts() { return KnownInt8Units().dot_products; }

bool HasInt8Tiles() { return KnownInt8Units().tiles; }

absl::Status ForceIsaLevelForTest(IsaLevel level) {
  if (static_cast<int>(level) > static_cast<int>(BestIsaLevel())) {
    return absl::FailedPreconditionError(fmt::format("this machine has no {} (its best is {})",
                                                     IsaLevelName(level),
                                                     IsaLevelName(BestIsaLevel())));
  }
  static const int64_t all_targets = hwy::SupportedTargets();
  const int64_t targets = all_targets & TargetsUpTo(level);
  hwy::SetSupportedTargetsForTest(targets);
  hwy::GetChosenTarget().Update(targets);
  KnownInt8Units().dot_products = FindInt8DotProducts();
  KnownInt8Units().tiles = level == IsaLevel::kAmx;
  return absl::OkStatus();
}

}  // namespace tiny_knn
