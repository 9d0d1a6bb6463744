// Kernels of checks_test.cc: each with a fault, and next to it without.
#pragma once

#include <cstdint>

#include "cuda_runtime_api.h"

namespace tiny_knn::emulation {

enum class Faulty {
  kReverseWithoutBarrier,  // shared memory read before a barrier
  kReverse,
  kNeighbourWithoutSyncWarp,  // the same within a warp
  kNeighbour,
  kOnePastTheEnd,  // of the output, by the last thread
  kOnePastSharedArray,
  kNegativeLocalIndex,  // of an array in local memory
  kMisaligned,
  kReadsUninitialisedShared,
  kReadsUninitialisedGlobal,  // out[1] of an array that nobody filled
  kReadsUninitialisedLocal,
  kBarrierInABranch,       // half of the threads
  kReturnsBeforeABarrier,  // one thread
  kShuffleInABranch,       // a full mask, half of the lanes
  kReturnsBeforeAShuffle,
  kMaskWithoutCaller,
  kShuffleFromOutsideTheMask,
  kShuffle,
  kBlocksShareAWord,  // all blocks write it
  kBlocksReadWhatOneWrites,
  kBlocksAddAtomically,
  kThreadsWriteOneSharedWord,  // different values at once
  kThreadsWriteTheSame,        // the same value at once
  kSharedAtomicsAndPlainRead,  // a plain read among atomic additions
  kSharedHistogram,
  kTrap,
  kAssert,
  kEndless,
  kHostPointer,  // `out` is dereferenced, whatever it is
};

// One launch of `blocks` blocks of 64 threads. out: device memory, [blocks * 64] unless the fault
// says otherwise; index: where the fault is to be, for those that go astray.
cudaError_t LaunchFaulty(Faulty what, uint32_t* out, int index, int blocks, cudaStream_t stream);

constexpr int kFaultyThreads = 64;

// out[i] = in[i] + 1, [n].
cudaError_t AddOne(const uint32_t* in, uint32_t* out, int n, cudaStream_t stream);

}  // namespace tiny_knn::emulation
