#include <cuda_fp16.h>

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/search/certain_rounding.h"
#include "gpu/prepare_kernels.h"
#include "gpu/row_bounds.h"

namespace tiny_knn {
namespace {

constexpr int kThreads = 256;
constexpr int kWarpThreads = 32;
constexpr int kRowsPerBlock = kThreads / kWarpThreads;
constexpr unsigned kWholeWarp = 0xFFFFFFFFu;

__device__ bool IsInteger(DType dtype) {
  return dtype != DType::kFloat16 && dtype != DType::kBFloat16 && dtype != DType::kFloat32 &&
         dtype != DType::kFloat64;
}

__device__ int64_t LoadInteger(const void* source, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kBool:
      return static_cast<const uint8_t*>(source)[i] != 0 ? 1 : 0;
    case DType::kInt8:
      return static_cast<const int8_t*>(source)[i];
    case DType::kUInt8:
      return static_cast<const uint8_t*>(source)[i];
    case DType::kInt16:
      return static_cast<const int16_t*>(source)[i];
    case DType::kInt32:
      return static_cast<const int32_t*>(source)[i];
    default:
      return static_cast<const int64_t*>(source)[i];
  }
}

__device__ float BFloat16Value(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

__device__ double LoadFloat(const void* source, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kFloat16:
      return static_cast<double>(__half2float(static_cast<const __half*>(source)[i]));
    case DType::kBFloat16:
      return static_cast<double>(BFloat16Value(static_cast<const uint16_t*>(source)[i]));
    case DType::kFloat32:
      return static_cast<double>(static_cast<const float*>(source)[i]);
    default:
      return static_cast<const double*>(source)[i];
  }
}

// The nearest bfloat16, ties to even, of a float whose last bit is set if it stands for more bits
// (rounding to odd).
__device__ uint16_t BFloat16OfOdd(uint32_t bits) {
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

__device__ uint16_t ToBFloat16(double value) {
  if (value != value) return 0x7FC0;
  const float truncated = __double2float_rz(value);
  const uint32_t sticky = static_cast<double>(truncated) != value ? 1 : 0;
  return BFloat16OfOdd(std::bit_cast<uint32_t>(truncated) | sticky);
}

__device__ uint16_t ToBFloat16(int64_t value) {
  // Magnitudes to 2^63 need the unsigned type.
  const uint64_t magnitude =
      value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  const float truncated = __ull2float_rz(magnitude);
  const uint32_t sticky = __float2ull_rz(truncated) != magnitude ? 1 : 0;
  const uint16_t rounded = BFloat16OfOdd(std::bit_cast<uint32_t>(truncated) | sticky);
  return static_cast<uint16_t>(value < 0 ? rounded | 0x8000 : rounded);
}

// The bounds of integer compute dtypes.
__device__ bool Holds(DType dtype, int64_t value) {
  switch (dtype) {
    case DType::kInt8:
      return value >= -128 && value <= 127;
    case DType::kUInt8:
      return value >= 0 && value <= 255;
    case DType::kInt16:
      return value >= -32768 && value <= 32767;
    case DType::kInt32:
      return value >= -2147483648LL && value <= 2147483647LL;
    default:
      return true;
  }
}

// An element in the compute dtype; its value as the working type has it. `bits` are those of a
// 16-bit compute dtype.
struct Converted {
  float value = 0;
  uint16_t bits = 0;
};

template <typename V>
__device__ Converted Convert(V source, DType compute_dtype) {
  switch (compute_dtype) {
    case DType::kFloat16: {
      // Integers that double rounds are far beyond the greatest float16.
      const __half half = __double2half(static_cast<double>(source));
      return {__half2float(half), __half_as_ushort(half)};
    }
    case DType::kBFloat16: {
      const uint16_t bits = ToBFloat16(source);
      return {BFloat16Value(bits), bits};
    }
    default:
      return {static_cast<float>(source), 0};
  }
}

__device__ bool IsFiniteValue(double value) { return value - value == 0; }

struct RowCounts {
  int infs_made = 0;
  int out_of_range = 0;
};

__device__ Converted LoadElement(const PrepareRowsArgs& args, int64_t i, RowCounts& counts) {
  Converted element;
  if (IsInteger(args.source_dtype)) {
    const int64_t value = LoadInteger(args.source, args.source_dtype, i);
    if (!Holds(args.compute_dtype, value)) ++counts.out_of_range;
    element = Convert(value, args.compute_dtype);
    if (!IsFiniteValue(static_cast<double>(element.value))) ++counts.infs_made;
  } else {
    const double value = LoadFloat(args.source, args.source_dtype, i);
    element = Convert(value, args.compute_dtype);
    if (IsFiniteValue(value) && !IsFiniteValue(static_cast<double>(element.value))) {
      ++counts.infs_made;
    }
  }
  return element;
}

__device__ void StoreElement(const PrepareRowsArgs& args, int64_t i, const Converted& element) {
  switch (args.row_type) {
    case RowType::kFloat32:
      static_cast<float*>(args.rows)[i] = element.value;
      return;
    case RowType::kFloat16:
      // Of uint8, too: whole numbers to 2,048 are float16.
      static_cast<__half*>(args.rows)[i] = __float2half_rn(element.value);
      return;
    case RowType::kBFloat16:
      static_cast<uint16_t*>(args.rows)[i] = element.bits;
      return;
    case RowType::kInt8:
      static_cast<int8_t*>(args.rows)[i] = static_cast<int8_t>(element.value);
      return;
  }
}

template <typename V>
__device__ V SumOverWarp(V value) {
  for (int distance = kWarpThreads / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, distance);
  }
  return value;
}

// One warp a row.
__global__ void __launch_bounds__(kThreads) PrepareRowsKernel(PrepareRowsArgs args) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock +
                      static_cast<int>(threadIdx.x) / kWarpThreads;
  if (row >= args.num_rows) return;  // the whole warp
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  RowCounts counts;
  RowSums sums;
  for (int j = lane; j < args.stride; j += kWarpThreads) {
    Converted element;
    if (j < args.dim) element = LoadElement(args, row * args.dim + j, counts);
    StoreElement(args, row * args.stride + j, element);
    const double value = static_cast<double>(element.value);
    sums.squared_norm += value * value;
    if (args.rounded_rows == nullptr) continue;
    const float rounded = RoundToTf32(element.value);
    args.rounded_rows[row * args.stride + j] = rounded;
    const double residual = value - static_cast<double>(rounded);
    sums.squared_residual += residual * residual;
  }
  sums.squared_norm = SumOverWarp(sums.squared_norm);
  sums.squared_residual = SumOverWarp(sums.squared_residual);
  counts.infs_made = SumOverWarp(counts.infs_made);
  counts.out_of_range = SumOverWarp(counts.out_of_range);
  if (lane != 0) return;
  if (args.sums != nullptr) args.sums[row] = sums;
  if (args.tally != nullptr) {
    using Count = unsigned long long;
    static_assert(sizeof(Count) == sizeof(args.tally->infs_made));
    const auto add = [](uint64_t* total, int count) {
      if (count > 0) atomicAdd(reinterpret_cast<Count*>(total), static_cast<Count>(count));
    };
    add(&args.tally->infs_made, counts.infs_made);
    add(&args.tally->out_of_range, counts.out_of_range);
    add(&args.tally->nonfinite_rows, IsFiniteValue(sums.squared_norm) ? 0 : 1);
  }
  if (args.screens == nullptr) return;
  const double norm = sqrt(SquaredNormUpperBound(sums.squared_norm, args.dim)) * kRootSlack;
  const double residual = sqrt(SquaredNormUpperBound(sums.squared_residual, args.dim)) * kRootSlack;
  const RowBounds bounds = BoundsOfRow(args.is_cosine, norm, residual, sqrt(sums.squared_norm));
  args.screens[row] = ScreenOfDoc(bounds, args.is_l2, sums.squared_norm, args.dim);
  args.tails[row] = TailOfDoc(bounds, args.is_l2, sums.squared_norm, norm, args.dim);
}

}  // namespace

cudaError_t PrepareRows(const PrepareRowsArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return cudaSuccess;
  const int64_t blocks = (args.num_rows + kRowsPerBlock - 1) / kRowsPerBlock;
  if (blocks > std::numeric_limits<int32_t>::max()) return cudaErrorInvalidValue;
  PrepareRowsKernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace tiny_knn
