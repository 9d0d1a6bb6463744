// Rows that are fetched: of every layout, ahead of the reader, and past the page cache.
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "core/io/numbered_npy_for_test.h"
#include "core/io/page_cache_for_test.h"
#include "core/io/row_source.h"
#include "core/matrix/dtype.h"
#include "core/matrix/matrix_view.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

// Rows of a selection as `source` fetches them into memory that need not be aligned.
void ExpectFetched(RowSource& source, const RowSelection& rows) {
  std::vector<std::byte> memory(static_cast<size_t>(rows.count * source.dim() * 4));
  const absl::Status status = source.Fetch(rows, memory.data());
  ASSERT_TRUE(status.ok()) << status;
  for (int64_t i = 0; i < rows.count; ++i) {
    for (int64_t j = 0; j < source.dim(); ++j) {
      int32_t value;
      std::memcpy(&value, memory.data() + (i * source.dim() + j) * 4, 4);
      ASSERT_EQ(value, Value(rows.begin + i * rows.step, j)) << i << " " << j;
    }
  }
}

TEST(RowFetchTest, FetchedRowsAreThoseOfTheViewInEveryLayout) {
  for (const Layout& layout : {Layout{}, Layout{.big_endian = true}, Layout{.header_padding = 1},
                               Layout{.fortran = true}}) {
    SCOPED_TRACE(fmt::format("fortran={} big={} padding={}", layout.fortran, layout.big_endian,
                             layout.header_padding));
    const std::string path = TestPath("m.npy");
    WriteFile(path, NpyBytes(1000, 17, layout));
    const auto source = OpenNpyRowSource(path, std::nullopt);
    ASSERT_TRUE(source.ok()) << source.status();
    const auto views = (*source)->StartRows(200, 900);
    ASSERT_TRUE(views.ok()) << views.status();
    ASSERT_EQ(views->size(), 1u);
    const MatrixView& view = views->front();
    ASSERT_EQ((*source)->needs_fetch(), !layout.fortran);
    if ((*source)->needs_fetch()) {
      ExpectFetched(**source, {201, 7, 100});
      ExpectFetched(**source, {500, 400});
      ExpectFetched(**source, {200, 300});
    }
    for (int64_t i = 200; i < 900; ++i) {
      for (int64_t j = 0; j < 17; ++j) {
        ASSERT_EQ(static_cast<const int32_t*>(view.Row(i - 200))[j], Value(i, j)) << i << " " << j;
      }
    }
    (*source)->Release();
    EXPECT_TRUE((*source)->CheckUnchanged().ok());
  }
}

TEST(RowFetchTest, RangesInThePageCacheAreReadInPlaceWhereThatIsFaster) {
  const std::string path = TestPath("m.npy");
  WriteFile(path, NpyBytes(10000, 300, {}));
  const auto better = [&path](std::optional<bool> maps_faster) {
    const auto source = OpenNpyRowSource(path, std::nullopt, {.maps_faster = maps_faster});
    EXPECT_TRUE((*source)->StartRows(100, 9000).ok());
    EXPECT_TRUE((*source)->needs_fetch());
    return (*source)->IsBetterReadInPlace();
  };
  EXPECT_TRUE(better(true));
  EXPECT_FALSE(better(false));
  EXPECT_FALSE(better(std::nullopt)) << "too small to measure";
  if (Evict(path)) {
    EXPECT_FALSE(better(true)) << "on the disk";
  }
  WriteFile(path, NpyBytes(1000, 17, {.big_endian = true}));
  EXPECT_FALSE(
      OpenNpyRowSource(path, std::nullopt, {.maps_faster = true}).value()->IsBetterReadInPlace());
}

TEST(RowFetchTest, BothWaysOfReadingALargeRangeAreMeasured) {
  const std::string path = TestPath("large.npy");
  WriteFile(path, NpyBytes(20000, 300, {}));
  const auto source = OpenNpyRowSource(path, std::nullopt);
  const auto views = (*source)->StartRows(0, 20000);
  ASSERT_TRUE(views.ok());
  const bool better = (*source)->IsBetterReadInPlace();
  // Whichever it is, it stays, and nothing is different.
  EXPECT_EQ((*source)->IsBetterReadInPlace(), better);
  ExpectFetched(**source, {19000, 1000});
  EXPECT_EQ(static_cast<const int32_t*>(views->front().Row(19999))[299], Value(19999, 299));
}

