#include <cassert>

#include "gpu/emulation/checks_test_kernels.h"

// The faults are meant, so neither compiler is to warn of them.
#pragma nv_diag_suppress 549

namespace tiny_knn::emulation {
namespace {

constexpr uint32_t kAll = 0xffffffff;

template <bool kBarrier>
__global__ void Reverse(uint32_t* out) {
  __shared__ uint32_t values[kFaultyThreads];
  values[threadIdx.x] = 0;
  __syncthreads();
  values[threadIdx.x] = threadIdx.x;
  if (kBarrier) __syncthreads();
  out[threadIdx.x] = values[kFaultyThreads - 1 - threadIdx.x];
}

template <bool kBarrier>
__global__ void Neighbour(uint32_t* out) {
  __shared__ uint32_t values[kFaultyThreads];
  values[threadIdx.x] = 0;
  __syncwarp();
  values[threadIdx.x] = threadIdx.x;
  if (kBarrier) __syncwarp();
  out[threadIdx.x] = values[threadIdx.x ^ 1];
}

__global__ void OnePastTheEnd(uint32_t* out, int index) {
  out[threadIdx.x == kFaultyThreads - 1 ? index : static_cast<int>(threadIdx.x)] = 1;
}

__global__ void OnePastSharedArray(uint32_t* out, int index) {
  __shared__ uint32_t values[kFaultyThreads];
  values[threadIdx.x == 0 ? index : static_cast<int>(threadIdx.x)] = 1;
  __syncthreads();
  out[threadIdx.x] = values[1 + threadIdx.x % 32];
}

__global__ void LocalArray(uint32_t* out, int index) {
  uint32_t values[8];
  for (int i = 0; i < 8; ++i) values[i] = threadIdx.x + static_cast<uint32_t>(i * index);
  values[(index + static_cast<int>(threadIdx.x)) % 8] = 7;
  // The index is as given in one thread only.
  out[threadIdx.x] = values[threadIdx.x == 3 ? index : static_cast<int>(threadIdx.x % 8)];
}

__global__ void UninitialisedLocal(uint32_t* out, int index) {
  uint32_t values[8];
  values[index & 7] = 1;
  out[threadIdx.x] = values[threadIdx.x & 7];
}

__global__ void Misaligned(uint32_t* out, int index) {
  auto* bytes = reinterpret_cast<unsigned char*>(out);
  if (threadIdx.x == 5) *reinterpret_cast<uint32_t*>(bytes + index) = 1;
}

__global__ void UninitialisedShared(uint32_t* out) {
  __shared__ uint32_t values[kFaultyThreads];
  if (threadIdx.x != 5) values[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}

__global__ void UninitialisedGlobal(uint32_t* out) {
  if (threadIdx.x == 0) out[0] = out[1];
}

__global__ void BarrierInABranch(uint32_t* out) {
  if (threadIdx.x < 32) __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void ReturnsBeforeABarrier(uint32_t* out) {
  if (threadIdx.x == 40) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void ShuffleInABranch(uint32_t* out) {
  uint32_t value = threadIdx.x;
  if (threadIdx.x % 2 == 0) value = __shfl_xor_sync(kAll, value, 2);
  __syncthreads();
  out[threadIdx.x] = value;
}

__global__ void ReturnsBeforeAShuffle(uint32_t* out) {
  if (threadIdx.x == 3) return;
  out[threadIdx.x] = __shfl_xor_sync(kAll, threadIdx.x, 1);
}

__global__ void MaskWithoutCaller(uint32_t* out) {
  out[threadIdx.x] = __ballot_sync(0xffff, out != nullptr);
}

__global__ void ShuffleFromOutsideTheMask(uint32_t* out) {
  uint32_t value = threadIdx.x;
  if (threadIdx.x % 32 < 16) value = __shfl_sync(0xffff, value, 20);
  out[threadIdx.x] = value;
}

__global__ void Shuffle(uint32_t* out) {
  uint32_t value = threadIdx.x;
  if (threadIdx.x % 32 < 16) value = __shfl_sync(0xffff, value, 10);
  out[threadIdx.x] = value;
}

__global__ void BlocksShareAWord(uint32_t* out) {
  if (threadIdx.x == 0) out[0] = blockIdx.x;
}

__global__ void BlocksReadWhatOneWrites(uint32_t* out) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 1) out[0] = 1;
  out[1 + blockIdx.x] = out[0];
}

__global__ void BlocksAddAtomically(uint32_t* out) {
  if (threadIdx.x == 0) atomicAdd(out, 1);
}

template <bool kSame>
__global__ void ThreadsWriteOneSharedWord(uint32_t* out) {
  __shared__ uint32_t word;
  if (threadIdx.x < 32) word = kSame ? 5 : threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = word;
}

template <bool kBarrier>
__global__ void SharedHistogram(uint32_t* out) {
  __shared__ uint32_t bins[4];
  if (threadIdx.x < 4) bins[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&bins[threadIdx.x % 4], 1);
  if (kBarrier) __syncthreads();
  out[threadIdx.x] = bins[threadIdx.x % 4];
}

__global__ void TrapKernel(uint32_t* out) {
  if (out != nullptr) __trap();
}

__global__ void AssertKernel(int index) { assert(index == 0); }

__global__ void Endless(volatile uint32_t* out) {
  while (out[0] == 0) {
  }
}

__global__ void Dereference(uint32_t* out) { *out = 1; }

__global__ void AddOneKernel(const uint32_t* in, uint32_t* out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = in[i] + 1;
}

}  // namespace

cudaError_t LaunchFaulty(Faulty what, uint32_t* out, int index, int blocks, cudaStream_t stream) {
  const auto launch = [&](auto* kernel, auto... arguments) {
    kernel<<<blocks, kFaultyThreads, 0, stream>>>(arguments...);
  };
  switch (what) {
    case Faulty::kReverseWithoutBarrier:
      launch(&Reverse<false>, out);
      break;
    case Faulty::kReverse:
      launch(&Reverse<true>, out);
      break;
    case Faulty::kNeighbourWithoutSyncWarp:
      launch(&Neighbour<false>, out);
      break;
    case Faulty::kNeighbour:
      launch(&Neighbour<true>, out);
      break;
    case Faulty::kOnePastTheEnd:
      launch(&OnePastTheEnd, out, index);
      break;
    case Faulty::kOnePastSharedArray:
      launch(&OnePastSharedArray, out, index);
      break;
    case Faulty::kNegativeLocalIndex:
      launch(&LocalArray, out, index);
      break;
    case Faulty::kMisaligned:
      launch(&Misaligned, out, index);
      break;
    case Faulty::kReadsUninitialisedShared:
      launch(&UninitialisedShared, out);
      break;
    case Faulty::kReadsUninitialisedGlobal:
      launch(&UninitialisedGlobal, out);
      break;
    case Faulty::kReadsUninitialisedLocal:
      launch(&UninitialisedLocal, out, index);
      break;
    case Faulty::kBarrierInABranch:
      launch(&BarrierInABranch, out);
      break;
    case Faulty::kReturnsBeforeABarrier:
      launch(&ReturnsBeforeABarrier, out);
      break;
    case Faulty::kShuffleInABranch:
      launch(&ShuffleInABranch, out);
      break;
    case Faulty::kReturnsBeforeAShuffle:
      launch(&ReturnsBeforeAShuffle, out);
      break;
    case Faulty::kMaskWithoutCaller:
      launch(&MaskWithoutCaller, out);
      break;
    case Faulty::kShuffleFromOutsideTheMask:
      launch(&ShuffleFromOutsideTheMask, out);
      break;
    case Faulty::kShuffle:
      launch(&Shuffle, out);
      break;
    case Faulty::kBlocksShareAWord:
      launch(&BlocksShareAWord, out);
      break;
    case Faulty::kBlocksReadWhatOneWrites:
      launch(&BlocksReadWhatOneWrites, out);
      break;
    case Faulty::kBlocksAddAtomically:
      launch(&BlocksAddAtomically, out);
      break;
    case Faulty::kThreadsWriteOneSharedWord:
      launch(&ThreadsWriteOneSharedWord<false>, out);
      break;
    case Faulty::kThreadsWriteTheSame:
      launch(&ThreadsWriteOneSharedWord<true>, out);
      break;
    case Faulty::kSharedAtomicsAndPlainRead:
      launch(&SharedHistogram<false>, out);
      break;
    case Faulty::kSharedHistogram:
      launch(&SharedHistogram<true>, out);
      break;
    case Faulty::kTrap:
      launch(&TrapKernel, out);
      break;
    case Faulty::kAssert:
      launch(&AssertKernel, index);
      break;
    case Faulty::kEndless:
      launch(&Endless, out);
      break;
    case Faulty::kHostPointer:
      launch(&Dereference, out);
      break;
  }
  return cudaGetLastError();
}

cudaError_t AddOne(const uint32_t* in, uint32_t* out, int n, cudaStream_t stream) {
  AddOneKernel<<<(n + kFaultyThreads - 1) / kFaultyThreads, kFaultyThreads, 0, stream>>>(in, out,
                                                                                         n);
  return cudaGetLastError();
}

}  // namespace tiny_knn::emulation
