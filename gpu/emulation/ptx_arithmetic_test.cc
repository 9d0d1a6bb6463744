// Every family of PTX arithmetic, executed from a few lines of PTX and compared with values worked
// out by hand or by the host's own arithmetic.
#include <cmath>
#include <limits>
#include <string>

#include "gpu/emulation/test_ptx_machine.h"
#include "gtest/gtest.h"

namespace tiny_knn::emulation {
namespace {

// A statement on 32-bit (16-bit, ...) registers %r1, %r2, %r3 that hold a, b and c, with its result
// in %r0.
std::string In32(const std::string& statement) {
  return "cvt.u32.u64 %r1, %a; cvt.u32.u64 %r2, %b; cvt.u32.u64 %r3, %c;\n" + statement +
         "\ncvt.u64.u32 %d, %r0;";
}
std::string In16(const std::string& statement) {
  return "cvt.u16.u64 %h1, %a; cvt.u16.u64 %h2, %b; cvt.u16.u64 %h3, %c;\n" + statement +
         "\ncvt.u64.u16 %d, %h0;";
}
std::string InFloat(const std::string& statement) {
  return "cvt.u32.u64 %r1, %a; cvt.u32.u64 %r2, %b; cvt.u32.u64 %r3, %c; mov.b32 %f1, %r1; "
         "mov.b32 %f2, %r2; mov.b32 %f3, %r3;\n" +
         statement + "\nmov.b32 %r0, %f0; cvt.u64.u32 %d, %r0;";
}
std::string InDouble(const std::string& statement) {
  return "mov.b64 %g1, %a; mov.b64 %g2, %b; mov.b64 %g3, %c;\n" + statement + "\nmov.b64 %d, %g0;";
}
// A comparison or the like, whose result is the predicate %p0.
std::string Predicate(const std::string& statement) {
  return "cvt.u32.u64 %r1, %a; cvt.u32.u64 %r2, %b; cvt.u32.u64 %r3, %c; mov.b32 %f1, %r1; "
         "mov.b32 %f2, %r2; setp.ne.u32 %p3, %r3, 0;\n" +
         statement + "\nselp.b64 %d, 1, 0, %p0;";
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr uint64_t kNan = 0x7fffffff;

TEST(PtxArithmetic, IntegerArithmetic) {
  Machine machine;
  const PtxCase cases[] = {
      {"add.s32 %r0, %r1, %r2;", 0xffffffff, 2, 0, 1},
      {"sub.s32 %r0, %r1, %r2;", 1, 2, 0, 0xffffffff},
      {"add.sat.s32 %r0, %r1, %r2;", 0x7fffffff, 2, 0, 0x7fffffff},
      {"sub.sat.s32 %r0, %r1, %r2;", 0x80000000, 2, 0, 0x80000000},
      {"mul.lo.s32 %r0, %r1, %r2;", 0x10001, 0x10001, 0, 0x20001},
      {"mul.hi.u32 %r0, %r1, %r2;", 0xffffffff, 0xffffffff, 0, 0xfffffffe},
      {"mul.hi.s32 %r0, %r1, %r2;", 0xffffffff, 5, 0, 0xffffffff},
      {"mad.lo.s32 %r0, %r1, %r2, %r3;", 7, 6, 100, 142},
      {"mad.hi.u32 %r0, %r1, %r2, %r3;", 0x80000000, 6, 100, 103},
      {"mul24.lo.u32 %r0, %r1, %r2;", 0xff000003, 5, 0, 15},
      {"mul24.lo.s32 %r0, %r1, %r2;", 0x00ffffff, 5, 0, U(-5)},
      {"div.s32 %r0, %r1, %r2;", U(-7), 2, 0, U(-3)},
      {"div.u32 %r0, %r1, %r2;", U(-7), 2, 0, 0x7ffffffc},
      {"div.s32 %r0, %r1, %r2;", 0x80000000, U(-1), 0, 0x80000000},
      {"rem.s32 %r0, %r1, %r2;", U(-7), 4, 0, U(-3)},
      {"rem.u32 %r0, %r1, %r2;", 7, 4, 0, 3},
      {"min.s32 %r0, %r1, %r2;", U(-1), 1, 0, U(-1)},
      {"min.u32 %r0, %r1, %r2;", U(-1), 1, 0, 1},
      {"max.s32 %r0, %r1, %r2;", U(-1), 1, 0, 1},
      {"max.u32 %r0, %r1, %r2;", U(-1), 1, 0, U(-1)},
      {"neg.s32 %r0, %r1;", 5, 0, 0, U(-5)},
      {"abs.s32 %r0, %r1;", U(-5), 0, 0, 5},
      {"sad.u32 %r0, %r1, %r2, %r3;", 3, 10, 100, 107},
      {"sad.s32 %r0, %r1, %r2, %r3;", U(-3), 10, 100, 113},
      {"dp4a.s32.s32 %r0, %r1, %r2, %r3;", 0xff01fe03, 0x02030405, 100, 100 - 2 + 3 - 8 + 15},
      {"dp4a.u32.u32 %r0, %r1, %r2, %r3;", 0xff000001, 0x02000003, 1, 510 + 3 + 1},
      {"dp2a.lo.s32.s32 %r0, %r1, %r2, %r3;", 0xffff0002, 0x0000ff03, 10, 10 + 6 + 1},
      {"dp2a.hi.u32.u32 %r0, %r1, %r2, %r3;", 0x00010002, 0x05060000, 0, 12 + 5},
      // A carry goes from the lower to the upper half.
      {"add.cc.u32 %r4, %r1, %r2; addc.u32 %r0, %r3, 0;", 0xffffffff, 1, 41, 42},
      {"sub.cc.u32 %r4, %r1, %r2; subc.u32 %r0, %r3, 0;", 0, 1, 43, 42},
  };
  for (const PtxCase& each : cases) {
    EXPECT_EQ(machine.One(In32(each.statement), each.a, each.b, each.c), each.expected)
        << each.statement;
  }
  EXPECT_EQ(machine.One("mul.lo.s64 %d, %a, %b;", 1ULL << 40, 3), 3ULL << 40);
  EXPECT_EQ(machine.One("mul.hi.u64 %d, %a, %b;", 1ULL << 63, 6), 3U);
  EXPECT_EQ(machine.One("mul.hi.s64 %d, %a, %b;", ~0ULL, 6), ~0ULL);
  EXPECT_EQ(machine.One("div.s64 %d, %a, %b;", static_cast<uint64_t>(-9), 2),
            static_cast<uint64_t>(-4));
  EXPECT_EQ(machine.One("rem.u64 %d, %a, %b;", 1ULL << 63, 10), 8U);
  EXPECT_EQ(
      machine.One("cvt.u32.u64 %r1, %a; cvt.u32.u64 %r2, %b; mul.wide.s32 %d, %r1, %r2;", U(-3), 5),
      static_cast<uint64_t>(-15));
  EXPECT_EQ(machine.One("cvt.u32.u64 %r1, %a; cvt.u32.u64 %r2, %b; mad.wide.u32 %d, %r1, %r2, %c;",
                        0xffffffff, 2, 10),
            0x1fffffffeULL + 10);
  EXPECT_EQ(machine.One(In16("add.s16 %h0, %h1, %h2;"), 0xffff, 3), 2U);
  EXPECT_EQ(machine.One(In16("mul.lo.s16 %h0, %h1, %h2;"), 300, 300), 90000U & 0xffff);
  EXPECT_EQ(machine.One(In16("max.s16 %h0, %h1, %h2;"), 0xffff, 3), 3U);
}

TEST(PtxArithmetic, LogicShiftsAndFields) {
  Machine machine;
  const PtxCase cases[] = {
      {"and.b32 %r0, %r1, %r2;", 12, 10, 0, 8},
      {"or.b32 %r0, %r1, %r2;", 12, 10, 0, 14},
      {"xor.b32 %r0, %r1, %r2;", 12, 10, 0, 6},
      {"not.b32 %r0, %r1;", 0xf0f0f0f0, 0, 0, 0x0f0f0f0f},
      {"cnot.b32 %r0, %r1;", 0, 0, 0, 1},
      {"lop3.b32 %r0, %r1, %r2, %r3, 0xE8;", 0b0101, 0b0011, 0b0110, 0b0111},
      {"shl.b32 %r0, %r1, %r2;", 3, 31, 0, 0x80000000},
      {"shl.b32 %r0, %r1, %r2;", 3, 32, 0, 0},
      {"shr.u32 %r0, %r1, %r2;", 0x80000000, 31, 0, 1},
      {"shr.u32 %r0, %r1, %r2;", 0x80000000, 40, 0, 0},
      {"shr.s32 %r0, %r1, %r2;", 0x80000000, 40, 0, 0xffffffff},
      {"popc.b32 %r0, %r1;", 0xf00f, 0, 0, 8},
      {"clz.b32 %r0, %r1;", 1, 0, 0, 31},
      {"clz.b32 %r0, %r1;", 0, 0, 0, 32},
      {"brev.b32 %r0, %r1;", 1, 0, 0, 0x80000000},
      {"bfind.u32 %r0, %r1;", 0x1000, 0, 0, 12},
      {"bfind.u32 %r0, %r1;", 0, 0, 0, 0xffffffff},
      {"bfind.s32 %r0, %r1;", U(-5), 0, 0, 2},
      {"bfind.shiftamt.u32 %r0, %r1;", 0x1000, 0, 0, 19},
      {"bfe.u32 %r0, %r1, %r2, %r3;", 0xabcd, 4, 8, 0xbc},
      {"bfe.s32 %r0, %r1, %r2, %r3;", 0xabcd, 4, 8, 0xffffffbc},
      {"bfe.s32 %r0, %r1, %r2, %r3;", 0x80000000, 28, 8, 0xfffffff8},
      {"bfe.u32 %r0, %r1, %r2, %r3;", 0xabcd, 4, 0, 0},
      {"bfi.b32 %r0, %r1, %r2, 8, 4;", 0xf5, 0xffffffff, 0, 0xfffff5ff},
      {"bmsk.clamp.b32 %r0, %r1, %r2;", 4, 3, 0, 0x70},
      {"bmsk.clamp.b32 %r0, %r1, %r2;", 4, 40, 0, 0xfffffff0},
      {"bmsk.wrap.b32 %r0, %r1, %r2;", 36, 3, 0, 0x70},
      {"shf.l.wrap.b32 %r0, %r1, %r2, %r3;", 0x80000001, 0x2, 33, 0x5},
      {"shf.r.wrap.b32 %r0, %r1, %r2, %r3;", 0x80000001, 0x3, 1, 0xc0000000},
      {"shf.l.clamp.b32 %r0, %r1, %r2, %r3;", 0x80000001, 0x2, 40, 0x80000001},
      {"shf.r.clamp.b32 %r0, %r1, %r2, %r3;", 0x80000001, 0x2, 40, 0x2},
      {"prmt.b32 %r0, %r1, %r2, %r3;", 0x33221180, 0x77665544, 0x7608, 0x776680ff},
  };
  for (const PtxCase& each : cases) {
    EXPECT_EQ(machine.One(In32(each.statement), each.a, each.b, each.c), each.expected)
        << each.statement;
  }
  EXPECT_EQ(machine.One("cvt.u32.u64 %r2, %b; shr.s64 %d, %a, %r2;", 1ULL << 63, 60), ~0ULL << 3);
  EXPECT_EQ(machine.One("bfi.b64 %d, %a, %b, 60, 20;", 0xff, 0), 0xf000000000000000ULL);
  EXPECT_EQ(machine.One("popc.b64 %r0, %a; cvt.u64.u32 %d, %r0;", ~0ULL), 64U);
  EXPECT_EQ(machine.One("clz.b64 %r0, %a; cvt.u64.u32 %d, %r0;", 1), 63U);
  EXPECT_EQ(machine.One("brev.b64 %d, %a;", 1), 1ULL << 63);
  EXPECT_EQ(machine.One(In16("shl.b16 %h0, %h1, 15;"), 3), 0x8000U);
  EXPECT_EQ(machine.One(In16("shr.s16 %h0, %h1, 4;"), 0x8000), 0xf800U);
}

TEST(PtxArithmetic, FloatArithmeticIsRoundedOnceAndAsAsked) {
  Machine machine;
  const float third = 1.0F / 3.0F;
  const PtxCase cases[] = {
      {"add.f32 %f0, %f1, %f2;", F(1), F(0x1p-24F), 0, F(1)},
      {"add.rn.f32 %f0, %f1, %f2;", F(1), F(0x1.8p-24F), 0, F(1 + 0x1p-23F)},
      {"add.rz.f32 %f0, %f1, %f2;", F(1), F(0x1.8p-24F), 0, F(1)},
      {"add.rp.f32 %f0, %f1, %f2;", F(1), F(0x1p-30F), 0, F(1 + 0x1p-23F)},
      {"add.rm.f32 %f0, %f1, %f2;", F(1), F(-0x1p-30F), 0, F(1 - 0x1p-24F)},
      {"sub.f32 %f0, %f1, %f2;", F(1), F(3), 0, F(-2)},
      {"mul.f32 %f0, %f1, %f2;", F(3), F(third), 0, F(1)},
      {"mul.rz.f32 %f0, %f1, %f2;", F(1 + 0x1p-23F), F(1 + 0x1p-23F), 0, F(1 + 0x1p-22F)},
      {"fma.rn.f32 %f0, %f1, %f2, %f3;", F(1 + 0x1p-12F), F(1 + 0x1p-12F), F(-1),
       F(0x1p-11F + 0x1p-24F)},
      {"fma.rz.f32 %f0, %f1, %f2, %f3;", F(1), F(1), F(-0x1p-30F), F(1 - 0x1p-24F)},
      {"div.rn.f32 %f0, %f1, %f2;", F(1), F(3), 0, F(third)},
      {"div.rz.f32 %f0, %f1, %f2;", F(1), F(3), 0, F(third - 0x1p-25F)},
      {"sqrt.rn.f32 %f0, %f1;", F(2), 0, 0, F(std::sqrt(2.0F))},
      {"rcp.rn.f32 %f0, %f1;", F(3), 0, 0, F(third)},
      {"ex2.approx.f32 %f0, %f1;", F(5), 0, 0, F(32)},
      {"lg2.approx.f32 %f0, %f1;", F(8), 0, 0, F(3)},
      {"neg.f32 %f0, %f1;", F(2), 0, 0, F(-2)},
      {"abs.f32 %f0, %f1;", F(-2), 0, 0, F(2)},
      {"copysign.f32 %f0, %f1, %f2;", F(-1), F(7), 0, F(-7)},
      {"min.f32 %f0, %f1, %f2;", F(1), kNan, 0, F(1)},
      {"min.NaN.f32 %f0, %f1, %f2;", F(1), kNan, 0, kNan},
      {"max.f32 %f0, %f1, %f2;", F(-0.0F), F(0.0F), 0, F(0.0F)},
      {"min.f32 %f0, %f1, %f2;", F(0.0F), F(-0.0F), 0, F(-0.0F)},
      // A NaN that comes out is the canonical one; what goes in is not kept.
      {"add.f32 %f0, %f1, %f2;", F(kInfinity), F(-kInfinity), 0, kNan},
      {"mul.f32 %f0, %f1, %f2;", 0xffc12345, F(1), 0, kNan},
      {"add.sat.f32 %f0, %f1, %f2;", F(3), F(4), 0, F(1)},
      {"add.sat.f32 %f0, %f1, %f2;", kNan, F(4), 0, F(0)},
      {"add.ftz.f32 %f0, %f1, %f2;", 1, F(0), 0, F(0)},
      {"add.f32 %f0, %f1, %f2;", 1, F(0), 0, 1},
      {"mul.ftz.f32 %f0, %f1, %f2;", F(0x1p-100F), F(-0x1p-40F), 0, F(-0.0F)},
  };
  for (const PtxCase& each : cases) {
    EXPECT_EQ(machine.One(InFloat(each.statement), each.a, each.b, each.c), each.expected)
        << each.statement;
  }
  const PtxCase doubles[] = {
      {"add.rn.f64 %g0, %g1, %g2;", D(1), D(0x1p-53), 0, D(1)},
      {"add.rp.f64 %g0, %g1, %g2;", D(1), D(0x1p-60), 0, D(1 + 0x1p-52)},
      {"mul.rm.f64 %g0, %g1, %g2;", D(1 + 0x1p-52), D(-1 - 0x1p-52), 0, D(-1 - 0x1.8p-51)},
      {"fma.rn.f64 %g0, %g1, %g2, %g3;", D(1 + 0x1p-30), D(1 + 0x1p-30), D(-1),
       D(0x1p-29 + 0x1p-60)},
      {"div.rn.f64 %g0, %g1, %g2;", D(1), D(3), 0, D(1.0 / 3.0)},
      {"sqrt.rn.f64 %g0, %g1;", D(2), 0, 0, D(std::sqrt(2.0))},
      {"max.f64 %g0, %g1, %g2;", D(2), D(-3), 0, D(2)},
      {"neg.f64 %g0, %g1;", D(2), 0, 0, D(-2)},
  };
  for (const PtxCase& each : doubles) {
    EXPECT_EQ(machine.One(InDouble(each.statement), each.a, each.b, each.c), each.expected)
        << each.statement;
  }
}

TEST(PtxArithmetic, HalvesAreRoundedOnce) {
  Machine machine;
  const PtxCase cases[] = {
      {"add.f16 %h0, %h1, %h2;", 0x3c00, 0x1000, 0, 0x3c00},  // 1 + 2^-11: to even
      {"add.f16 %h0, %h1, %h2;", 0x3c01, 0x1000, 0, 0x3c02},  // 1 + 2^-10 + 2^-11: to even
      {"mul.f16 %h0, %h1, %h2;", 0x7bff, 0x4000, 0, 0x7c00},  // 65504 * 2
      {"sub.f16 %h0, %h1, %h2;", 0x7c00, 0x7c00, 0, 0x7fff},  // inf - inf
      {"fma.rn.f16 %h0, %h1, %h2, %h3;", 0x3c01, 0x3c01, 0xbc02, 0x0010},  // 2^-20 is left
      {"max.f16 %h0, %h1, %h2;", 0xbc00, 0x7e00, 0, 0xbc00},
      {"add.rn.bf16 %h0, %h1, %h2;", 0x3f80, 0x3f80, 0, 0x4000},
      {"neg.bf16 %h0, %h1;", 0x3f80, 0, 0, 0xbf80},
  };
  for (const PtxCase& each : cases) {
    EXPECT_EQ(machine.One(In16(each.statement), each.a, each.b, each.c), each.expected)
        << each.statement;
  }
  EXPECT_EQ(machine.One(In32("add.f16x2 %r0, %r1, %r2;"), 0x3c004000, 0x3c003c00), 0x40004200U);
  EXPECT_EQ(
      machine.One(In32("fma.rn.bf16x2 %r0, %r1, %r2, %r3;"), 0x3f804000, 0x40003f80, 0x3f803f80),
      0x40404040U);
}

TEST(PtxArithmetic, ConversionsRoundClampAndExtend) {
  Machine machine;
  const PtxCase cases[] = {
      {"cvt.rni.s32.f32 %r0, %f1;", F(2.5F), 0, 0, 2},
      {"cvt.rzi.s32.f32 %r0, %f1;", F(-2.9F), 0, 0, U(-2)},
      {"cvt.rmi.s32.f32 %r0, %f1;", F(-2.1F), 0, 0, U(-3)},
      {"cvt.rpi.s32.f32 %r0, %f1;", F(2.1F), 0, 0, 3},
      {"cvt.rzi.s32.f32 %r0, %f1;", F(1e20F), 0, 0, 0x7fffffff},
      {"cvt.rzi.u32.f32 %r0, %f1;", F(-5), 0, 0, 0},
      {"cvt.rzi.u32.f32 %r0, %f1;", F(3e9F), 0, 0, 3000000000U},
      {"cvt.rzi.s32.f32 %r0, %f1;", kNan, 0, 0, 0},
      {"cvt.rn.f32.s32 %f0, %r1; mov.b32 %r0, %f0;", 0x7fffffff, 0, 0, F(0x1p31F)},
      {"cvt.rz.f32.s32 %f0, %r1; mov.b32 %r0, %f0;", 0x7fffffff, 0, 0, F(0x1.fffffep30F)},
      {"cvt.rn.f32.u32 %f0, %r1; mov.b32 %r0, %f0;", 0xffffffff, 0, 0, F(0x1p32F)},
      {"cvt.rni.f32.f32 %f0, %f1; mov.b32 %r0, %f0;", F(-2.5F), 0, 0, F(-2)},
      {"cvt.sat.f32.f32 %f0, %f1; mov.b32 %r0, %f0;", F(7), 0, 0, F(1)},
      {"cvt.rn.f16.f32 %h0, %f1; cvt.u32.u16 %r0, %h0;", F(1 + 0x1p-11F), 0, 0, 0x3c00},
      {"cvt.rz.f16.f32 %h0, %f1; cvt.u32.u16 %r0, %h0;", F(70000), 0, 0, 0x7bff},
      {"cvt.rp.f16.f32 %h0, %f1; cvt.u32.u16 %r0, %h0;", F(1 + 0x1p-20F), 0, 0, 0x3c01},
      {"cvt.rm.f16.f32 %h0, %f1; cvt.u32.u16 %r0, %h0;", F(-1 - 0x1p-20F), 0, 0, 0xbc01},
      {"cvt.rn.f16.f32 %h0, %f1; cvt.u32.u16 %r0, %h0;", kNan, 0, 0, 0x7fff},
      {"cvt.rn.bf16.f32 %h0, %f1; cvt.u32.u16 %r0, %h0;", F(1 + 0x1.8p-8F), 0, 0, 0x3f81},
      {"cvt.rz.bf16.f32 %h0, %f1; cvt.u32.u16 %r0, %h0;", F(1 + 0x1.8p-8F), 0, 0, 0x3f80},
      {"cvt.u16.u32 %h0, %r1; cvt.f32.f16 %f0, %h0; mov.b32 %r0, %f0;", 0x0001, 0, 0, F(0x1p-24F)},
      {"cvt.rn.f16x2.f32 %r0, %f1, %f2;", F(1), F(2), 0, 0x3c004000},
      {"cvt.rn.bf16x2.f32 %r0, %f1, %f2;", F(1), F(2), 0, 0x3f804000},
      {"cvt.rna.tf32.f32 %r0, %f1;", F(1 + 0x1p-11F), 0, 0, F(1 + 0x1p-10F)},
      {"cvt.rn.tf32.f32 %r0, %f1;", F(1 + 0x1p-11F), 0, 0, F(1)},
      {"cvt.s32.s8 %r0, %r1;", 0x1ff, 0, 0, 0xffffffff},
      {"cvt.u32.u8 %r0, %r1;", 0x1ff, 0, 0, 0xff},
      {"cvt.sat.s8.s32 %r0, %r1;", 1000, 0, 0, 127},
      {"cvt.sat.u8.s32 %r0, %r1;", U(-4), 0, 0, 0},
      {"cvt.s16.s32 %h0, %r1; cvt.s32.s16 %r0, %h0;", 0x18000, 0, 0, 0xffff8000},
  };
  for (const PtxCase& each : cases) {
    const std::string statement =
        "cvt.u32.u64 %r1, %a; cvt.u32.u64 %r2, %b; mov.b32 %f1, %r1; mov.b32 %f2, %r2;" +
        std::string(each.statement) + " cvt.u64.u32 %d, %r0;";
    EXPECT_EQ(machine.One(statement, each.a, each.b), each.expected) << each.statement;
  }
  EXPECT_EQ(machine.One(
                "mov.b64 %g1, %a; cvt.rn.f32.f64 %f0, %g1; mov.b32 %r0, %f0; cvt.u64.u32 %d, %r0;",
                D(1 + 0x1p-24)),
            F(1));
  EXPECT_EQ(machine.One(
                "mov.b64 %g1, %a; cvt.rp.f32.f64 %f0, %g1; mov.b32 %r0, %f0; cvt.u64.u32 %d, %r0;",
                D(1 + 0x1p-24)),
            F(1 + 0x1p-23F));
  EXPECT_EQ(machine.One("mov.b64 %g1, %a; cvt.rzi.s64.f64 %d, %g1;", D(-1e18)),
            static_cast<uint64_t>(-1000000000000000000));
  EXPECT_EQ(machine.One("mov.b64 %g1, %a; cvt.rni.s64.f64 %d, %g1;", D(std::nan(""))), 1ULL << 63);
  EXPECT_EQ(machine.One("cvt.rn.f64.s64 %g0, %a; mov.b64 %d, %g0;", (1ULL << 53) + 1), D(0x1p53));
  EXPECT_EQ(machine.One("cvt.rp.f64.u64 %g0, %a; mov.b64 %d, %g0;", (1ULL << 53) + 1),
            D(0x1p53 + 2));
  // Twice rounded it would be 1 + 2^-23 steps off: float from an integer beyond 2^53.
  EXPECT_EQ(machine.One("cvt.rn.f32.u64 %f0, %a; mov.b32 %r0, %f0; cvt.u64.u32 %d, %r0;",
                        (1ULL << 62) + (1ULL << 38) + 1),
            F(0x1p62F + 0x1p39F));
}

TEST(PtxArithmetic, ComparisonsAndSelections) {
  Machine machine;
  const PtxCase cases[] = {
      {"setp.lt.s32 %p0, %r1, %r2;", U(-1), 1, 0, 1},
      {"setp.lt.u32 %p0, %r1, %r2;", U(-1), 1, 0, 0},
      {"setp.lo.u32 %p0, %r1, %r2;", 1, 2, 0, 1},
      {"setp.hs.u32 %p0, %r1, %r2;", 2, 2, 0, 1},
      {"setp.ge.s32 %p0, %r1, %r2;", 1, 1, 0, 1},
      {"setp.ne.b32 %p0, %r1, %r2;", 1, 1, 0, 0},
      {"setp.eq.f32 %p0, %f1, %f2;", F(0.0F), F(-0.0F), 0, 1},
      {"setp.lt.f32 %p0, %f1, %f2;", F(1), kNan, 0, 0},
      {"setp.ltu.f32 %p0, %f1, %f2;", F(1), kNan, 0, 1},
      {"setp.ne.f32 %p0, %f1, %f2;", F(1), kNan, 0, 0},
      {"setp.neu.f32 %p0, %f1, %f2;", F(1), kNan, 0, 1},
      {"setp.num.f32 %p0, %f1, %f2;", F(1), kNan, 0, 0},
      {"setp.nan.f32 %p0, %f1, %f2;", F(1), kNan, 0, 1},
      {"setp.eq.ftz.f32 %p0, %f1, %f2;", 1, F(0), 0, 1},
      {"setp.eq.and.s32 %p0, %r1, %r2, %p3;", 1, 1, 0, 0},
      {"setp.eq.or.s32 %p0, %r1, %r2, %p3;", 1, 2, 1, 1},
      {"setp.eq.xor.s32 %p0, %r1, %r2, !%p3;", 1, 1, 1, 1},
      {"setp.eq.s32 %p1|%p0, %r1, %r2;", 1, 1, 0, 0},
      {"testp.subnormal.f32 %p0, %f1;", 1, 0, 0, 1},
      {"testp.finite.f32 %p0, %f1;", F(kInfinity), 0, 0, 0},
      {"setp.lt.s32 %p1, %r1, %r2; setp.lt.s32 %p2, %r2, %r1; or.pred %p0, %p1, %p2;", 1, 2, 0, 1},
      {"setp.lt.s32 %p1, %r1, %r2; not.pred %p0, %p1;", 1, 2, 0, 0},
      {"setp.lt.s32 %p1, %r1, %r2; and.pred %p0, %p1, !%p3;", 1, 2, 0, 1},
      {"setp.lt.s32 %p1, %r1, %r2; xor.pred %p0, %p1, %p3;", 1, 2, 1, 0},
      {"setp.lt.s32 %p1, %r1, %r2; mov.pred %p0, %p1;", 1, 2, 1, 1},
  };
  for (const PtxCase& each : cases) {
    EXPECT_EQ(machine.One(Predicate(each.statement), each.a, each.b, each.c), each.expected)
        << each.statement;
  }
  EXPECT_EQ(machine.One(In32("set.lt.u32.s32 %r0, %r1, %r2;"), 1, 2), 0xffffffffU);
  EXPECT_EQ(machine.One(InFloat("set.lt.f32.f32 %f0, %f1, %f2;"), F(1), F(2)), F(1));
  EXPECT_EQ(machine.One(In32("slct.b32.s32 %r0, %r1, %r2, %r3;"), 1, 2, U(-1)), 2U);
  EXPECT_EQ(
      machine.One(In16("setp.lt.f16 %p0, %h1, %h2; selp.b16 %h0, 1, 2, %p0;"), 0xbc00, 0x3c00), 1U);
  EXPECT_EQ(
      machine.One(In16("setp.lt.bf16 %p0, %h1, %h2; selp.b16 %h0, 1, 2, !%p0;"), 0xbf80, 0x3f80),
      2U);
}

}  // namespace
}  // namespace tiny_knn::emulation