TEST(RowFetchTest, FetchesEachOfAnyRowsWhetherTheyAreInThePageCacheOrNot) {
  const std::string path = TestPath("x.npy");
  constexpr int64_t kRows = 20000;
  constexpr int64_t kDim = 300;
  WriteFile(path, NpyBytes(kRows, kDim, {}));
  auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_TRUE((*source)->can_fetch_each());
  std::vector<int64_t> rows = {kRows - 1, 0, 777, 777, 12345, 3};
  for (int64_t row = 0; row < kRows; row += 97) rows.push_back(row);
  std::vector<int32_t> values(rows.size() * kDim);
  for (const bool cached : {true, false}) {
    if (!cached) {
      const int fd = open(path.c_str(), O_RDONLY);
      ASSERT_EQ(fsync(fd), 0);
      ASSERT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
      close(fd);
    }
    std::fill(values.begin(), values.end(), -1);
    const absl::Status status =
        (*source)->FetchEach(rows, reinterpret_cast<std::byte*>(values.data()));
    ASSERT_TRUE(status.ok()) << status;
    for (size_t i = 0; i < rows.size(); ++i) {
      for (int64_t j = 0; j < kDim; ++j) {
        ASSERT_EQ(values[i * kDim + static_cast<size_t>(j)], Value(rows[i], j)) << rows[i];
      }
    }
  }
}

TEST(RowFetchTest, FetchingEachOfATruncatedFileIsDataLoss) {
  const std::string path = TestPath("x.npy");
  const std::string bytes = NpyBytes(1000, 8, {});
  WriteFile(path, bytes);
  auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_TRUE(source.ok());
  ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(bytes.size() - 500 * 32)), 0);
  std::vector<std::byte> out(2 * 32);
  EXPECT_TRUE((*source)->FetchEach(std::vector<int64_t>{499, 0}, out.data()).ok());
  const absl::Status status = (*source)->FetchEach(std::vector<int64_t>{0, 500}, out.data());
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(std::string(status.message()).find("was truncated"), std::string::npos) << status;
}

TEST(RowFetchTest, RowsInMemoryNeedNoFetch) {
  const std::vector<int32_t> rows = {1, 2, 3, 4};
  const auto source = MakeMemoryRowSource("docs", {rows.data(), DType::kInt32, 2, 2, 8});
  EXPECT_FALSE(source->needs_fetch());
  EXPECT_EQ(source->StartRows(1, 2)->front().data, rows.data() + 2);
  std::vector<std::byte> out(16);
  EXPECT_EQ(source->Fetch({0, 1}, out.data()).code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(source->can_fetch_each());
  EXPECT_EQ(source->FetchEach(std::vector<int64_t>{0}, out.data()).code(),
            absl::StatusCode::kInternal);
}

TEST(RowFetchTest, WhatWillBeFetchedNextIsReadAheadWhileNobodyAsks) {
  const std::string path = TestPath("m.npy");
  constexpr int64_t kRows = 32 * 1024;
  constexpr int64_t kRowBytes = 256 * 4;  // 32 MiB, less than the window
  WriteFile(path, NpyBytes(kRows, 256, {}));
  const auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_TRUE(source.ok());
  if (!Evict(path)) GTEST_SKIP() << "NOT RUN: runs where files are on a disk (TMPDIR)";
  ASSERT_TRUE((*source)->StartRows(0, kRows / 4).ok());
  ExpectFetched(**source, {0, 100});
  // Across the border of the range, too. The system's own reading ahead goes some rows only.
  for (int tries = 0; tries < 1000 && !IsCached(path, 0, kRows * kRowBytes); ++tries) usleep(10000);
  EXPECT_TRUE(IsCached(path, 0, kRows * kRowBytes));
  ExpectFetched(**source, {100, kRows / 4 - 100});
  (*source)->Release();
  ASSERT_TRUE((*source)->StartRows(kRows / 4, kRows).ok());
  ExpectFetched(**source, {kRows / 4, kRows - kRows / 4});
}

TEST(RowFetchTest, FetchFromManyThreadsWhileReadingAhead) {
  const std::string path = TestPath("m.npy");
  constexpr int64_t kRows = 16 * 1024;
  WriteFile(path, NpyBytes(kRows, 256, {}));
  for (const bool cold : {true, false}) {
    const auto source = OpenNpyRowSource(path, std::nullopt);
    ASSERT_TRUE(source.ok());
    if (cold) Evict(path);
    constexpr int64_t kThreads = 4;
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t begin = 0; begin < kRows; begin += kRows / 4) {
        ASSERT_TRUE((*source)->StartRows(begin, begin + kRows / 4).ok());
        std::vector<std::thread> threads;
        for (int64_t t = 0; t < kThreads; ++t) {
          const int64_t count = kRows / 4 / kThreads;
          threads.emplace_back([&, t, begin, count] {
            ExpectFetched(**source, {begin + t * count, count});
          });
        }
        for (std::thread& thread : threads) thread.join();
        (*source)->Release();
      }
    }
  }
}

