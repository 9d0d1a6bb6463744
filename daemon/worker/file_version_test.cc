#include "daemon/worker/file_version.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kSecond = 1'000'000'000;

std::string TestPath() {
  const std::string path =
      testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name();
  fs::remove_all(path);
  return path;
}

TEST(FileVersion, IsWhatStatSays) {
  const std::string path = TestPath();
  std::ofstream(path) << "12345";
  const timespec times[2] = {{1, 0}, {1234567890, 987654321}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  struct stat found;
  ASSERT_EQ(stat(path.c_str(), &found), 0);
  const std::optional<FileVersion> version = StatFileVersion(path);
  ASSERT_TRUE(version.has_value());
  EXPECT_EQ(version->device, found.st_dev);
  EXPECT_EQ(version->inode, found.st_ino);
  EXPECT_EQ(version->size, 5);
  EXPECT_EQ(version->mtime_ns, 1234567890987654321);
  EXPECT_EQ(version->ctime_ns, found.st_ctim.tv_sec * kSecond + found.st_ctim.tv_nsec);
}

TEST(FileVersion, AnotherFileOfThatNameIsAnotherVersion) {
  const std::string path = TestPath();
  std::ofstream(path) << "12345";
  const std::optional<FileVersion> before = StatFileVersion(path);
  EXPECT_EQ(StatFileVersion(path), before);
  std::ofstream(path + ".new") << "12345";
  fs::last_write_time(path + ".new", fs::last_write_time(path));
  ASSERT_EQ(std::rename((path + ".new").c_str(), path.c_str()), 0);
  EXPECT_NE(StatFileVersion(path), before);
}

TEST(FileVersion, OnlyRegularFilesHaveOne) {
  const std::string path = TestPath();
  EXPECT_FALSE(StatFileVersion(path).has_value());
  EXPECT_FALSE(StatFileVersion("").has_value());
  EXPECT_FALSE(StatFileVersion("/dev/null").has_value());
  EXPECT_FALSE(StatFileVersion(testing::TempDir()).has_value());
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_FALSE(StatFileVersion(path).has_value()) << "and it did not wait for a writer";
}

TEST(FileVersion, SyncChangesNothing) {
  const std::string path = "/proc/self/status";  // sync: EINVAL, as on what is read-only
  EXPECT_TRUE(SyncFileVersion(path).ok());
  const std::string written = TestPath();
  std::ofstream(written) << "12345";
  const std::optional<FileVersion> before = StatFileVersion(written);
  const absl::StatusOr<FileVersion> synced = SyncFileVersion(written);
  if (synced.status().code() == absl::StatusCode::kFailedPrecondition) {
    GTEST_SKIP() << "NOT RUN: runs where TEST_TMPDIR is on a disk, not in memory";
  }
  ASSERT_TRUE(synced.ok()) << synced.status();
  EXPECT_EQ(*synced, before);
  EXPECT_FALSE(SyncFileVersion(written + ".none").ok());
  EXPECT_FALSE(SyncFileVersion(testing::TempDir()).ok());
  EXPECT_FALSE(SyncFileVersion("/dev/null").ok());
}

TEST(FileVersion, NoneIsTrustedOfAFileInMemory) {
  const int file = memfd_create("version", MFD_CLOEXEC);  // on the kernel's own tmpfs
  ASSERT_GE(file, 0);
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  EXPECT_TRUE(StatFileVersion(path).has_value());
  const absl::Status status = SyncFileVersion(path).status();
  close(file);
  EXPECT_EQ(status,
            absl::FailedPreconditionError("kept in memory only from a file system with a disk"));
}

TEST(FileVersion, IsSettledTwoSecondsAfterEveryStamp) {
  const int64_t now = 1000 * kSecond;
  FileVersion version{.device = 1, .inode = 1, .size = 1, .mtime_ns = 0, .ctime_ns = 0};
  EXPECT_TRUE(IsSettled(version, now));
  version.ctime_ns = now - 2 * kSecond;
  EXPECT_TRUE(IsSettled(version, now));
  ++version.ctime_ns;
  EXPECT_FALSE(IsSettled(version, now));
  version.ctime_ns = 0;
  version.mtime_ns = now - 2 * kSecond + 1;
  EXPECT_FALSE(IsSettled(version, now));
  version.mtime_ns = now + 3600 * kSecond;
  EXPECT_FALSE(IsSettled(version, now)) << "from the future";
}

TEST(FileVersion, TheClockIsThatOfFiles) {
  const std::string path = TestPath();
  const int64_t before = WallClockNs();
  std::ofstream(path) << "1";
  const std::optional<FileVersion> version = StatFileVersion(path);
  ASSERT_TRUE(version.has_value());
  EXPECT_GT(version->ctime_ns, before - kSecond);
  EXPECT_LE(version->ctime_ns, WallClockNs());
}

}  // namespace
}  // namespace tiny_knn
