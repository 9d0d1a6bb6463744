// For tests: runs a few lines of PTX on one warp.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gpu/emulation/interpreter.h"
#include "gpu/emulation/kernel_decoder.h"
#include "gpu/emulation/ptx_parser.h"
#include "gtest/gtest.h"

namespace tiny_knn::emulation {

// Runs a kernel of one warp and returns [32] words of output. The statements find lane-dependent
// operands in %a, %b, %c (b64) and leave their result in %d (b64).
class Machine {
 public:
  struct Operands {
    uint64_t a = 0, b = 0, c = 0;
  };

  // The result of `statements` in lane i, for the operands[i].
  std::vector<uint64_t> Run(const std::string& statements, const std::vector<Operands>& operands) {
    const std::string text = fmt::format(R"(
.version 9.0
.target sm_75
.address_size 64
.visible .entry kernel(.param .u64 kernel_param_0, .param .u64 kernel_param_1) {{
  .reg .pred %p<8>;
  .reg .b16 %h<8>;
  .reg .b32 %r<16>, %t<4>;
  .reg .f32 %f<8>;
  .reg .f64 %g<8>;
  .reg .b64 %d, %a, %b, %c, %x<8>, %in, %out;
  ld.param.u64 %in, [kernel_param_0];
  ld.param.u64 %out, [kernel_param_1];
  mov.u32 %t0, %tid.x;
  mul.wide.u32 %x0, %t0, 24;
  add.s64 %in, %in, %x0;
  ld.global.u64 %a, [%in];
  ld.global.u64 %b, [%in+8];
  ld.global.u64 %c, [%in+16];
  mul.wide.u32 %x0, %t0, 8;
  add.s64 %out, %out, %x0;
  mov.b64 %d, 0;
  {{
  {}
  }}
  st.global.u64 [%out], %d;
  ret;
}}
)",
                                         statements);
    const absl::StatusOr<PtxModule> module = ParsePtx(text);
    EXPECT_TRUE(module.ok()) << module.status() << "\n" << statements;
    if (!module.ok()) return {};
    const std::unique_ptr<Program> program =
        DecodeKernel(*module, module->kernels.at(0), {}, memory_.space());
    const size_t lanes = operands.size();
    const uint64_t in = memory_.Allocate(lanes * sizeof(Operands));
    const uint64_t out = memory_.Allocate(lanes * sizeof(uint64_t));
    const Actor host{.first = actor_, .id = actor_};
    ++actor_;
    std::memcpy(memory_.Write(host, in, lanes * sizeof(Operands), 8, Strength::kWeak),
                operands.data(), lanes * sizeof(Operands));
    Launch launch;
    launch.program = program.get();
    launch.block.x = static_cast<uint32_t>(lanes);
    launch.parameters.resize(16);
    std::memcpy(launch.parameters.data(), &in, 8);
    std::memcpy(launch.parameters.data() + 8, &out, 8);
    launch.max_operations = 1'000'000;
    LaunchCounts counts;
    violation_ = RunLaunch(launch, memory_, shared_, actor_, {}, &counts);
    actor_ += 2;
    std::vector<uint64_t> results(lanes);
    if (!violation_) {
      const Actor reader{.first = actor_, .id = actor_};
      ++actor_;
      std::memcpy(results.data(), memory_.Read(reader, out, lanes * 8, 8, Strength::kWeak),
                  lanes * 8);
    }
    memory_.Free(in);
    memory_.Free(out);
    return results;
  }

  // In one lane.
  uint64_t One(const std::string& statements, uint64_t a, uint64_t b = 0, uint64_t c = 0) {
    const std::vector<uint64_t> results = Run(statements, {{a, b, c}});
    EXPECT_FALSE(violation_) << violation_->message;
    return results.empty() ? 0xdead : results[0];
  }

  // In each of 32 lanes, for a = lane.
  std::vector<uint64_t> Lanes(const std::string& statements) {
    std::vector<Operands> operands(32);
    for (uint64_t i = 0; i < 32; ++i) operands[i].a = i;
    const std::vector<uint64_t> results = Run(statements, operands);
    EXPECT_FALSE(violation_) << violation_->message;
    return results;
  }

  // The violation of the last run.
  const std::optional<Violation>& violation() const { return violation_; }

 private:
  DeviceMemory memory_;
  SharedMemory shared_;
  uint32_t actor_ = 2;
  std::optional<Violation> violation_;
};

// A row of a table: what a statement makes of a, b and c.
struct PtxCase {
  const char* statement;
  uint64_t a, b, c, expected;
};

// The bits of operands.
inline uint64_t F(float value) { return std::bit_cast<uint32_t>(value); }
inline uint64_t D(double value) { return std::bit_cast<uint64_t>(value); }
inline uint64_t U(int64_t value) { return static_cast<uint32_t>(value); }

}  // namespace tiny_knn::emulation
