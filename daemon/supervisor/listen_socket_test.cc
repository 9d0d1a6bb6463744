#include "daemon/supervisor/listen_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "daemon/supervisor/peer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;

// Sockets have short names, which TEST_TMPDIR's is not.
class ListenSocketTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/tkXXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
    path_ = folder_ + "/run/daemon.sock";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static mode_t Mode(const std::string& path) {
    struct stat found;
    EXPECT_EQ(lstat(path.c_str(), &found), 0) << path;
    return found.st_mode & 07777;
  }
  int Connect() {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path_.c_str());
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) return fd;
    close(fd);
    return -1;
  }

  std::string folder_;
  std::string path_;
};

TEST_F(ListenSocketTest, OnlyTheOwnerMayReachIt) {
  const auto socket = ListenSocket::Open(path_);
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_EQ(Mode(folder_ + "/run"), 0700u);
  EXPECT_EQ(Mode(path_), 0600u);
  EXPECT_EQ(Mode(path_ + ".lock"), 0600u);
  const int client = Connect();
  ASSERT_GE(client, 0);
  const auto peer = PeerOf(client);
  ASSERT_TRUE(peer.ok()) << peer.status();
  EXPECT_EQ(peer->uid, geteuid());
  EXPECT_EQ(peer->gid, getegid());
  close(client);
}

TEST_F(ListenSocketTest, ASecondOneIsRefusedAndTheFirstGoesOn) {
  const auto first = ListenSocket::Open(path_);
  ASSERT_TRUE(first.ok());
  const auto second = ListenSocket::Open(path_);
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status()));
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("in use by another tiny-knnd (pid " + std::to_string(getpid())));
  EXPECT_GE(Connect(), 0);
}

TEST_F(ListenSocketTest, ASocketLeftByADeadDaemonIsReplaced) {
  const pid_t child = fork();
  if (child == 0) {
    const auto socket = ListenSocket::Open(path_);
    _exit(socket.ok() ? 0 : 1);  // no destructor: as if killed
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_EQ(status, 0);
  ASSERT_TRUE(std::filesystem::exists(path_));
  EXPECT_EQ(Connect(), -1);
  const auto socket = ListenSocket::Open(path_);
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_GE(Connect(), 0);
}

TEST_F(ListenSocketTest, WhatIsNoSocketIsNeverRemoved) {
  std::filesystem::create_directory(folder_ + "/run");
  std::filesystem::permissions(folder_ + "/run", std::filesystem::perms::owner_all);
  std::ofstream(path_) << "precious";
  const auto socket = ListenSocket::Open(path_);
  EXPECT_TRUE(absl::IsFailedPrecondition(socket.status())) << socket.status();
  EXPECT_EQ(std::filesystem::file_size(path_), 8u);
}

TEST_F(ListenSocketTest, AtItsEndItRemovesItsOwnSocketOnly) {
  {
    const auto socket = ListenSocket::Open(path_);
    ASSERT_TRUE(socket.ok());
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
  {
    const auto socket = ListenSocket::Open(path_);
    ASSERT_TRUE(socket.ok());
    std::filesystem::remove(path_);
    std::ofstream(path_) << "somebody else's";
  }
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(ListenSocketTest, AFolderThatOthersMayWriteToIsRefused) {
  ASSERT_EQ(mkdir((folder_ + "/run").c_str(), 0700), 0);
  ASSERT_EQ(chmod((folder_ + "/run").c_str(), 0777), 0);
  const auto socket = ListenSocket::Open(path_);
  EXPECT_TRUE(absl::IsFailedPrecondition(socket.status()));
  EXPECT_THAT(std::string(socket.status().message()), HasSubstr("chmod 700"));
}

TEST_F(ListenSocketTest, AGroupMayReachItAndNobodyElse) {
  // Root may give it to any group, others to one of their own.
  const gid_t group = geteuid() == 0 ? 100 : getegid();
  const auto socket = ListenSocket::Open(path_, group);
  ASSERT_TRUE(socket.ok()) << socket.status();
  struct stat found;
  ASSERT_EQ(lstat(path_.c_str(), &found), 0);
  EXPECT_EQ(found.st_gid, group);
  EXPECT_EQ(found.st_uid, geteuid());
  EXPECT_EQ(Mode(path_), 0660u);
  EXPECT_EQ(Mode(folder_ + "/run"), 0755u);
  EXPECT_EQ(Mode(path_ + ".lock"), 0600u);
}

TEST_F(ListenSocketTest, AFolderThatTheGroupCannotEnterIsRefused) {
  ASSERT_EQ(mkdir((folder_ + "/run").c_str(), 0700), 0);
  const auto socket = ListenSocket::Open(path_, getegid());
  EXPECT_TRUE(absl::IsFailedPrecondition(socket.status()));
  EXPECT_THAT(std::string(socket.status().message()), HasSubstr("chmod 755"));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

// A socket at `path` that listens without the lock, as a service manager's does.
UniqueFd ListeningAt(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, path.c_str());
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(listen(fd.get(), 8), 0);
  return fd;
}

TEST_F(ListenSocketTest, OneThatAServiceManagerListensOnIsNotDisplaced) {
  ASSERT_EQ(mkdir((folder_ + "/run").c_str(), 0700), 0);
  {
    const UniqueFd managers = ListeningAt(path_);
    const auto socket = ListenSocket::Open(path_);
    EXPECT_TRUE(absl::IsFailedPrecondition(socket.status()));
    EXPECT_THAT(std::string(socket.status().message()), HasSubstr("systemctl stop"));
    EXPECT_GE(Connect(), 0);
  }
  EXPECT_TRUE(ListenSocket::Open(path_).ok()) << "nobody listens any more";
}

TEST_F(ListenSocketTest, AnAdoptedOneKeepsItsFileAndModeAndHoldsTheLock) {
  ASSERT_EQ(mkdir((folder_ + "/run").c_str(), 0700), 0);
  UniqueFd managers = ListeningAt(path_);
  ASSERT_EQ(chmod(path_.c_str(), 0640), 0);
  {
    const auto socket = ListenSocket::Adopt(UniqueFd(dup(managers.get())), path_);
    ASSERT_TRUE(socket.ok()) << socket.status();
    const auto second = ListenSocket::Adopt(UniqueFd(dup(managers.get())), path_);
    EXPECT_THAT(std::string(second.status().message()), HasSubstr("in use by another tiny-knnd"));
  }
  EXPECT_EQ(Mode(path_), 0640u);
  EXPECT_GE(Connect(), 0);
}

TEST_F(ListenSocketTest, PathsThatCannotBeSocketsAreRefused) {
  for (const std::string& path : {std::string("relative.sock"), folder_ + std::string(100, 'x')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ListenSocket::Open(path).status())) << path;
  }
}

TEST_F(ListenSocketTest, ALockFileThatIsALinkIsNotFollowed) {
  const std::string lock = folder_ + "/lock";
  std::filesystem::create_symlink(folder_ + "/elsewhere", lock);
  EXPECT_FALSE(FileLock::Take(lock, "it").ok());
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/elsewhere"));
}

}  // namespace
}  // namespace tiny_knn
