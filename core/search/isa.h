// Which instruction set the kernels of this process use. Results never depend on it.
#pragma once

#include <optional>
#include <string_view>

#include "absl/status/status.h"

namespace tiny_knn {

enum class IsaLevel {
  kPortable,  // what every x86-64 (or other) machine has
  kAvx2,      // AVX2 + FMA + F16C
  kAvx512,    // AVX-512 F, BW, CD, DQ, VL; 8-bit dot products (VNNI) where there are
  kAmx,       // AVX-512 with VNNI, and matrix tiles of 8-bit integers (AMX)
};
inline constexpr IsaLevel kIsaLevels[] = {IsaLevel::kPortable, IsaLevel::kAvx2, IsaLevel::kAvx512,
                                          IsaLevel::kAmx};

// "portable", "avx2", "avx512", "amx".
std::string_view IsaLevelName(IsaLevel level);
std::optional<IsaLevel> ParseIsaLevel(std::string_view name);

// The level in force: the best the machine has, unless a test forced another.
IsaLevel CurrentIsaLevel();

// The best level this machine has.
IsaLevel BestIsaLevel();

// Whether the machine multiplies vectors of 8-bit integers into 32-bit sums in one instruction that
// does not saturate (AVX-512 VNNI), at the level in force.
bool HasInt8DotProducts();

// Whether the level in force is kAmx. On Linux a process may use tiles once it has asked for them,
// which the first call does.
bool HasInt8Tiles();

// For tests: from now on every kernel of this process uses at most `level`, until the next call.
// From one thread, while no search runs. The GEMM library's use what is in force at its first call,
// ever after. FailedPrecondition when the machine lacks it.
absl::Status ForceIsaLevelForTest(IsaLevel level);

}  // namespace tiny_knn
