#include "core/io/atomic_file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "core/io/unprivileged_for_test.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

namespace fs = std::filesystem;

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class AtomicFileTest : public testing::Test {
 protected:
  AtomicFileTest() {
    folder_ = testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directory(folder_);
    path_ = folder_ + "/out.pkl";
  }

  // Names in the folder.
  std::set<std::string> Names() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }

  std::string folder_;
  std::string path_;
};

TEST_F(AtomicFileTest, AppearsWholeAtCommit) {
  auto file = AtomicFile::Create(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->target_path(), path_);
  ASSERT_TRUE((*file)->WriteAt(6, Bytes("world")).ok());
  ASSERT_TRUE((*file)->WriteAt(0, Bytes("hello ")).ok());
  EXPECT_FALSE(fs::exists(path_));
  const std::set<std::string> names = Names();
  ASSERT_EQ(names.size(), 1u);
  EXPECT_TRUE(names.begin()->starts_with(fmt::format(".out.pkl.{}.", getpid()))) << *names.begin();
  EXPECT_TRUE(names.begin()->ends_with(".tmp"));
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_EQ(ReadAll(path_), "hello world");
  file->reset();
  EXPECT_EQ(Names(), std::set<std::string>{"out.pkl"});
}

TEST_F(AtomicFileTest, LeavesNothingWithoutCommit) {
  std::ofstream(path_) << "old";
  {
    auto file = AtomicFile::Create(path_);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE((*file)->Reserve(1 << 20).ok());
    ASSERT_TRUE((*file)->WriteAt(0, Bytes("new")).ok());
    EXPECT_EQ(Names().size(), 2u);
  }
  EXPECT_EQ(Names(), std::set<std::string>{"out.pkl"});
  EXPECT_EQ(ReadAll(path_), "old");
}

TEST_F(AtomicFileTest, ReplacesWhatWasThere) {
  std::ofstream(path_) << "something old and longer";
  auto file = AtomicFile::Create(path_);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->WriteAt(0, Bytes("new")).ok());
  EXPECT_EQ(ReadAll(path_), "something old and longer");
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_EQ(ReadAll(path_), "new");
}

TEST_F(AtomicFileTest, TwoWritersOfOneTargetDoNotMeet) {
  auto first = AtomicFile::Create(path_);
  auto second = AtomicFile::Create(path_);
  ASSERT_TRUE(first.ok() && second.ok());
  ASSERT_TRUE((*first)->WriteAt(0, Bytes("first")).ok());
  ASSERT_TRUE((*second)->WriteAt(0, Bytes("second")).ok());
  ASSERT_TRUE((*second)->Commit().ok());
  ASSERT_TRUE((*first)->Commit().ok());
  EXPECT_EQ(ReadAll(path_), "first");
}

TEST_F(AtomicFileTest, ModeIsWhatTheUmaskLeaves) {
  const mode_t old = umask(027);
  auto file = AtomicFile::Create(path_);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->Commit().ok());
  umask(old);
  struct stat status;
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640u);
}

TEST_F(AtomicFileTest, LinkStaysAndTheFileItNamesIsReplaced) {
  fs::create_directory(folder_ + "/elsewhere");
  std::ofstream(folder_ + "/elsewhere/real.pkl") << "old";
  fs::create_symlink("elsewhere/real.pkl", path_);
  fs::create_symlink("out.pkl", folder_ + "/link_to_link");
  auto file = AtomicFile::Create(folder_ + "/link_to_link");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->WriteAt(0, Bytes("new")).ok());
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_TRUE(fs::is_symlink(path_));
  EXPECT_TRUE(fs::is_symlink(folder_ + "/link_to_link"));
  EXPECT_EQ(ReadAll(folder_ + "/elsewhere/real.pkl"), "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ + "/elsewhere"), {}), 1);
}

