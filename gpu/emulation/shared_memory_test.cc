// Races and uninitialised reads in shared memory, against a model that remembers every access.
#include "gpu/emulation/shared_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "gpu/emulation/random.h"

namespace tiny_knn::emulation {
namespace {

constexpr uint32_t kThreads = 80;  // two warps and a half
constexpr uint32_t kBegin = 16;
constexpr uint32_t kBytes = 64;

// What the shadow memory stands for, at length: for every byte its last writer and all its readers.
class Model {
 public:
  void BeginBlock() {
    for (Byte& byte : bytes_) byte = {};
    BlockBarrier();
  }
  void BlockBarrier() { ++epoch_; }
  void WarpBarrier(uint32_t warp) { ++meetings_[warp]; }

  std::optional<ViolationKind> Read(uint32_t thread, uint64_t address, uint32_t bytes) {
    for (uint64_t i = address; i < address + bytes; ++i) {
      Byte& byte = bytes_[i];
      if (!byte.writer) return ViolationKind::kUninitialised;
      if (!IsOrdered(*byte.writer, thread)) return ViolationKind::kSharedRace;
      byte.readers.push_back(By(thread));
    }
    return std::nullopt;
  }

  std::optional<ViolationKind> Write(uint32_t thread, uint64_t address, uint32_t bytes,
                                     const std::byte* value, uint64_t instruction) {
    for (uint64_t i = address; i < address + bytes; ++i) {
      Byte& byte = bytes_[i];
      const bool writes_the_same = byte.instruction == instruction && byte.writer &&
                                   byte.writer->thread / 32 == thread / 32 &&
                                   byte.value == value[i - address];
      if (byte.writer && !writes_the_same && !IsOrdered(*byte.writer, thread)) {
        return ViolationKind::kSharedRace;
      }
      for (const Access& reader : byte.readers) {
        if (!IsOrdered(reader, thread)) return ViolationKind::kSharedRace;
      }
      byte.writer = By(thread);
      byte.value = value[i - address];
      byte.instruction = instruction;
    }
    return std::nullopt;
  }

 private:
  struct Access {
    uint32_t thread = 0;
    uint32_t epoch = 0;
    uint32_t meetings = 0;  // of its warp, before it
  };
  struct Byte {
    std::optional<Access> writer;
    std::vector<Access> readers;
    std::byte value{};
    uint64_t instruction = 0;
  };
  Access By(uint32_t thread) const { return {thread, epoch_, meetings_[thread / 32]}; }
  bool IsOrdered(const Access& before, uint32_t thread) const {
    if (before.epoch != epoch_ || before.thread == thread) return true;
    return before.thread / 32 == thread / 32 && before.meetings < meetings_[thread / 32];
  }

  std::vector<Byte> bytes_ = std::vector<Byte>(kBegin + kBytes);
  uint32_t epoch_ = 0;
  std::vector<uint32_t> meetings_ = std::vector<uint32_t>(3);
};

class SharedMemoryTest : public testing::Test {
 protected:
  SharedMemoryTest() { memory_.SetLayout({{kBegin, kBytes}}, kBegin + kBytes); }

  void BeginBlock() {
    memory_.BeginBlock(kThreads);
    model_.BeginBlock();
  }

  static uint32_t LanesOf(uint32_t warp) { return warp < 2 ? ~0U : 0xffff; }

  // One random access, read or write, by some lanes of a warp. What both make of it.
  struct Verdicts {
    std::optional<ViolationKind> found, expected;
  };
  Verdicts AccessSomething(Random& random) {
    const auto warp = static_cast<uint32_t>(random.Below(3));
    const uint32_t bytes = 1U << random.Below(5);
    uint32_t lanes = LanesOf(warp);
    for (size_t i = random.Below(4); i > 0; --i) lanes &= static_cast<uint32_t>(random());
    if (lanes == 0) lanes = 1;
    // Side by side, anywhere, or all at one place.
    const size_t pattern = random.Below(3);
    const uint64_t place = random.Below(kBytes / bytes);
    uint64_t addresses[32];
    std::byte values[32 * 16];
    for (uint32_t lane = 0; lane < 32; ++lane) {
      uint64_t at = place;
      if (pattern == 0) at = (place + lane) % (kBytes / bytes);
      if (pattern == 1) at = random.Below(kBytes / bytes);
      addresses[lane] = kBegin + at * bytes;
      std::memset(values + lane * bytes, random.Below(8) == 0 ? 1 : 0, bytes);
    }
    const bool writes = random.Below(3) == 0;
    ++instruction_;
    Verdicts verdicts;
    try {
      if (writes) {
        memory_.Write(warp, lanes, addresses, bytes, Strength::kWeak, values);
      } else {
        memory_.Read(warp, lanes, addresses, bytes, Strength::kWeak);
      }
    } catch (const Fault& fault) {
      verdicts.found = fault.kind;
    }
    for (uint32_t lane = 0; lane < 32 && !verdicts.expected; ++lane) {
      if (((lanes >> lane) & 1) == 0) continue;
      const uint32_t thread = warp * 32 + lane;
      verdicts.expected =
          writes ? model_.Write(thread, addresses[lane], bytes, values + lane * bytes, instruction_)
                 : model_.Read(thread, addresses[lane], bytes);
    }
    return verdicts;
  }

