// A GPU without libcublas: a program that was built with CUDA starts, and falls back or says what
// is missing. The GPU is emulated; the table of functions is this test's own.
#include <string>

#include "gmock/gmock.h"
#include "gpu/cublas_api.h"
#include "gpu/emulation/emulation.h"
#include "gpu/open_engine.h"
#include "gtest/gtest.h"

namespace tiny_knn {

absl::StatusOr<const CublasApi*> LoadCublas() {
  return absl::UnavailableError("libcublas.so.13 cannot be loaded: no such file");
}

namespace {

constexpr char kReason[] =
    "CUDA device 0 cannot be used: libcublas.so.13 cannot be loaded: no such file";

TEST(WithoutCublas, AutoTakesTheCpuAndSaysWhy) {
  const emulation::EmulatedGpu gpu({});
  const auto opened = OpenEngine({.device = "auto"});
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->engine->device(), "cpu");
  EXPECT_EQ(opened->note, std::string(kReason) + ": using the CPU");
  EXPECT_EQ(gpu.live_allocations() + gpu.live_host_allocations() + gpu.live_streams(), 0U);
}

TEST(WithoutCublas, CudaIsRefused) {
  const emulation::EmulatedGpu gpu({});
  const auto opened = OpenEngine({.device = "cuda"});
  EXPECT_TRUE(absl::IsUnavailable(opened.status())) << opened.status();
  EXPECT_EQ(std::string(opened.status().message()), std::string(kReason) + "; use --device cpu");
}

TEST(WithoutADevice, AutoTakesTheCpuAndCudaIsRefused) {
  const emulation::EmulatedGpu gpu({.devices = 0});
  const auto automatic = OpenEngine({.device = "auto"});
  ASSERT_TRUE(automatic.ok()) << automatic.status();
  EXPECT_EQ(automatic->engine->device(), "cpu");
  EXPECT_EQ(automatic->note, "no CUDA device: using the CPU");
  const auto opened = OpenEngine({.device = "cuda"});
  EXPECT_TRUE(absl::IsUnavailable(opened.status())) << opened.status();
  EXPECT_EQ(std::string(opened.status().message()).find("no CUDA device: "), 0U) << opened.status();
}

}  // namespace
}  // namespace tiny_knn
