#include "daemon/protocol/status_code_name.h"

#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

TEST(StatusCodeName, EveryCodeComesBackFromItsName) {
  for (int i = 0; i <= 16; ++i) {
    const auto code = static_cast<absl::StatusCode>(i);
    EXPECT_EQ(ParseStatusCode(StatusCodeName(code)), code) << StatusCodeName(code);
  }
  EXPECT_EQ(StatusCodeName(absl::StatusCode::kInvalidArgument), "invalid_argument");
  EXPECT_EQ(StatusCodeName(static_cast<absl::StatusCode>(99)), "unknown");
  EXPECT_EQ(ParseStatusCode("INVALID_ARGUMENT"), std::nullopt);
  EXPECT_EQ(ParseStatusCode(""), std::nullopt);
}

}  // namespace
}  // namespace tiny_knn
