// Every check of kernels fires on a kernel with the fault, naming the place, and not on the same
// kernel without it.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gpu/emulation/checks_test_kernels.h"
#include "gpu/emulation/emulation.h"
#include "gpu/emulation/test_device_array.h"
#include "gpu/emulation/violation.h"
#include "gtest/gtest.h"

namespace tiny_knn::emulation {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// The violations of one launch whose output has `words` words, filled with zeros where asked.
std::vector<Violation> Violations(Faulty what, int index = 0, int blocks = 1, int words = 64,
                                  bool filled = true, uint64_t seed = 0) {
  EmulatedGpu gpu({.seed = seed, .max_operations = 1'000'000});
  ViolationCollector collector;
  const DeviceArray<uint32_t> out(static_cast<size_t>(words));
  if (filled) {
    EXPECT_EQ(cudaMemset(out.data(), 0, static_cast<size_t>(words) * 4), cudaSuccess);
  }
  // With a seed the launch may run at once, and the call tell of its end.
  const cudaError_t launched = LaunchFaulty(what, out.data(), index, blocks, nullptr);
  EXPECT_TRUE(launched == cudaSuccess || seed != 0);
  const cudaError_t error = cudaDeviceSynchronize();
  std::vector<Violation> violations = collector.Take();
  EXPECT_EQ(error == cudaSuccess, violations.empty());
  return violations;
}

// The message of the only violation, which has to be of this kind.
std::string Message(const std::vector<Violation>& violations, ViolationKind kind) {
  if (violations.size() != 1) return fmt::format("{} violations", violations.size());
  EXPECT_EQ(ViolationName(violations[0].kind), ViolationName(kind)) << violations[0].message;
  return violations[0].message;
}

TEST(Checks, AMissingBarrierIsARace) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    const std::string message =
        Message(Violations(Faulty::kReverseWithoutBarrier, 0, 1, 64, true, seed),
                ViolationKind::kSharedRace);
    EXPECT_THAT(message, AllOf(HasSubstr("Reverse<false>"), HasSubstr(".shared.u32"),
                               HasSubstr("block (0,0,0)"),
                               HasSubstr("(gpu/emulation/checks_test_kernels.cu:"),
                               HasSubstr("with no barrier between")));
  }
  EXPECT_TRUE(Violations(Faulty::kReverse).empty());
}

TEST(Checks, AMissingSyncWarpIsARaceWithinTheWarp) {
  EXPECT_THAT(Message(Violations(Faulty::kNeighbourWithoutSyncWarp), ViolationKind::kSharedRace),
              HasSubstr("was written by thread"));
  EXPECT_TRUE(Violations(Faulty::kNeighbour).empty());
}

TEST(Checks, AnIndexPastTheEndNamesThreadInstructionAndAddress) {
  const std::string message =
      Message(Violations(Faulty::kOnePastTheEnd, 64), ViolationKind::kOutOfBounds);
  EXPECT_THAT(message,
              AllOf(HasSubstr("OnePastTheEnd"), HasSubstr("thread (63,0,0)"),
                    HasSubstr("st.global.u32"), HasSubstr("PTX line"), HasSubstr("address 0x"),
                    HasSubstr(", 0 bytes behind the end of the 256 bytes from 0x")));
  EXPECT_TRUE(Violations(Faulty::kOnePastTheEnd, 63).empty());
}

TEST(Checks, SharedAndLocalArraysHaveBounds) {
  EXPECT_THAT(Message(Violations(Faulty::kOnePastSharedArray, 64), ViolationKind::kOutOfBounds),
              HasSubstr("thread (0,0,0)"));
  EXPECT_THAT(Message(Violations(Faulty::kNegativeLocalIndex, 8), ViolationKind::kOutOfBounds),
              AllOf(HasSubstr("thread (3,0,0)"), HasSubstr("local memory")));
  EXPECT_TRUE(Violations(Faulty::kNegativeLocalIndex, 3).empty());
}

TEST(Checks, AddressesAreAligned) {
  EXPECT_THAT(Message(Violations(Faulty::kMisaligned, 6), ViolationKind::kMisaligned),
              AllOf(HasSubstr("thread (5,0,0)"), HasSubstr("not aligned to 4")));
  EXPECT_TRUE(Violations(Faulty::kMisaligned, 8).empty());
}

TEST(Checks, UninitialisedMemoryIsNotRead) {
  EXPECT_THAT(Message(Violations(Faulty::kReadsUninitialisedShared), ViolationKind::kUninitialised),
              AllOf(HasSubstr("thread (5,0,0)"), HasSubstr("never written")));
  EXPECT_THAT(Message(Violations(Faulty::kReadsUninitialisedGlobal, 0, 1, 64, false),
                      ViolationKind::kUninitialised),
              AllOf(HasSubstr("thread (0,0,0)"), HasSubstr("never written")));
  EXPECT_TRUE(Violations(Faulty::kReadsUninitialisedGlobal).empty());
  EXPECT_THAT(
      Message(Violations(Faulty::kReadsUninitialisedLocal, 1), ViolationKind::kUninitialised),
      HasSubstr("local memory"));
}

