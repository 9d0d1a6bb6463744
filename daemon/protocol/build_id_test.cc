#include "daemon/protocol/build_id.h"

#include <string>

#include "core/job/version.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

TEST(BuildId, IsTheVersionAndTwelveHexadecimalDigits) {
  const std::string start = std::string(kTinyKnnVersion) + "+";
  ASSERT_EQ(kBuildId.substr(0, start.size()), start);
  const std::string_view digest = kBuildId.substr(start.size());
  EXPECT_EQ(digest.size(), 12U);
  EXPECT_EQ(digest.find_first_not_of("0123456789abcdef"), std::string_view::npos) << kBuildId;
}

}  // namespace
}  // namespace tiny_knn
