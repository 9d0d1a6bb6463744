#include "core/io/direct_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "core/io/page_cache_for_test.h"
#include "core/io/unique_fd.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

class DirectReaderTest : public testing::Test {
 protected:
  // A file of `size` bytes that depend on their place, open.
  void Write(int64_t size) {
    path_ = testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name();
    bytes_.resize(static_cast<size_t>(size));
    uint32_t state = 1;
    for (char& byte : bytes_) {
      state = state * 1664525 + 1013904223;
      byte = static_cast<char>(state >> 24);
    }
    std::ofstream(path_, std::ios::binary) << bytes_;
    fd_ = UniqueFd(open(path_.c_str(), O_RDONLY));
    ASSERT_GE(fd_.get(), 0);
    reader_ = DirectReader::Open(fd_.get(), size, path_);
  }

  void ExpectBytes(int64_t begin, int64_t end) {
    const absl::Status status = reader_->Wait(begin, end);
    ASSERT_TRUE(status.ok()) << status;
    if (begin == end) return;
    ASSERT_EQ(
        std::memcmp(reader_->At(begin), bytes_.data() + begin, static_cast<size_t>(end - begin)), 0)
        << begin << " " << end;
  }

  std::string path_;
  std::string bytes_;
  UniqueFd fd_;
  std::unique_ptr<DirectReader> reader_;
};

#define SKIP_UNLESS_DIRECT() \
  if (reader_ == nullptr) GTEST_SKIP() << "NOT RUN: runs where files can be read past the cache"

TEST_F(DirectReaderTest, RangesOfAnyBordersOneAfterTheOther) {
  constexpr int64_t kSize = (13 << 20) + 777;
  Write(kSize);
  SKIP_UNLESS_DIRECT();
  const int64_t borders[] = {0, 1, 4095, 4096, 4097, 1 << 20, (8 << 20) + 5, kSize - 1, kSize};
  for (const int64_t begin : borders) {
    for (const int64_t end : borders) {
      if (begin > end) continue;
      ASSERT_TRUE(reader_->Start(begin, end).ok());
      ExpectBytes(begin, end);
    }
  }
}

TEST_F(DirectReaderTest, ThreadsWaitForTheirParts) {
  constexpr int64_t kSize = 32 << 20;
  Write(kSize);
  SKIP_UNLESS_DIRECT();
  Evict(path_);
  for (int pass = 0; pass < 3; ++pass) {
    ASSERT_TRUE(reader_->Start(100, kSize).ok());
    std::vector<std::thread> threads;
    for (int64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        constexpr int64_t kPart = 300'000;
        for (int64_t at = 100 + t * kPart; at < kSize; at += 4 * kPart) {
          ExpectBytes(at, std::min(at + kPart, kSize));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

TEST_F(DirectReaderTest, LeavesNothingInTheCache) {
  constexpr int64_t kSize = 16 << 20;
  Write(kSize);
  SKIP_UNLESS_DIRECT();
  if (!Evict(path_)) GTEST_SKIP() << "NOT RUN: runs where files are on a disk (TMPDIR)";
  ASSERT_TRUE(reader_->Start(0, kSize).ok());
  ExpectBytes(0, kSize);
  EXPECT_FALSE(IsCached(path_, kSize / 2, kSize / 2 + 4096));
}

TEST_F(DirectReaderTest, AFileThatEndsTooEarlyIsDataLoss) {
  constexpr int64_t kSize = 16 << 20;
  Write(kSize);
  SKIP_UNLESS_DIRECT();
  for (const int64_t left : {12 << 20, (8 << 20) + 1000, 5}) {
    ASSERT_EQ(truncate(path_.c_str(), left), 0);
    ASSERT_TRUE(reader_->Start(left == 5 ? 0 : 4 << 20, kSize).ok());
    const absl::Status status = reader_->Wait(kSize - 10, kSize);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_NE(std::string(status.message()).find("was truncated while it was read: it ends at"),
              std::string::npos)
        << status;
  }
}

TEST_F(DirectReaderTest, StopsInTheMiddleAndStartsAgain) {
  constexpr int64_t kSize = 32 << 20;
  Write(kSize);
  SKIP_UNLESS_DIRECT();
  Evict(path_);
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(reader_->Start(0, kSize).ok());
    if (i % 2 == 0) ExpectBytes(0, 10);
    reader_->Stop();
  }
  ASSERT_TRUE(reader_->Start(kSize / 2, kSize).ok());
  ExpectBytes(kSize / 2, kSize);
}

TEST_F(DirectReaderTest, NoSuchFileIsNone) {
  EXPECT_EQ(DirectReader::Open(-1, 1, "none"), nullptr);
  const UniqueFd proc(open("/proc/self/maps", O_RDONLY));
  EXPECT_EQ(DirectReader::Open(proc.get(), 1, "none"), nullptr);
}

}  // namespace
}  // namespace tiny_knn