TEST(Checks, ABarrierThatThreadsNeverReachNamesThem) {
  EXPECT_THAT(Message(Violations(Faulty::kBarrierInABranch), ViolationKind::kNeverReached),
              AllOf(HasSubstr("bar.sync"), HasSubstr("thread (0,0,0)"),
                    HasSubstr("waits for 32 threads"), HasSubstr("thread 32 has returned")));
  EXPECT_THAT(
      Message(Violations(Faulty::kReturnsBeforeABarrier), ViolationKind::kNeverReached),
      AllOf(HasSubstr("waits for a thread that never comes"), HasSubstr("thread 40 has returned")));
}

TEST(Checks, AWarpCollectiveThatLanesNeverReachNamesThem) {
  EXPECT_THAT(Message(Violations(Faulty::kShuffleInABranch), ViolationKind::kNeverReached),
              AllOf(HasSubstr("shfl.sync.bfly"), HasSubstr("waits for 16 threads"),
                    HasSubstr("thread 1 waits at PTX line"), HasSubstr("bar.sync")));
  EXPECT_THAT(Message(Violations(Faulty::kReturnsBeforeAShuffle), ViolationKind::kNeverReached),
              AllOf(HasSubstr("that never comes"), HasSubstr("thread 3 has returned")));
  EXPECT_THAT(Message(Violations(Faulty::kMaskWithoutCaller), ViolationKind::kWrongMask),
              HasSubstr("leaves out lane 16 itself"));
  EXPECT_THAT(Message(Violations(Faulty::kShuffleFromOutsideTheMask), ViolationKind::kWrongMask),
              HasSubstr("reads lane 20, which takes no part"));
  EXPECT_TRUE(Violations(Faulty::kShuffle).empty());
}

TEST(Checks, BlocksOfALaunchDoNotShareABytePlainly) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    EXPECT_THAT(
        Message(Violations(Faulty::kBlocksShareAWord, 0, 4, 64, true, seed),
                ViolationKind::kBlockRace),
        AllOf(HasSubstr("written here and written by another block"), HasSubstr(": block (")));
    EXPECT_THAT(Message(Violations(Faulty::kBlocksReadWhatOneWrites, 0, 4, 64, true, seed),
                        ViolationKind::kBlockRace),
                HasSubstr("of this launch, not both atomically"));
  }
  EXPECT_TRUE(Violations(Faulty::kBlocksAddAtomically, 0, 4).empty());
  EXPECT_TRUE(Violations(Faulty::kBlocksShareAWord, 0, 1).empty());
}

TEST(Checks, ThreadsOfAWarpWriteOneWordAtOnceOnlyIfItIsTheSame) {
  EXPECT_THAT(Message(Violations(Faulty::kThreadsWriteOneSharedWord), ViolationKind::kSharedRace),
              HasSubstr("written by thread"));
  EXPECT_TRUE(Violations(Faulty::kThreadsWriteTheSame).empty());
}

TEST(Checks, AtomicAccessesDoNotRaceWithEachOther) {
  EXPECT_TRUE(Violations(Faulty::kSharedHistogram).empty());
  Message(Violations(Faulty::kSharedAtomicsAndPlainRead), ViolationKind::kSharedRace);
}

TEST(Checks, TrapsAssertionsAndEndlessLoopsEndTheLaunch) {
  Message(Violations(Faulty::kTrap), ViolationKind::kTrap);
  EXPECT_THAT(Message(Violations(Faulty::kAssert, 1), ViolationKind::kTrap),
              HasSubstr("checks_test_kernels.cu:"));
  EXPECT_TRUE(Violations(Faulty::kAssert, 0).empty());
  Message(Violations(Faulty::kEndless), ViolationKind::kEndless);
}

TEST(Checks, AKernelDoesNotTouchHostMemory) {
  EmulatedGpu gpu({});
  ViolationCollector collector;
  uint32_t on_host = 0;
  EXPECT_EQ(LaunchFaulty(Faulty::kHostPointer, &on_host, 0, 1, nullptr), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  EXPECT_THAT(Message(collector.Take(), ViolationKind::kOutOfBounds),
              HasSubstr("is no device memory"));
}

// After a violation the device is lost, as a GPU is: every call says so, and no more work is done.
TEST(Checks, AViolationIsStickyUntilTheNextDevice) {
  {
    EmulatedGpu gpu({});
    ViolationCollector collector;
    const DeviceArray<uint32_t> out(64);
    EXPECT_EQ(LaunchFaulty(Faulty::kTrap, out.data(), 0, 1, nullptr), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
    EXPECT_EQ(cudaMemset(out.data(), 0, 4), cudaErrorLaunchFailure);
    EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
    EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
    EXPECT_EQ(collector.Take().size(), 1U);
  }
  EmulatedGpu gpu({});
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_TRUE(Violations(Faulty::kReverse).empty());
}

// The launch is run when somebody waits for it, so the process ends there.
TEST(ChecksDeathTest, WithoutACollectorAViolationEndsTheProcess) {
  EXPECT_DEATH(
      {
        const DeviceArray<uint32_t> out(64);
        LaunchFaulty(Faulty::kTrap, out.data(), 0, 1, nullptr);
        cudaDeviceSynchronize();
      },
      "gpu emulation: trap: .*TrapKernel.*trap");
}

TEST(ChecksDeathTest, HostCodeDoesNotTouchDeviceMemory) {
  const DeviceArray<uint32_t> out(64);
  EXPECT_DEATH(*const_cast<volatile uint32_t*>(out.data()) = 1,
               "host code touches device memory at address 0x");
}

}  // namespace
}  // namespace tiny_knn::emulation