TEST(RowFetchTest, FileTruncatedWhileItIsReadAheadIsDataLoss) {
  const std::string path = TestPath("m.npy");
  constexpr int64_t kRows = 16 * 1024;
  const std::string bytes = NpyBytes(kRows, 256, {});  // 16 MiB
  WriteFile(path, bytes);
  const auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_TRUE(source.ok());
  Evict(path);
  ASSERT_TRUE((*source)->StartRows(0, kRows).ok());
  ExpectFetched(**source, {0, 10});
  ASSERT_EQ(truncate(path.c_str(), 1 << 20), 0);
  std::vector<std::byte> out(2 * 256 * 4);
  for (const int64_t step : {1, 100}) {
    const absl::Status status = (*source)->Fetch({kRows / 2, 2, step}, out.data());
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_TRUE(std::string(status.message())
                    .starts_with(path + ": was truncated while it was read: it ends at byte "))
        << status;
  }
  EXPECT_EQ((*source)->CheckUnchanged().code(), absl::StatusCode::kDataLoss);
}

TEST(RowFetchTest, RowsReadPastTheCacheAreTheSameAndLeaveNothingInIt) {
  const std::string path = TestPath("m.npy");
  constexpr int64_t kRows = 32 * 1024 + 5;
  constexpr int64_t kRowBytes = 256 * 4;
  WriteFile(path, NpyBytes(kRows, 256, {}));
  const auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_TRUE(source.ok());
  const bool on_disk = Evict(path);
  (*source)->ReadPastCache(true);
  for (int64_t begin = 0; begin < kRows; begin += 9000) {
    const int64_t end = std::min(begin + 9000, kRows);
    const auto views = (*source)->StartRows(begin, end);
    ASSERT_TRUE(views.ok()) << views.status();
    ExpectFetched(**source, {begin, 10, (end - begin) / 10});
    ExpectFetched(**source, {begin, (end - begin) / 3, 3});
    ExpectFetched(**source, {begin, end - begin});
    const auto* const last = static_cast<const int32_t*>(views->front().Row(end - begin - 1));
    EXPECT_EQ(last[255], Value(end - 1, 255));
    (*source)->Release();
  }
  EXPECT_TRUE((*source)->CheckUnchanged().ok());
  if (!on_disk) GTEST_SKIP() << "NOT ALL RUN: the rest where files are on a disk (TMPDIR)";
  EXPECT_FALSE(IsCached(path, kRows / 2 * kRowBytes, (kRows / 2 + 100) * kRowBytes));
  // What is in the cache is taken from there, and a thread may read ahead again.
  (*source)->ReadPastCache(false);
  ASSERT_TRUE((*source)->StartRows(0, kRows).ok());
  ExpectFetched(**source, {0, kRows});
  if (!IsCached(path, 0, kRows * kRowBytes)) {
    GTEST_SKIP() << "NOT ALL RUN: the rest where the system has memory to keep 32 MiB of a file";
  }
  (*source)->Release();
  (*source)->ReadPastCache(true);
  const auto views = (*source)->StartRows(0, kRows / 2);
  ASSERT_TRUE(views.ok());
  EXPECT_EQ(static_cast<const int32_t*>(views->front().Row(7))[3], Value(7, 3)) << "it is mapped";
}

TEST(RowFetchTest, FileTruncatedWhileItIsReadPastTheCacheIsDataLoss) {
  const std::string path = TestPath("m.npy");
  constexpr int64_t kRows = 32 * 1024;
  WriteFile(path, NpyBytes(kRows, 256, {}));
  const auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_TRUE(source.ok());
  if (!Evict(path)) GTEST_SKIP() << "NOT RUN: runs where files are on a disk (TMPDIR)";
  ASSERT_EQ(truncate(path.c_str(), 20 << 20), 0);
  (*source)->ReadPastCache(true);
  ASSERT_TRUE((*source)->StartRows(0, kRows).ok());
  // What lies before the end may come or not: its readers are ahead, and may have seen the end.
  std::vector<std::byte> out(2 * 256 * 4);
  const absl::Status status = (*source)->Fetch({kRows - 2, 2}, out.data());
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_TRUE(std::string(status.message())
                  .starts_with(path + ": was truncated while it was read: it ends at byte "))
      << status;
}

}  // namespace
}  // namespace tiny_knn
