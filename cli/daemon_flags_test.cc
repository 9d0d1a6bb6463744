#include "cli/daemon_flags.h"

#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// A system with two groups, the second with a number for a name.
const DaemonSurroundings kRoot = {.is_root = true, .find_group = [](const std::string& name) {
                                    if (name == "users") return std::optional<gid_t>(100);
                                    if (name == "77") return std::optional<gid_t>(1077);
                                    return std::optional<gid_t>();
                                  }};
// The same after tools/install --system.
const DaemonSurroundings kInstalled = {.is_root = true, .find_group = [](const std::string& name) {
                                         if (name == "tiny-knn") return std::optional<gid_t>(990);
                                         if (name == "tiny-knn-admin") {
                                           return std::optional<gid_t>(991);
                                         }
                                         return kRoot.find_group(name);
                                       }};

std::vector<std::string> Arguments(const std::vector<std::string>& args,
                                   const DaemonSurroundings& surroundings = {}) {
  const auto start = ParseDaemonFlags(args, "/here", surroundings);
  EXPECT_TRUE(start.ok()) << start.status();
  return start.ok() ? start->arguments : std::vector<std::string>();
}

std::string Error(const std::vector<std::string>& args,
                  const DaemonSurroundings& surroundings = {}) {
  const auto start = ParseDaemonFlags(args, "/here", surroundings);
  EXPECT_TRUE(absl::IsInvalidArgument(start.status())) << start.status();
  return std::string(start.status().message());
}

TEST(DaemonFlagsTest, GroupsBecomeNumbersAndNamesComeFirst) {
  EXPECT_THAT(Arguments({"--group", "users", "--admin-group", "50"}, kRoot),
              ElementsAre("--group", "100", "--admin-group", "50"));
  EXPECT_THAT(Arguments({"--group", "77"}, kRoot), ElementsAre("--group", "1077"));
  EXPECT_THAT(Arguments({"--group", "4294967294"}, kRoot), ElementsAre("--group", "4294967294"));
}

TEST(DaemonFlagsTest, RootServesTheInstalledGroupsUnlessToldOtherwise) {
  EXPECT_THAT(Arguments({}, kInstalled), ElementsAre("--group", "990", "--admin-group", "991"));
  EXPECT_THAT(Arguments({"--group=users"}, kInstalled),
              ElementsAre("--group", "100", "--admin-group", "991"));
  EXPECT_THAT(Arguments({}, kRoot), IsEmpty());
  EXPECT_THAT(Arguments({}), IsEmpty());
}

TEST(DaemonFlagsTest, AGroupThatIsNotThereIsAnErrorThatSaysHowToMakeIt) {
  EXPECT_THAT(Error({"--group", "knn"}, kRoot), HasSubstr("groupadd --system knn"));
  for (const char* wrong : {"", "-1", "4294967295", "1x"}) {
    EXPECT_THAT(Error({std::string("--admin-group=") + wrong}, kRoot), HasSubstr("--admin-group"))
        << wrong;
  }
}

TEST(DaemonFlagsTest, OnlyRootServesGroups) {
  EXPECT_THAT(Error({"--group", "100"}), HasSubstr("--group is for a daemon of root"));
  EXPECT_THAT(Error({"--admin-group", "100"}), HasSubstr("--admin-group is for a daemon of root"));
}

TEST(DaemonFlagsTest, LimitsOfTimeAndWarmMemoryAreChecked) {
  EXPECT_THAT(Arguments({"--max-time", "2h", "--max-warm-memory", "1.5G"}),
              ElementsAre("--max-warm-memory", "1610612736", "--max-time", "7200"));
  EXPECT_THAT(Error({"--max-time", "0"}), HasSubstr("--max-time expects at least 1s"));
  EXPECT_THAT(Error({"--max-time", "long"}), HasSubstr("--max-time expects a duration"));
  EXPECT_THAT(Error({"--max-warm-memory", "0"}), HasSubstr("--max-warm-memory expects a size"));
}

}  // namespace
}  // namespace tiny_knn
