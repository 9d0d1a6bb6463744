// PTX is read as nvcc writes it; text that is none is refused with the line, and never read beyond.
#include "gpu/emulation/ptx_parser.h"

#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace tiny_knn::emulation {
namespace {

constexpr char kModule[] = R"(// A comment
.version 9.0
.target sm_75 /* and
another */
.address_size 64
.extern .func __assertfail
(
  .param .b64 __assertfail_param_0
)
;
.global .align 4 .u32 table[2][2] = {{1, 2}, {3, 0x10}};
.visible .const .align 8 .f64 third = 0d3FD5555555555555;
.extern .shared .align 16 .b8 dynamic[];
.func (.param .b32 result) helper(.param .b32 x) { .reg .b32 %r<2>; ret; }
.visible .entry kernel(
  .param .u64 .ptr .global .align 16 kernel_param_0,
  .param .align 8 .b8 kernel_param_1[24],
  .param .u8 kernel_param_2,
  .param .f64 kernel_param_3
)
.maxntid 128, 2, 1
.minnctapersm 1
{
  .reg .pred %p<3>;
  .reg .b32 %r<4>, %special;
  .shared .align 8 .b8 buffer[40];
  .loc 1 10 3
  .loc 2 20 5, function_name $L__info_string0, inlined_at 1 10 3
  ld.global.v2.u32 {%r1, _}, [%r2+-8];
$L_loop:
  { // a scope
  .reg .b32 %r1;
  @!%p1 shfl.sync.down.b32 %r1|%p2, %special, 1, 31, -1;
  }
  bra.uni $L_loop;
  call.uni (param0), __assertfail, (param1, param2);
}
.file 1 "kernels.cu"
.file 2 "/some/header.cuh"
.section .debug_str
{
$L__info_string0:
.b8 95,90
}
)";

TEST(PtxParser, ReadsAModuleAsNvccWritesIt) {
  const auto module = ParsePtx(kModule);
  ASSERT_TRUE(module.ok()) << module.status();
  ASSERT_EQ(module->variables.size(), 3U);
  EXPECT_EQ(module->variables[0].name, "table");
  EXPECT_EQ(module->variables[0].bytes, 16U);
  EXPECT_EQ(module->variables[0].initial[12], 0x10);
  EXPECT_EQ(module->variables[1].space, StateSpace::kConst);
  EXPECT_EQ(module->variables[1].initial[7], 0x3f);
  EXPECT_EQ(module->variables[2].bytes, 0U);
  EXPECT_EQ(module->files.at(2), "/some/header.cuh");

  ASSERT_EQ(module->kernels.size(), 1U);
  const PtxKernel& kernel = module->kernels[0];
  EXPECT_EQ(kernel.name, "kernel");
  EXPECT_EQ(kernel.max_threads, 256U);
  ASSERT_EQ(kernel.parameters.size(), 4U);
  EXPECT_EQ(kernel.parameters[1].offset, 8U);
  EXPECT_EQ(kernel.parameters[2].offset, 32U);
  EXPECT_EQ(kernel.parameters[3].offset, 40U);
  EXPECT_EQ(kernel.parameter_bytes, 48U);
  EXPECT_EQ(kernel.variables.at(0).bytes, 40U);
  EXPECT_EQ(kernel.labels.at("$L_loop"), 1U);

  ASSERT_EQ(kernel.code.size(), 4U);
  const PtxInstruction& load = kernel.code[0];
  EXPECT_EQ(load.opcode, "ld");
  EXPECT_TRUE(load.has("v2"));
  EXPECT_EQ(load.operands[0].list[1].kind, PtxOperand::Kind::kDiscarded);
  EXPECT_EQ(load.operands[1].offset, -8);
  EXPECT_EQ(load.source_file, 2U);
  EXPECT_EQ(load.source_line, 20U);
  EXPECT_EQ(module->lines[load.line - 1], "  ld.global.v2.u32 {%r1, _}, [%r2+-8];");
  const PtxInstruction& shuffle = kernel.code[1];
  EXPECT_TRUE(shuffle.predicated && shuffle.predicate_negated);
  // The inner %r1 is another register.
  EXPECT_NE(shuffle.operands[0].list[0].index, load.operands[0].list[0].index);
}

TEST(PtxParser, ErrorsNameTheLineAndWhatWasFound) {
  const struct {
    const char* text;
    const char* message;
  } cases[] = {
      {".version 9.0\n\nrubbish;", "PTX line 3: expected a directive, found 'rubbish'"},
      {".entry k() {\n ret;", "PTX line 2: the kernel's body does not end"},
      {".entry k() {\n @%p1 ret;\n}", "PTX line 2: expected a predicate register, found '%p1'"},
      {".entry k() {\n add.s32 %r1 %r2;\n}", "PTX line 2: expected ','"},
      {".entry k() {\n.reg .b99 %r1;\n}", "expected a register's type"},
      {".entry k() {\n.reg .b32 %r<9999999999>;\n}", "expected a count"},
      {".global .b8 x[99999999999999];", "an array of this size"},
      {".entry k() {\nL:\nL:\n}", "a label stands twice"},
      {".entry k(.param .b64) {}", "expected a parameter's type and name"},
      {"/* no end", "PTX line 1: a comment does not end"},
      {".file 1 \"no end\n", "PTX line 1: a string does not end"},
      {".section .debug {", "expected '}'"},
      {".entry", "expected the kernel's name"},
  };
  for (const auto& each : cases) {
    const auto module = ParsePtx(each.text);
    ASSERT_TRUE(absl::IsInvalidArgument(module.status())) << each.text;
    EXPECT_NE(std::string(module.status().message()).find(each.message), std::string::npos)
        << module.status();
  }
}

TEST(PtxParser, NoTextMakesItReadBeyondIt) {
  const std::string text = kModule;
  for (size_t size = 0; size < text.size(); ++size) (void)ParsePtx(text.substr(0, size));
  std::mt19937 random(1);
  const std::string marks = "{}[]()<>,;:|@!.%+-=\"/* \n09azU";
  for (int i = 0; i < 3'000; ++i) {
    std::string changed = text;
    for (int j = 0; j < 4; ++j) changed[random() % changed.size()] = marks[random() % marks.size()];
    (void)ParsePtx(changed);
  }
}

}  // namespace
}  // namespace tiny_knn::emulation