  void Synchronise(Random& random) {
    if (random.Below(2) == 0) {
      memory_.order().BlockBarrier();
      model_.BlockBarrier();
      return;
    }
    const auto warp = static_cast<uint32_t>(random.Below(3));
    memory_.order().WarpBarrier(warp, LanesOf(warp));
    model_.WarpBarrier(warp);
  }

  SharedMemory memory_;
  Model model_;
  uint64_t instruction_ = 0;
};

TEST_F(SharedMemoryTest, FindsWhatAModelFindsThatForgetsNothing) {
  int races = 0, uninitialised = 0, clean = 0;
  for (uint64_t seed = 0; seed < 20000; ++seed) {
    Random random(seed);
    BeginBlock();
    // Mostly all is written first, so that there is more to see.
    if (random.Below(4) != 0) {
      uint64_t addresses[32];
      std::byte values[32 * 2] = {};
      for (uint64_t lane = 0; lane < 32; ++lane) addresses[lane] = kBegin + 2 * lane;
      memory_.Write(0, ~0U, addresses, 2, Strength::kWeak, values);
      ++instruction_;
      for (uint32_t lane = 0; lane < 32; ++lane) {
        model_.Write(lane, addresses[lane], 2, values, instruction_);
      }
    }
    Verdicts verdicts;
    const size_t steps = 1 + random.Below(12);
    for (size_t step = 0; step < steps && !verdicts.found && !verdicts.expected; ++step) {
      if (random.Below(3) != 0) Synchronise(random);
      verdicts = AccessSomething(random);
    }
    ASSERT_EQ(verdicts.found.has_value(), verdicts.expected.has_value()) << "seed " << seed;
    ASSERT_EQ(verdicts.found, verdicts.expected) << "seed " << seed;
    races += verdicts.found == ViolationKind::kSharedRace ? 1 : 0;
    uninitialised += verdicts.found == ViolationKind::kUninitialised ? 1 : 0;
    clean += verdicts.found ? 0 : 1;
  }
  EXPECT_GT(races, 1000);
  EXPECT_GT(uninitialised, 1000);
  EXPECT_GT(clean, 100);
}

TEST_F(SharedMemoryTest, StrongAccessesDoNotRaceButWithWeakOnes) {
  BeginBlock();
  const std::byte value{};
  const uint64_t here[32] = {kBegin, kBegin};
  constexpr uint32_t kFirst = 1, kSecond = 2;  // lanes
  memory_.Write(0, kFirst, here, 1, Strength::kStrong, &value);
  EXPECT_NO_THROW(memory_.Read(0, kSecond, here, 1, Strength::kStrong));
  EXPECT_THROW(memory_.Read(1, kFirst, here, 1, Strength::kWeak), Fault);
  memory_.order().BlockBarrier();
  memory_.Read(0, kFirst, here, 1, Strength::kStrong);
  memory_.Read(0, kSecond, here, 1, Strength::kStrong);
  EXPECT_NO_THROW(memory_.Update(70, kBegin, 1));
  memory_.order().BlockBarrier();
  // Of two readers one is weak: nobody else may write.
  memory_.Read(0, kFirst, here, 1, Strength::kStrong);
  memory_.Read(0, kSecond, here, 1, Strength::kWeak);
  EXPECT_THROW(memory_.Update(70, kBegin, 1), Fault);
}

TEST_F(SharedMemoryTest, NoAccessReachesBeyondAVariable) {
  BeginBlock();
  std::byte values[32 * 4] = {};
  for (const uint64_t address :
       {uint64_t{kBegin} - 4, uint64_t{kBegin} + kBytes, ~uint64_t{0} - 3, uint64_t{kBegin} + 2}) {
    uint64_t addresses[32];
    for (uint64_t lane = 0; lane < 32; ++lane) addresses[lane] = kBegin + 4 * (lane % 16);
    addresses[31] = address;
    const auto expected =
        address == kBegin + 2 ? ViolationKind::kMisaligned : ViolationKind::kOutOfBounds;
    try {
      memory_.Write(0, ~0U, addresses, 4, Strength::kWeak, values);
      ADD_FAILURE() << "nothing is found at " << address;
    } catch (const Fault& fault) {
      EXPECT_EQ(fault.kind, expected) << address;
      EXPECT_EQ(fault.lane, 31);
    }
  }
}

TEST_F(SharedMemoryTest, AWarpThatMeetsTooOftenForItsClocksIsReported) {
  BeginBlock();
  const auto meet = [&] {
    for (uint32_t i = 0; i < BlockOrder::kClocks; ++i) memory_.order().WarpBarrier(2, 0xffff);
  };
  EXPECT_THROW(meet(), Fault);
  // The next block begins anew.
  BeginBlock();
  EXPECT_NO_THROW(memory_.order().WarpBarrier(2, 0xffff));
}

}  // namespace
}  // namespace tiny_knn::emulation
