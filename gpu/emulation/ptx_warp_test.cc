// Moves, branches, memory, atomics and what the lanes of a warp do together, executed from a few
// lines of PTX.
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gpu/emulation/test_ptx_machine.h"
#include "gtest/gtest.h"

namespace tiny_knn::emulation {
namespace {

TEST(PtxWarp, MovesPackAndUnpack) {
  Machine machine;
  EXPECT_EQ(machine.One("mov.b64 {%r1, %r2}, %a; mov.b64 %d, {%r2, %r1};", 0x0123456789abcdef),
            0x89abcdef01234567U);
  EXPECT_EQ(
      machine.One("mov.b64 {%h1, %h2, %h3, %h4}, %a; mov.b32 %r0, {%h4, %h1}; cvt.u64.u32 %d, %r0;",
                  0x0123456789abcdef),
      0xcdef0123U);
  EXPECT_EQ(machine.One("mov.b64 {_, %r2}, %a; cvt.u64.u32 %d, %r2;", 0x0123456789abcdef),
            0x01234567U);
  EXPECT_EQ(machine.One("mov.f32 %f0, 0f3F800000; cvt.f64.f32 %g0, %f0; mov.b64 %d, %g0;", 0),
            D(1));
}

// A register of one name in an inner scope is another one.
TEST(PtxWarp, ScopesHideRegisters) {
  Machine machine;
  EXPECT_EQ(
      machine.One("mov.u32 %r0, 7; { .reg .b32 %r0; mov.u32 %r0, 9; } cvt.u64.u32 %d, %r0;", 0),
      7U);
}

TEST(PtxWarp, LanesThatPartComeTogetherAgain) {
  Machine machine;
  // A loop that each lane leaves after its own number of rounds; then all vote.
  const std::vector<uint64_t> results = machine.Lanes(R"(
    cvt.u32.u64 %r1, %a;
    mov.u32 %r2, 0;
  LOOP:
    setp.ge.u32 %p1, %r2, %r1;
    @%p1 bra DONE;
    add.u32 %r2, %r2, 1;
    bra LOOP;
  DONE:
    activemask.b32 %r3;
    setp.eq.u32 %p2, %r3, -1;
    selp.b32 %r4, 100, 0, %p2;
    add.u32 %r2, %r2, %r4;
    cvt.u64.u32 %d, %r2;)");
  for (uint64_t lane = 0; lane < 32; ++lane) EXPECT_EQ(results[lane], lane + 100);
}

TEST(PtxWarp, IndexedBranchesGoToTheirLabels) {
  Machine machine;
  const std::vector<uint64_t> results = machine.Lanes(R"(
    cvt.u32.u64 %r1, %a;
    and.b32 %r1, %r1, 1;
  TARGETS: .branchtargets EVEN, ODD;
    brx.idx %r1, TARGETS;
  EVEN:
    mov.u64 %d, 10;
    bra END;
  ODD:
    mov.u64 %d, 20;
  END:
    add.u64 %d, %d, 1;)");
  for (uint64_t lane = 0; lane < 32; ++lane) EXPECT_EQ(results[lane], lane % 2 == 0 ? 11U : 21U);
}

TEST(PtxWarp, ShufflesReadOtherLanes) {
  Machine machine;
  const auto shuffle = [&](const std::string& mode, int by, int clamp) {
    return machine.Lanes(fmt::format(
        "cvt.u32.u64 %r1, %a; shfl.sync.{}.b32 %r0|%p0, %r1, {}, {}, -1; cvt.u64.u32 %d, %r0; "
        "selp.b64 %x1, 256, 0, %p0; add.u64 %d, %d, %x1;",
        mode, by, clamp));
  };
  const std::vector<uint64_t> up = shuffle("up", 3, 0);
  const std::vector<uint64_t> down = shuffle("down", 3, 0x1f);
  const std::vector<uint64_t> butterfly = shuffle("bfly", 5, 0x1f);
  // Segments of eight lanes.
  const std::vector<uint64_t> index = shuffle("idx", 2, 0x181f);
  const std::vector<uint64_t> down8 = shuffle("down", 3, 0x181f);
  for (uint64_t lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(up[lane], lane >= 3 ? 256 + lane - 3 : lane);
    EXPECT_EQ(down[lane], lane + 3 < 32 ? 256 + lane + 3 : lane);
    EXPECT_EQ(butterfly[lane], 256 + (lane ^ 5));
    EXPECT_EQ(index[lane], 256 + (lane & ~7ULL) + 2);
    EXPECT_EQ(down8[lane], lane % 8 + 3 < 8 ? 256 + lane + 3 : lane);
  }
}

TEST(PtxWarp, VotesMatchesAndReductionsSeeAllLanes) {
  Machine machine;
  const std::string prepare = "cvt.u32.u64 %r1, %a; and.b32 %r2, %r1, 3; setp.eq.u32 %p1, %r2, 1;";
  const auto all = [&](const std::string& statement) { return machine.Lanes(prepare + statement); };
  for (const uint64_t ballot : all("vote.sync.ballot.b32 %r0, %p1, -1; cvt.u64.u32 %d, %r0;")) {
    EXPECT_EQ(ballot, 0x22222222U);
  }
  for (const uint64_t any : all("vote.sync.any.pred %p0, %p1, -1; selp.b64 %d, 1, 0, %p0;")) {
    EXPECT_EQ(any, 1U);
  }
  for (const uint64_t whether : all("vote.sync.all.pred %p0, !%p1, -1; selp.b64 %d, 1, 0, %p0;")) {
    EXPECT_EQ(whether, 0U);
  }
  const std::vector<uint64_t> match = all("match.any.sync.b32 %r0, %r2, -1; cvt.u64.u32 %d, %r0;");
  const std::vector<uint64_t> sum = all("redux.sync.add.s32 %r0, %r1, -1; cvt.u64.u32 %d, %r0;");
  const std::vector<uint64_t> largest =
      all("redux.sync.max.u32 %r0, %r1, -1; cvt.u64.u32 %d, %r0;");
  const std::vector<uint64_t> equal =
      all("match.all.sync.b64 %r0|%p0, %b, -1; selp.b32 %r0, %r0, 0, %p0; cvt.u64.u32 %d, %r0;");
  const std::vector<uint64_t> elected = all("elect.sync _|%p0, -1; selp.b64 %d, 1, 0, %p0;");
  for (uint64_t lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(match[lane], 0x11111111ULL << (lane % 4));
    EXPECT_EQ(sum[lane], 496U);
    EXPECT_EQ(largest[lane], 31U);
    EXPECT_EQ(equal[lane], 0xffffffffU);
    EXPECT_EQ(elected[lane], lane == 0 ? 1U : 0U);
  }
}

TEST(PtxWarp, HalvesOfAWarpUseMasksOfTheirOwn) {
  Machine machine;
  const std::vector<uint64_t> results = machine.Lanes(R"(
    cvt.u32.u64 %r1, %a;
    setp.lt.u32 %p1, %r1, 16;
    selp.b32 %r2, 65535, -65536, %p1;
    vote.sync.ballot.b32 %r0, %p1, %r2;
    cvt.u64.u32 %d, %r0;)");
  for (uint64_t lane = 0; lane < 32; ++lane) EXPECT_EQ(results[lane], lane < 16 ? 0xffffU : 0U);
}

TEST(PtxWarp, SharedLocalAndGenericMemoryAndAtomics) {
  Machine machine;
  const std::vector<uint64_t> results = machine.Lanes(R"(
    .shared .align 8 .b8 counter[8];
    .local .align 8 .b8 depot[16];
    cvt.u32.u64 %r1, %a;
    setp.eq.u32 %p1, %r1, 0;
    mov.u32 %r2, counter;
    @%p1 st.shared.u32 [%r2], 5;
    @%p1 st.shared.u32 [%r2+4], 1000;
    bar.sync 0;
    mov.u64 %x1, counter;
    cvta.shared.u64 %x2, %x1;
    atom.add.u32 %r3, [%x2], 1;
    red.shared.min.u32 [%r2+4], %r1;
    bar.sync 0;
    ld.shared.v2.u32 {%r4, %r5}, [%r2];
    mov.u64 %x3, depot;
    st.local.v2.u32 [%x3], {%r4, %r5};
    cvta.local.u64 %x4, %x3;
    ld.u32 %r6, [%x4];
    ld.u8 %r7, [%x4+4];
    isspacep.shared %p2, %x2;
    selp.b32 %r8, 1000, 0, %p2;
    add.u32 %r6, %r6, %r7;
    add.u32 %r6, %r6, %r8;
    cvt.u64.u32 %d, %r6;)");
  for (const uint64_t result : results) EXPECT_EQ(result, 1000U + 37);
}

TEST(PtxWarp, EveryAtomicOperation) {
  Machine machine;
  const PtxCase cases[] = {
      {"add.u32", 5, 7, 0, 12}, {"min.s32", 5, U(-7), 0, U(-7)}, {"max.u32", 5, U(-7), 0, U(-7)},
      {"and.b32", 6, 3, 0, 2},  {"or.b32", 6, 3, 0, 7},          {"xor.b32", 6, 3, 0, 5},
      {"exch.b32", 6, 3, 0, 3}, {"inc.u32", 6, 6, 0, 0},         {"inc.u32", 5, 6, 0, 6},
      {"dec.u32", 0, 6, 0, 6},  {"dec.u32", 4, 6, 0, 3},         {"add.f32", F(1), F(2), 0, F(3)},
  };
  for (const PtxCase& each : cases) {
    const std::string statement = fmt::format(
        ".shared .b32 word; cvt.u32.u64 %r1, %a; cvt.u32.u64 %r2, %b; mov.u32 %r3, word; "
        "st.shared.u32 [%r3], %r1; atom.shared.{} %r4, [%r3], %r2; ld.shared.u32 %r0, [%r3]; "
        "sub.u32 %r4, %r4, %r1; add.u32 %r0, %r0, %r4; cvt.u64.u32 %d, %r0;",
        each.statement);
    EXPECT_EQ(machine.One(statement, each.a, each.b), each.expected) << each.statement;
  }
  EXPECT_EQ(machine.One(
                ".shared .b64 word; st.shared.u64 [word], %a; atom.shared.cas.b64 %x1, [word], %a, "
                "%b; ld.shared.u64 %d, [word];",
                5, 7),
            7U);
  EXPECT_EQ(
      machine.One(".shared .b64 word; st.shared.u64 [word], %a; atom.shared.add.f64 %g0, [word], "
                  "0d3FF0000000000000; ld.shared.u64 %d, [word];",
                  D(2)),
      D(3));
}

TEST(PtxWarp, BarrierReductions) {
  Machine machine;
  const std::vector<uint64_t> results = machine.Lanes(R"(
    cvt.u32.u64 %r1, %a;
    setp.lt.u32 %p1, %r1, 5;
    bar.red.popc.u32 %r2, 0, %p1;
    bar.red.or.pred %p2, 0, %p1;
    bar.red.and.pred %p3, 0, !%p1;
    selp.b32 %r3, 100, 0, %p2;
    selp.b32 %r4, 1000, 0, %p3;
    add.u32 %r2, %r2, %r3;
    add.u32 %r2, %r2, %r4;
    cvt.u64.u32 %d, %r2;)");
  for (const uint64_t result : results) EXPECT_EQ(result, 105U);
}

TEST(PtxWarp, AnUnknownInstructionIsReportedWhereItIsExecuted) {
  Machine machine;
  EXPECT_EQ(machine.One("setp.eq.u64 %p0, %a, 1; @%p0 tensormap.replace.tile; mov.u64 %d, 3;", 0),
            3U);
  machine.Run("setp.eq.u64 %p0, %a, 1; @%p0 tensormap.replace.tile; mov.u64 %d, 3;", {{1, 0, 0}});
  ASSERT_TRUE(machine.violation());
  EXPECT_EQ(machine.violation()->kind, ViolationKind::kUnsupported);
  EXPECT_NE(machine.violation()->message.find("tensormap.replace.tile"), std::string::npos);
}

TEST(PtxWarp, WhatNeverEndsIsReported) {
  Machine machine;
  machine.Run("FOREVER: bra FOREVER;", {{0, 0, 0}});
  ASSERT_TRUE(machine.violation());
  EXPECT_EQ(machine.violation()->kind, ViolationKind::kEndless);
}

// One lane waits for what another does later: both have to get on.
TEST(PtxWarp, LanesThatWaitForEachOtherBothGetOn) {
  Machine machine;
  const std::vector<uint64_t> results = machine.Lanes(R"(
    .shared .b32 flag;
    cvt.u32.u64 %r1, %a;
    setp.eq.u32 %p1, %r1, 0;
    @%p1 st.shared.u32 [flag], 0;
    bar.warp.sync -1;
    setp.eq.u32 %p2, %r1, 31;
    @%p2 bra SET;
  WAIT:
    ld.volatile.shared.u32 %r2, [flag];
    setp.eq.u32 %p3, %r2, 0;
    @%p3 bra WAIT;
    bra END;
  SET:
    st.volatile.shared.u32 [flag], 1;
  END:
    mov.u64 %d, 1;)");
  for (const uint64_t result : results) EXPECT_EQ(result, 1U);
}

}  // namespace
}  // namespace tiny_knn::emulation