TEST_F(AtomicFileTest, LinkToNothingYetIsFollowed) {
  fs::create_symlink("later.pkl", path_);
  auto file = AtomicFile::Create(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_TRUE(fs::is_symlink(path_));
  EXPECT_TRUE(fs::is_regular_file(folder_ + "/later.pkl"));
}

TEST_F(AtomicFileTest, LinkToItselfIsRefused) {
  fs::create_symlink("out.pkl", path_);
  const absl::Status status = AtomicFile::Create(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Names().size(), 1u);
}

TEST_F(AtomicFileTest, FolderIsHeldWhileItIsRenamed) {
  fs::create_directory(folder_ + "/a");
  auto file = AtomicFile::Create(folder_ + "/a/out.pkl");
  ASSERT_TRUE(file.ok());
  fs::rename(folder_ + "/a", folder_ + "/b");
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_TRUE(fs::exists(folder_ + "/b/out.pkl"));
}

TEST_F(AtomicFileTest, LongestNamesWork) {
  const std::string path = folder_ + "/" + std::string(255, 'n');
  auto file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_TRUE(fs::exists(path));
}

TEST_F(AtomicFileTest, TargetsThatCannotBeFilesAreRefused) {
  const auto refused = [](const std::string& path) {
    const absl::Status status = AtomicFile::Create(path).status();
    return std::pair(status.code(), std::string(status.message()));
  };
  using Refusal = std::pair<absl::StatusCode, std::string>;
  EXPECT_EQ(refused(folder_), Refusal(absl::StatusCode::kInvalidArgument,
                                      folder_ + ": is a directory; expected a file name to write "
                                                "to"));
  EXPECT_EQ(refused(folder_ + "/none/out.pkl"),
            Refusal(absl::StatusCode::kNotFound,
                    fmt::format("{0}/none/out.pkl: cannot write into folder '{0}/none': No such "
                                "file or directory",
                                folder_)));
  EXPECT_EQ(refused("").first, absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused(folder_ + "/").first, absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused(folder_ + "/..").first, absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused("/dev/null"),
            Refusal(absl::StatusCode::kInvalidArgument,
                    "/dev/null: is a device, FIFO or socket; expected a file name to write to"));
  std::ofstream(folder_ + "/file") << "";
  EXPECT_EQ(refused(folder_ + "/file/out.pkl").first, absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Names(), std::set<std::string>{"file"}) << "nothing left behind";
}

TEST_F(AtomicFileTest, FolderWithoutPermissionIsPermissionDenied) {
  const ScopedUnprivileged unprivileged;
  fs::permissions(folder_, fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_EQ(AtomicFile::Create(path_).status().code(), absl::StatusCode::kPermissionDenied);
  fs::permissions(folder_, fs::perms::owner_all);
}

// A limit on file sizes stands in for a full disk: any user can set one.
TEST_F(AtomicFileTest, NoRoomIsResourceExhaustedAndLeavesNothing) {
  signal(SIGXFSZ, SIG_IGN);
  rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small = {1 << 16, old.rlim_max};
  {
    auto file = AtomicFile::Create(path_);
    ASSERT_TRUE(file.ok());
    setrlimit(RLIMIT_FSIZE, &small);
    const absl::Status reserve = (*file)->Reserve(1 << 20);
    const absl::Status write = (*file)->WriteAt(1 << 20, Bytes("x"));
    const absl::Status partial = (*file)->WriteAt(0, Bytes(std::string(1 << 17, 'x')));
    setrlimit(RLIMIT_FSIZE, &old);
    EXPECT_EQ(reserve.code(), absl::StatusCode::kResourceExhausted) << reserve;
    EXPECT_EQ(std::string(reserve.message()),
              path_ + ": cannot reserve 1048576 bytes for the result: File too large");
    EXPECT_EQ(write.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(partial.code(), absl::StatusCode::kResourceExhausted) << "after a short write";
  }
  EXPECT_TRUE(Names().empty());
}

TEST_F(AtomicFileTest, ReserveOfNothingIsFine) {
  auto file = AtomicFile::Create(path_);
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE((*file)->Reserve(0).ok());
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_EQ(ReadAll(path_), "");
}

TEST_F(AtomicFileTest, NothingGoesAfterCommit) {
  auto file = AtomicFile::Create(path_);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_EQ((*file)->Commit().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ((*file)->WriteAt(0, Bytes("x")).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(AtomicFileTest, TagNamesTheTemporaryFile) {
  auto file = AtomicFile::Create(path_, {"job7-1"});
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(Names(), std::set<std::string>{".out.pkl.job7-1.tmp"});
  ASSERT_TRUE((*file)->WriteAt(0, Bytes("new")).ok());
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_EQ(Names(), std::set<std::string>{"out.pkl"});
  EXPECT_EQ(ReadAll(path_), "new");
}

TEST_F(AtomicFileTest, ATagInUseIsNotSharedAndNotRemoved) {
  auto first = AtomicFile::Create(path_, {"tag"});
  ASSERT_TRUE(first.ok());
  const absl::Status second = AtomicFile::Create(path_, {"tag"}).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kInternal) << second;
  EXPECT_EQ(Names().size(), 1u) << "the first one's file is still there";
  ASSERT_TRUE((*first)->Commit().ok());
}

TEST_F(AtomicFileTest, TagsThatCouldLeaveTheFolderAreRefused) {
  for (const std::string& tag : {std::string("../x"), std::string("a/b"), std::string("a.b"),
                                 std::string(101, 'a'), std::string("a b"), std::string(1, '\0')}) {
    EXPECT_EQ(AtomicFile::Create(path_, {tag}).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(AtomicFile::RemoveLeftover(path_, tag).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(AtomicFile::RemoveLeftover(path_, "").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Names().empty());
}

// Leaves what a process that was killed between Create and Commit leaves.
void CreateAndDie(const std::string& path, const std::string& tag) {
  const pid_t child = fork();
  if (child == 0) {
    auto file = AtomicFile::Create(path, {tag});
    _exit(file.ok() && (*file)->WriteAt(0, Bytes("half")).ok() ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
}

TEST_F(AtomicFileTest, LeftoverOfAKilledProcessIsRemoved) {
  std::ofstream(path_) << "old";
  CreateAndDie(path_, "job7-1");
  CreateAndDie(path_, "job8-1");
  EXPECT_EQ(Names(),
            (std::set<std::string>{".out.pkl.job7-1.tmp", ".out.pkl.job8-1.tmp", "out.pkl"}));
  EXPECT_TRUE(AtomicFile::RemoveLeftover(path_, "job7-1").ok());
  EXPECT_EQ(Names(), (std::set<std::string>{".out.pkl.job8-1.tmp", "out.pkl"}));
  EXPECT_TRUE(AtomicFile::RemoveLeftover(path_, "job7-1").ok()) << "there is none any more";
  EXPECT_EQ(ReadAll(path_), "old");
}

TEST_F(AtomicFileTest, LeftoverOfALongNameIsFound) {
  const std::string path = folder_ + "/" + std::string(255, 'n');
  const std::string tag(100, 't');
  CreateAndDie(path, tag);
  ASSERT_EQ(Names().size(), 1u);
  EXPECT_EQ(Names().begin()->size(), 255u);
  EXPECT_TRUE(AtomicFile::RemoveLeftover(path, tag).ok());
  EXPECT_TRUE(Names().empty());
  auto file = AtomicFile::Create(path, {tag});
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_TRUE(fs::exists(path));
}

TEST_F(AtomicFileTest, LeftoverBesideTheFileThatALinkNamesIsRemoved) {
  fs::create_directory(folder_ + "/elsewhere");
  fs::create_symlink("elsewhere/real.pkl", path_);
  CreateAndDie(path_, "tag");
  ASSERT_TRUE(fs::exists(folder_ + "/elsewhere/.real.pkl.tag.tmp"));
  EXPECT_TRUE(AtomicFile::RemoveLeftover(path_, "tag").ok());
  EXPECT_TRUE(fs::is_empty(folder_ + "/elsewhere"));
  EXPECT_TRUE(fs::is_symlink(path_));
}

TEST_F(AtomicFileTest, WhatOnlyHasTheNameOfALeftoverIsLeftAlone) {
  fs::create_directory(folder_ + "/.out.pkl.folder.tmp");
  std::ofstream(folder_ + "/precious") << "kept";
  fs::create_symlink("precious", folder_ + "/.out.pkl.link.tmp");
  ASSERT_EQ(mkfifo((folder_ + "/.out.pkl.fifo.tmp").c_str(), 0600), 0);
  const std::set<std::string> before = Names();
  for (const char* tag : {"folder", "link", "fifo"}) {
    EXPECT_TRUE(AtomicFile::RemoveLeftover(path_, tag).ok()) << tag;
  }
  EXPECT_EQ(Names(), before);
  EXPECT_EQ(ReadAll(folder_ + "/precious"), "kept");
}

TEST_F(AtomicFileTest, SomebodyElsesFileIsLeftAlone) {
  const std::string name = folder_ + "/.out.pkl.tag.tmp";
  std::ofstream(name) << "theirs";
  constexpr uid_t kSomebody = 12345;
  if (chown(name.c_str(), kSomebody, static_cast<gid_t>(-1)) != 0) {
    GTEST_SKIP() << "NOT RUN: runs as root, who can give a file away";
  }
  EXPECT_TRUE(AtomicFile::RemoveLeftover(path_, "tag").ok());
  EXPECT_EQ(ReadAll(name), "theirs");
}

TEST_F(AtomicFileTest, NoFolderMeansNoLeftover) {
  EXPECT_TRUE(AtomicFile::RemoveLeftover(folder_ + "/none/out.pkl", "tag").ok());
}

}  // namespace
}  // namespace tiny_knn
