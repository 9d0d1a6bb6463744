// What is said where the library is missing, or is another one.
#include "gpu/cublas_api.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::StartsWith;

TEST(OpenCublas, SaysWhichLibraryIsMissing) {
  const auto api = OpenCublas("libcublas.so.0");
  EXPECT_TRUE(absl::IsUnavailable(api.status())) << api.status();
  EXPECT_THAT(std::string(api.status().message()),
              StartsWith("libcublas.so.0 cannot be loaded: libcublas.so.0: cannot open shared"));
}

TEST(OpenCublas, SaysWhichFunctionIsMissing) {
  const auto api = OpenCublas("libm.so.6");
  EXPECT_TRUE(absl::IsUnavailable(api.status())) << api.status();
  EXPECT_EQ(std::string(api.status().message()), "libm.so.6 lacks the function cublasCreate_v2");
}

}  // namespace
}  // namespace tiny_knn
