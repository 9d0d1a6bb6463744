#include "core/io/mapped_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

constexpr int64_t kPage = 4096;

// An open file of `pages` pages of 'x', without a name.
int FileOfPages(int64_t pages) {
  const int fd = open(testing::TempDir().c_str(), O_TMPFILE | O_RDWR, 0666);
  EXPECT_GE(fd, 0);
  const std::string text(static_cast<size_t>(pages * kPage), 'x');
  EXPECT_EQ(write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  return fd;
}

TEST(MappedFileTest, LostPagesReadAsZerosAndAreReported) {
  const int fd = FileOfPages(10);
  auto file = MappedFile::Map(fd, 10 * kPage, "f");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->bytes()[9 * kPage], std::byte{'x'});
  EXPECT_FALSE((*file)->damaged());
  ASSERT_EQ(ftruncate(fd, 3 * kPage), 0);
  EXPECT_EQ((*file)->bytes()[2 * kPage], std::byte{'x'});
  EXPECT_FALSE((*file)->damaged());
  EXPECT_EQ((*file)->bytes()[5 * kPage + 17], std::byte{0});
  EXPECT_TRUE((*file)->damaged());
  EXPECT_EQ((*file)->bytes()[10 * kPage - 1], std::byte{0});
  EXPECT_EQ((*file)->bytes()[4 * kPage], std::byte{0});
  EXPECT_EQ((*file)->bytes()[2 * kPage], std::byte{'x'}) << "pages that are there stay";
  close(fd);
}

TEST(MappedFileTest, OnlyTheMappingThatLostPagesIsDamaged) {
  const int whole_fd = FileOfPages(2);
  const int cut_fd = FileOfPages(2);
  auto whole = MappedFile::Map(whole_fd, 2 * kPage, "whole");
  auto cut = MappedFile::Map(cut_fd, 2 * kPage, "cut");
  ASSERT_TRUE(whole.ok() && cut.ok());
  ASSERT_EQ(ftruncate(cut_fd, 0), 0);
  EXPECT_EQ((*cut)->bytes()[0], std::byte{0});
  EXPECT_EQ((*whole)->bytes()[0], std::byte{'x'});
  EXPECT_TRUE((*cut)->damaged());
  EXPECT_FALSE((*whole)->damaged());
  cut->reset();
  auto again = MappedFile::Map(whole_fd, 2 * kPage, "again");  // takes the slot of `cut`
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE((*again)->damaged());
  close(whole_fd);
  close(cut_fd);
}

TEST(MappedFileTest, ManyThreadsMayFaultAtOnce) {
  for (int repeat = 0; repeat < 20; ++repeat) {
    const int fd = FileOfPages(64);
    auto file = MappedFile::Map(fd, 64 * kPage, "f");
    ASSERT_TRUE(file.ok());
    ASSERT_EQ(ftruncate(fd, 0), 0);
    std::vector<std::thread> threads;
    threads.reserve(4);
    std::vector<int> sums(4);
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&file, &sums, t] {
        for (int64_t page = 63; page >= 0; --page) {
          sums[t] += static_cast<int>((*file)->bytes()[static_cast<size_t>(page * kPage)]);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(sums, std::vector<int>(4, 0));
    EXPECT_TRUE((*file)->damaged());
    close(fd);
  }
}

TEST(MappedFileTest, MoreThanTheMostIsRefusedAndFreedSlotsAreUsedAgain) {
  const int fd = FileOfPages(1);
  for (int repeat = 0; repeat < 2; ++repeat) {
    std::vector<std::unique_ptr<MappedFile>> files;
    for (int i = 0; i < kMaxMappedFiles; ++i) {
      auto file = MappedFile::Map(fd, kPage, "f");
      ASSERT_TRUE(file.ok()) << i << file.status();
      files.push_back(*std::move(file));
    }
    const auto status = MappedFile::Map(fd, kPage, "name").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(std::string(status.message()), "name: cannot map: 256 files are mapped already");
  }
  close(fd);
}

TEST(MappedFileTest, ErrorsNameThePath) {
  const auto status = MappedFile::Map(-1, kPage, "name").status();
  EXPECT_FALSE(status.ok());
  EXPECT_TRUE(std::string(status.message()).starts_with("name: cannot map: "));
}

// A fault outside our mappings.
[[noreturn]] void FaultElsewhere() {
  const int fd = FileOfPages(1);
  auto* data = static_cast<volatile char*>(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, fd, 0));
  if (ftruncate(fd, 0) != 0) _exit(3);
  static_cast<void>(data[0]);
  _exit(4);
}

void MapSomething() {
  const int fd = FileOfPages(1);
  static auto keep = MappedFile::Map(fd, kPage, "f");
  if (!keep.ok()) _exit(2);
}

using MappedFileDeathTest = testing::Test;

TEST(MappedFileDeathTest, FaultElsewhereStillEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        signal(SIGBUS, SIG_DFL);  // not a sanitizer's handler
        MapSomething();
        FaultElsewhere();
      },
      testing::KilledBySignal(SIGBUS), "");
}

TEST(MappedFileDeathTest, SignalSentByAProcessStillEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        signal(SIGBUS, SIG_DFL);
        MapSomething();
        kill(getpid(), SIGBUS);
        pause();
      },
      testing::KilledBySignal(SIGBUS), "");
}

TEST(MappedFileDeathTest, FaultElsewhereReachesTheHandlerThatWasThereBefore) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        struct sigaction action = {};
        action.sa_flags = SA_SIGINFO;
        action.sa_sigaction = [](int, siginfo_t*, void*) { _exit(42); };
        sigaction(SIGBUS, &action, nullptr);
        MapSomething();
        FaultElsewhere();
      },
      testing::ExitedWithCode(42), "");
  EXPECT_EXIT(
      {
        signal(SIGBUS, [](int) { _exit(43); });
        MapSomething();
        FaultElsewhere();
      },
      testing::ExitedWithCode(43), "");
}

}  // namespace
}  // namespace tiny_knn
