// Sums of products as badly rounded as a GPU may round them.
//
// NVIDIA promises no more than the types. The models here are at least as bad as what has been
// measured: tensor cores align the terms of a block to the greatest exponent and cut off what does
// not fit, then cut off the sum (Fasi et al., 2021; Khattak and Mikaitis, 2025: blocks of 4 and no
// extra bits on Volta, 8 and one on Ampere, 16 and two or more on Hopper). In what order the terms
// come, and in how many partial sums, is the library's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tiny_knn::emulation {

enum class GemmRounding : uint8_t {
  kTensorCore,  // blocks of products, cut off; the inputs are exact
  kFloat32,     // one rounding to nearest for each term, results below 2^-126 flushed to zero
};

// How one product of matrices is summed up.
struct GemmModel {
  GemmRounding rounding = GemmRounding::kTensorCore;
  int block = 4;                // terms that a tensor core adds at once
  int extra_bits = 0;           // kept below the 24 of a float32 while a block is added
  int parts = 1;                // partial sums, added at the end
  std::vector<uint32_t> order;  // [k]: a permutation of the terms
};

// The model for a sum of `k` terms. seed 0: blocks of four, no extra bits, one sum.
GemmModel MakeGemmModel(GemmRounding rounding, size_t k, uint64_t seed);

// The sum of a[i] * b[i], whose factors have at most 24 bits (kTensorCore: 11).
float RoundedDot(const GemmModel& model, std::span<const float> a, std::span<const float> b);

// What a tensor core makes of a float32 operand: TF32, the lower bits cut off.
float CutToTf32(float value);

}  // namespace tiny_knn::emulation
