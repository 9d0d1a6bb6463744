#include "gpu/open_engine.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(OpenEngine, CpuIsTheCpuEngineWithoutANote) {
  const auto opened = OpenEngine({.device = "cpu"});
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->engine->device(), "cpu");
  EXPECT_EQ(opened->note, "");
}

TEST(OpenEngine, AutoFallsBackToTheCpuAndSaysSo) {
  const auto opened = OpenEngine({.device = "auto"});
  ASSERT_TRUE(opened.ok()) << opened.status();
  if (opened->engine->device() == "cpu") {
    EXPECT_EQ(opened->note, "no CUDA device: using the CPU");
  } else {
    EXPECT_EQ(opened->note, "");
  }
}

TEST(OpenEngine, UnknownDeviceTextSaysWhatIsAccepted) {
  for (const char* text : {"", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:1x",
                           "cuda: 1", "cuda:99999999999", "cudax", "cpu:0"}) {
    const auto opened = OpenEngine({.device = text});
    EXPECT_TRUE(absl::IsInvalidArgument(opened.status())) << text;
    EXPECT_THAT(std::string(opened.status().message()), HasSubstr("auto, cpu, cuda or cuda:N"));
  }
}

// No machine has a device 999, so this holds with and without CUDA.
TEST(OpenEngine, ACudaDeviceThatIsNotThereIsUnavailable) {
  const auto opened = OpenEngine({.device = "cuda:999"});
  EXPECT_TRUE(absl::IsUnavailable(opened.status())) << opened.status();
  EXPECT_THAT(std::string(opened.status().message()), StartsWith("no CUDA device"));
}

}  // namespace
}  // namespace tiny_knn
