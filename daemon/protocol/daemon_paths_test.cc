#include "daemon/protocol/daemon_paths.h"

#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Environment Variables(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
}

std::string Socket(bool is_root, std::map<std::string, std::string> variables) {
  const auto path = DefaultSocketPath(is_root, Variables(std::move(variables)));
  return path.ok() ? *path : std::string(path.status().message());
}

std::string State(bool is_root, std::map<std::string, std::string> variables) {
  const auto path = DefaultStateFolder(is_root, Variables(std::move(variables)));
  return path.ok() ? *path : std::string(path.status().message());
}

TEST(DefaultSocketPath, IsTheFirstThatIsSet) {
  EXPECT_EQ(Socket(false, {{"TINY_KNN_SOCKET", "/a/b"}, {"XDG_RUNTIME_DIR", "/run/user/5"}}),
            "/a/b");
  EXPECT_EQ(Socket(true, {{"TINY_KNN_SOCKET", "/a/b"}}), "/a/b");
  EXPECT_EQ(Socket(true, {{"XDG_RUNTIME_DIR", "/run/user/0"}, {"HOME", "/root"}}),
            "/run/tiny-knn/daemon.sock");
  EXPECT_EQ(Socket(false, {{"XDG_RUNTIME_DIR", "/run/user/5"}, {"HOME", "/home/bea"}}),
            "/run/user/5/tiny-knn/daemon.sock");
  EXPECT_EQ(Socket(false, {{"XDG_STATE_HOME", "/s"}, {"HOME", "/home/bea"}}),
            "/s/tiny-knn/daemon.sock");
  EXPECT_EQ(Socket(false, {{"HOME", "/home/bea"}}), "/home/bea/.local/state/tiny-knn/daemon.sock");
}

TEST(DefaultSocketPath, EmptyAndRelativeValuesDoNotCount) {
  EXPECT_EQ(Socket(false, {{"TINY_KNN_SOCKET", ""},
                           {"XDG_RUNTIME_DIR", "run"},
                           {"XDG_STATE_HOME", ""},
                           {"HOME", "/home/bea/"}}),
            "/home/bea/.local/state/tiny-knn/daemon.sock");
  EXPECT_EQ(Socket(false, {{"HOME", "/"}}), "/.local/state/tiny-knn/daemon.sock");
}

TEST(DefaultSocketPath, SaysWhatToDoWhenThereIsNone) {
  EXPECT_THAT(Socket(false, {}), HasSubstr("choose one with --socket or $TINY_KNN_SOCKET"));
  EXPECT_EQ(DefaultSocketPath(false, Variables({})).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Socket(false, {{"TINY_KNN_SOCKET", "a.sock"}}), HasSubstr("has to be absolute"));
}

TEST(DefaultStateFolder, IsTheFirstThatIsSet) {
  EXPECT_EQ(State(true, {{"XDG_STATE_HOME", "/s"}, {"HOME", "/root"}}), "/var/lib/tiny-knn");
  EXPECT_EQ(State(false, {{"XDG_STATE_HOME", "/s"}, {"HOME", "/home/bea"}}), "/s/tiny-knn");
  EXPECT_EQ(State(false, {{"XDG_STATE_HOME", "s"}, {"HOME", "/home/bea"}}),
            "/home/bea/.local/state/tiny-knn");
  EXPECT_EQ(DefaultStateFolder(false, Variables({{"HOME", ""}})).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(SocketsToTry, AreTheUsersOwnThenTheSystems) {
  EXPECT_THAT(SocketsToTry(false, Variables({{"XDG_RUNTIME_DIR", "/run/user/5"}})),
              ElementsAre("/run/user/5/tiny-knn/daemon.sock", "/run/tiny-knn/daemon.sock"));
  EXPECT_THAT(SocketsToTry(true, Variables({})), ElementsAre("/run/tiny-knn/daemon.sock"));
  EXPECT_THAT(SocketsToTry(false, Variables({})), ElementsAre("/run/tiny-knn/daemon.sock"));
}

TEST(SocketsToTry, OneThatIsNamedIsTheOnlyOne) {
  EXPECT_THAT(SocketsToTry(false, Variables({{"TINY_KNN_SOCKET", "/a"}, {"HOME", "/home/bea"}})),
              ElementsAre("/a"));
}

TEST(CheckSocketPath, KnowsTheKernelsLimit) {
  EXPECT_TRUE(CheckSocketPath("/" + std::string(106, 'x')).ok());
  const absl::Status status = CheckSocketPath("/" + std::string(107, 'x'));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("has 108 bytes, a socket's may have 107"));
  EXPECT_FALSE(CheckSocketPath("").ok());
  EXPECT_FALSE(CheckSocketPath("a/b").ok());
  EXPECT_FALSE(CheckSocketPath(std::string("/a\0b", 4)).ok());
}

}  // namespace
}  // namespace tiny_knn
