// Docs in one file, in a folder, or named by a pattern: which files, in which order, which rows.
#include "core/io/docs_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/io/natural_order.h"
#include "core/io/page_cache_for_test.h"
#include "core/io/row_fingerprint.h"
#include "core/io/row_range.h"
#include "core/io/unprivileged_for_test.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(NaturalOrderTest, NumbersCompareAsNumbers) {
  const std::vector<std::string> names = {
      "0", "1",  "02",  "10", "10a2", "10a10", "100", "123456789012345678901234567890",
      "a", "a1", "a1b", "a2", "aa",   "b-1",   "b-2", "\xff"};
  for (size_t i = 0; i < names.size(); ++i) {
    for (size_t j = 0; j < names.size(); ++j) {
      const int expected = i < j ? -1 : i > j ? 1 : 0;
      EXPECT_EQ(CompareNaturally(names[i], names[j]), expected) << names[i] << " " << names[j];
    }
  }
  EXPECT_EQ(CompareNaturally("1", "001"), 0);
  EXPECT_EQ(CompareNaturally("a0b", "a000b"), 0);
  EXPECT_NE(CompareNaturally("0", ""), 0);
  EXPECT_EQ(WithoutNumbers("part-0012-of-100.npy"), "part-#-of-#.npy");
}

class DocsFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }

  // Rows of int16 that count on from `next_`, [rows, dim].
  std::string Write(const std::string& name, int64_t rows, int64_t dim = 2,
                    const std::string& descr = "<i2", bool fortran = false) {
    std::string header = fmt::format("{{'descr': '{}', 'fortran_order': {}, 'shape': ({}, {}), }}",
                                     descr, fortran ? "True" : "False", rows, dim);
    header.resize(117, ' ');
    header += '\n';
    const std::string path = folder_ + "/" + name;
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream file(path, std::ios::binary);
    file << std::string("\x93NUMPY\x01\x00", 8) << static_cast<char>(header.size()) << '\0'
         << header;
    for (int64_t i = 0; i < rows * dim; ++i) {
      const int64_t at = fortran ? i % rows * dim + i / rows : i;
      const auto value = static_cast<uint16_t>(next_ + at);
      const char bytes[2] = {static_cast<char>(value & 0xFF), static_cast<char>(value >> 8)};
      const bool big = descr.starts_with('>');
      file << bytes[big ? 1 : 0] << bytes[big ? 0 : 1];
    }
    next_ += rows * dim;
    return path;
  }

  // Whether rows [begin, end) are those that count on from 0.
  static void ExpectRows(RowSource& rows, int64_t begin, int64_t end) {
    const auto view = rows.Rows(begin, end);
    ASSERT_TRUE(view.ok()) << view.status();
    ASSERT_EQ(view->rows, end - begin);
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < rows.dim(); ++j) {
        int16_t value;
        std::memcpy(&value, static_cast<const std::byte*>(view->Row(i - begin)) + j * 2, 2);
        ASSERT_EQ(value, static_cast<int16_t>(i * rows.dim() + j)) << i << " " << j;
      }
    }
  }

  // Whether a row of them lies at `data`.
  static void ExpectRow(const RowSource& rows, int64_t row, const void* data) {
    for (int64_t j = 0; j < rows.dim(); ++j) {
      int16_t value;
      std::memcpy(&value, static_cast<const std::byte*>(data) + j * 2, 2);
      ASSERT_EQ(value, static_cast<int16_t>(row * rows.dim() + j)) << row << " " << j;
    }
  }

  static void ExpectFetched(RowSource& rows, const RowSelection& selection) {
    const int64_t row_bytes = rows.dim() * 2;
    std::vector<std::byte> out(static_cast<size_t>(selection.count * row_bytes));
    const absl::Status status = rows.Fetch(selection, out.data());
    ASSERT_TRUE(status.ok()) << status;
    for (int64_t i = 0; i < selection.count; ++i) {
      ExpectRow(rows, selection.begin + i * selection.step, out.data() + i * row_bytes);
    }
  }

  // Starts [begin, end), fetches it in pieces of `piece` rows, and looks at the views.
  static void ExpectStreamed(RowSource& rows, int64_t begin, int64_t end, int64_t piece) {
    const auto views = rows.StartRows(begin, end);
    ASSERT_TRUE(views.ok()) << views.status();
    ASSERT_FALSE(views->empty());
    for (int64_t row = begin; row < end; row += piece) {
      ExpectFetched(rows, {row, std::min(piece, end - row)});
    }
    int64_t row = begin;
    for (const MatrixView& view : *views) {
      for (int64_t i = 0; i < view.rows; ++i) ExpectRow(rows, row++, view.Row(i));
    }
    EXPECT_EQ(row, end);
    rows.Release();
  }

  std::string Refusal(const std::string& path) {
    const auto docs = OpenDocs(path, std::nullopt);
    if (docs.ok()) return "accepted";
    EXPECT_TRUE(absl::IsInvalidArgument(docs.status())) << docs.status();
    const std::string message(docs.status().message());
    EXPECT_THAT(message, testing::Not(HasSubstr("\n")));
    return message;
  }

  static std::vector<std::string> Names(const OpenedDocs& docs) {
    std::vector<std::string> names;
    for (const DocsFile& file : docs.files) names.push_back(file.name);
    return names;
  }

  std::string folder_;
  int64_t next_ = 0;
};

TEST_F(DocsFilesTest, OneFileIsThatFile) {
  const std::string path = Write("a.npy", 5);
  const auto docs = OpenDocs(path, std::nullopt);
  ASSERT_TRUE(docs.ok()) << docs.status();
  EXPECT_FALSE(docs->is_list);
  EXPECT_EQ(docs->Manifest(), "");
  ASSERT_EQ(docs->files.size(), 1U);
  EXPECT_EQ(docs->files[0].path, path);
  EXPECT_EQ(docs->files[0].version, *StatFileVersion(path));
  EXPECT_EQ(docs->rows->buffer_bytes_per_row(), 0);
  ExpectRows(*docs->rows, 0, 5);
}

TEST_F(DocsFilesTest, AFolderIsItsFilesInNaturalOrder) {
  Write("d_1.npy", 3);
  Write("d_2.npy", 4);
  Write("d_3.npy", 0);
  Write("d_10.npy", 5);
  std::ofstream(folder_ + "/README.md") << "no rows";
  std::ofstream(folder_ + "/.d_4.npy") << "hidden";
  for (const std::string& path : {folder_, folder_ + "/"}) {
    const auto docs = OpenDocs(path, std::nullopt);
    ASSERT_TRUE(docs.ok()) << docs.status();
    EXPECT_THAT(Names(*docs), ElementsAre("d_1.npy", "d_2.npy", "d_3.npy", "d_10.npy"));
    EXPECT_EQ(docs->Manifest(), "0\t3\td_1.npy\n3\t7\td_2.npy\n7\t7\td_3.npy\n7\t12\td_10.npy\n");
    EXPECT_EQ(docs->rows->rows(), 12);
    EXPECT_EQ(docs->rows->dim(), 2);
    EXPECT_EQ(docs->rows->name(), path);
    for (int64_t begin = 0; begin <= 12; ++begin) {
      for (int64_t end = begin; end <= 12; ++end) {
        ExpectRows(*docs->rows, begin, end);
        if (end % 2 == 0) docs->rows->Release();
      }
    }
    EXPECT_TRUE(docs->rows->CheckUnchanged().ok());
  }
}

TEST_F(DocsFilesTest, APatternNamesFilesOfAnyNames) {
  Write("x/b.npy", 3);
  Write("x/z7.npy", 2);
  Write("x/z11.npy", 1);
  Write("y/a.npy", 2);
  Write("y/odd.bin", 1);
  const auto docs = OpenDocs(folder_ + "/[xy]/*.npy", std::nullopt);
  ASSERT_TRUE(docs.ok()) << docs.status();
  EXPECT_THAT(Names(*docs), ElementsAre("x/b.npy", "x/z7.npy", "x/z11.npy", "y/a.npy"));
  EXPECT_TRUE(docs->is_list);
  ExpectRows(*docs->rows, 0, 8);
  const auto one = OpenDocs(folder_ + "/x/b*", std::nullopt);
  ASSERT_TRUE(one.ok());
  EXPECT_EQ(one->Manifest(), "0\t3\tb.npy\n");
  EXPECT_TRUE(absl::IsNotFound(OpenDocs(folder_ + "/*.none", std::nullopt).status()));
  EXPECT_TRUE(absl::IsNotFound(OpenDocs(folder_ + "/none.npy", std::nullopt).status()));
}

TEST_F(DocsFilesTest, NamesThatLookLikePatternsAreTheirOwnFirst) {
  const std::string path = Write("a[1]*\\.npy", 4);
  const auto file = OpenDocs(path, std::nullopt);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_FALSE(file->is_list);
  next_ = 0;
  Write("odd [x] \\ folder/d1.npy", 2);
  Write("odd [x] \\ folder/d2.npy", 2);
  const auto docs = OpenDocs(folder_ + "/odd [x] \\ folder/d?.npy", std::nullopt);
  ASSERT_TRUE(docs.ok()) << docs.status();
  EXPECT_THAT(Names(*docs), ElementsAre("d1.npy", "d2.npy"));
  ExpectRows(*docs->rows, 0, 4);
  EXPECT_EQ(FolderOfPattern("a/b/c*/d"), "a/b/");
  EXPECT_EQ(FolderOfPattern("?"), "");
  EXPECT_EQ(FolderOfPattern("a/b"), std::nullopt);
}

TEST_F(DocsFilesTest, FilesOfEveryStorageOrderTogether) {
  Write("d1.npy", 700);
  Write("d2.npy", 900, 2, "<i2", true);
  Write("d3.npy", 500, 2, ">i2");
  Write("d4.npy", 30, 2, ">i2", true);
  const auto docs = OpenDocs(folder_, std::nullopt);
  ASSERT_TRUE(docs.ok()) << docs.status();
  ExpectRows(*docs->rows, 0, 2130);
  ExpectRows(*docs->rows, 800, 900);
  ExpectRows(*docs->rows, 1599, 1601);
}

TEST_F(DocsFilesTest, RowsAreFetchedWhateverFilesTheyAreIn) {
  Write("d1.npy", 300);
  Write("d2.npy", 0);
  Write("d3.npy", 200, 2, ">i2");
  Write("d4.npy", 1);
  Write("d5.npy", 250, 2, "<i2", true);
  Write("d6.npy", 249, 2, ">i2", true);
  const auto docs = OpenDocs(folder_, std::nullopt);
  ASSERT_TRUE(docs.ok()) << docs.status();
  RowSource& rows = *docs->rows;
  ASSERT_TRUE(rows.needs_fetch());
  EXPECT_EQ(rows.most_rows_in_place(), 1000);
  ExpectStreamed(rows, 0, 1000, 1000);
  for (const int64_t piece : {1, 7, 128, 333}) {
    for (int64_t begin = 0; begin < 1000; begin += 249) {
      ExpectStreamed(rows, begin, std::min<int64_t>(begin + 249, 1000), piece);
    }
  }
  ExpectStreamed(rows, 299, 302, 2);
  ExpectStreamed(rows, 500, 501, 1);
  ExpectStreamed(rows, 1000, 1000, 1);
  const auto views = rows.StartRows(0, 1000);
  ASSERT_TRUE(views.ok());
  EXPECT_EQ(views->size(), 5U) << "one for each file that has rows: none is copied";
  for (const int64_t step : {2, 100, 299, 300, 301, 999}) {
    for (const int64_t begin : {int64_t{0}, step - 1}) {
      ExpectFetched(rows, {begin, (999 - begin) / step + 1, step});
    }
  }
  ExpectFetched(rows, {777, 1, 5});
  EXPECT_TRUE(rows.CheckUnchanged().ok());
}

TEST_F(DocsFilesTest, ARangeOfMoreFilesThanMayBeOpenIsCopiedInPart) {
  for (int i = 0; i < 300; ++i) {
    Write(fmt::format("d{}.npy", i), 5, 2, i % 3 == 0 ? ">i2" : "<i2", i % 7 == 0);
  }
  const auto docs = OpenDocs(folder_, std::nullopt);
  ASSERT_TRUE(docs.ok()) << docs.status();
  RowSource& rows = *docs->rows;
  const int64_t most = rows.most_rows_in_place();
  EXPECT_EQ(most, 125 * 5 + 1);
  for (const int64_t count : {int64_t{1500}, most, most + 1, int64_t{100}}) {
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t begin = 0; begin < 1500; begin += count) {
        ExpectStreamed(rows, begin, std::min<int64_t>(begin + count, 1500), 64);
      }
    }
  }
  const auto views = rows.StartRows(4, 4 + most);
  ASSERT_TRUE(views.ok());
  EXPECT_EQ(views->size(), 126U) << "none is copied";
}

TEST_F(DocsFilesTest, ThreadsFetchTheRowsOfManyColdFiles) {
  for (int i = 0; i < 20; ++i) Evict(Write(fmt::format("d{}.npy", i), 3000, 16));
  const auto docs = OpenDocs(folder_, std::nullopt);
  ASSERT_TRUE(docs.ok()) << docs.status();
  for (int64_t begin = 0; begin < 60'000; begin += 20'000) {
    ASSERT_TRUE(docs->rows->StartRows(begin, begin + 20'000).ok());
    std::vector<std::thread> threads;
    for (int64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t, begin] {
        for (int64_t row = begin + t * 5000; row < begin + (t + 1) * 5000; row += 500) {
          ExpectFetched(*docs->rows, {row, 500});
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    docs->rows->Release();
  }
}

TEST_F(DocsFilesTest, FilesBehindTheReadersAreReadAheadWhileNobodyAsks) {
  constexpr int64_t kRows = 1 << 19;  // 16 MiB of each file: they are within the window
  const std::string files[] = {Write("d1.npy", kRows, 16), Write("d2.npy", kRows, 16),
                               Write("d3.npy", 100, 16)};
  bool on_disk = true;
  for (const std::string& file : files) on_disk = Evict(file) && on_disk;
  if (!on_disk) GTEST_SKIP() << "NOT RUN: runs where files are on a disk (TMPDIR)";
  const auto docs = OpenDocs(folder_, std::nullopt);
  ASSERT_TRUE(docs.ok()) << docs.status();
  ASSERT_TRUE(docs->rows->StartRows(0, 2 * kRows).ok());
  ExpectFetched(*docs->rows, {0, 50'000});  // more than was read with the header
  // The last file is of the next range.
  for (const std::string& file : files) {
    const auto size = static_cast<int64_t>(fs::file_size(file));
    for (int tries = 0; tries < 1000 && !IsCached(file, 0, size); ++tries) usleep(10000);
    EXPECT_TRUE(IsCached(file, 0, size)) << file;
  }
}

TEST_F(DocsFilesTest, AFileTruncatedBetweenFetchesIsDataLoss) {
  Write("d1.npy", 50'000);
  const std::string two = Write("d2.npy", 50'000);
  const auto docs = OpenDocs(folder_, std::nullopt);
  ASSERT_TRUE(docs.ok());
  ASSERT_TRUE(docs->rows->StartRows(0, 100'000).ok());
  ExpectFetched(*docs->rows, {0, 60'000});
  fs::resize_file(two, 1000);
  std::vector<std::byte> out(20'000 * 4);
  const absl::Status status = docs->rows->Fetch({45'000, 20'000}, out.data());
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("d2.npy: was truncated while it was read"));
  EXPECT_TRUE(absl::IsDataLoss(docs->rows->CheckUnchanged()));
}

TEST_F(DocsFilesTest, MoreFilesThanMayBeOpenAtOnce) {
  for (int i = 0; i < 200; ++i) Write(fmt::format("d{}.npy", i), i % 4);
  const auto docs = OpenDocs(folder_, std::nullopt);
  ASSERT_TRUE(docs.ok()) << docs.status();
  const int64_t rows = docs->rows->rows();
  EXPECT_EQ(rows, 300);
  ExpectRows(*docs->rows, 0, rows);
  std::mt19937 random(5);
  for (int i = 0; i < 500; ++i) {
    const auto a = static_cast<int64_t>(random() % 300);
    ExpectRows(*docs->rows, a, std::min<int64_t>(rows, a + static_cast<int64_t>(random() % 20)));
  }
  EXPECT_TRUE(docs->rows->CheckUnchanged().ok());
  // One that is closed now.
  const auto first = docs->rows->Rows(50, 300);
  ASSERT_TRUE(first.ok());
  std::ofstream(folder_ + "/d1.npy", std::ios::app) << "more";
  const auto changed = docs->rows->Rows(0, 3);
  EXPECT_TRUE(absl::IsDataLoss(changed.status())) << changed.status();
  EXPECT_THAT(std::string(changed.status().message()), HasSubstr("d1.npy: changed since"));
}

TEST_F(DocsFilesTest, AFileThatChangesIsNoticed) {
  Write("d1.npy", 50);
  Write("d2.npy", 50);
  for (const int64_t end : {20, 70}) {
    const auto docs = OpenDocs(folder_, std::nullopt);
    ASSERT_TRUE(docs.ok());
    ExpectRows(*docs->rows, 0, end);
    std::ofstream(folder_ + "/d1.npy", std::ios::app) << "more";
    const absl::Status status = docs->rows->CheckUnchanged();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("d1.npy: changed"));
  }
}

TEST_F(DocsFilesTest, WhatIsNotClearIsRefusedNamingTheFiles) {
  EXPECT_THAT(Refusal(folder_), HasSubstr("a directory without .npy files"));
  const std::string one = Write("d1.npy", 2);
  Write("d01.npy", 2);
  EXPECT_THAT(Refusal(folder_), AllOf(HasSubstr("'d01.npy' and 'd1.npy' have the same number")));
  EXPECT_THAT(Refusal(folder_ + "/d*.npy"), HasSubstr("have the same number"));
  fs::rename(folder_ + "/d01.npy", folder_ + "/queries.npy");
  EXPECT_THAT(Refusal(folder_), AllOf(HasSubstr("'d1.npy' and 'queries.npy' differ in more than"),
                                      HasSubstr(folder_ + "/*.npy'")));
  EXPECT_EQ(Refusal(folder_ + "/*.npy"), "accepted");
  fs::remove(folder_ + "/queries.npy");
  const std::string two = Write("d2.npy", 2, 3);
  EXPECT_EQ(Refusal(folder_),
            fmt::format("{}: has dim=3, but {} has dim=2; the files of one folder "
                        "must come from the same embedding",
                        two, one));
  Write("d2.npy", 2, 2, "<f2");
  EXPECT_THAT(Refusal(folder_),
              AllOf(HasSubstr("d2.npy: "), HasSubstr("but " + one + " is int16")));
  std::ofstream(two) << "no matrix";
  EXPECT_THAT(Refusal(folder_), HasSubstr("d2.npy: "));
  fs::remove(two);
  Write("d\n2.npy", 2);
  const absl::Status control = OpenDocs(folder_ + "/*", std::nullopt).status();
  EXPECT_THAT(std::string(control.message()), HasSubstr("a control character in a file's name"));
}

TEST_F(DocsFilesTest, AnUnreadableFileOrFolderIsSaid) {
  Write("d1.npy", 3);
  const std::string two = Write("d2.npy", 3);
  chmod(two.c_str(), 0);
  const ScopedUnprivileged unprivileged;
  const absl::Status file = OpenDocs(folder_, std::nullopt).status();
  EXPECT_TRUE(absl::IsPermissionDenied(file)) << file;
  EXPECT_THAT(std::string(file.message()), HasSubstr("d2.npy"));
  chmod(folder_.c_str(), 0);
  EXPECT_TRUE(absl::IsPermissionDenied(OpenDocs(folder_, std::nullopt).status()));
  EXPECT_TRUE(absl::IsPermissionDenied(OpenDocs(folder_ + "/*.npy", std::nullopt).status()));
  chmod(folder_.c_str(), 0755);
}

TEST_F(DocsFilesTest, FingerprintsAreOfRowsWhateverTheirFiles) {
  Write("a/d1.npy", 400);
  Write("a/d2.npy", 300);
  next_ = 0;
  const std::string whole = Write("whole.npy", 700, 2, "<i2", true);
  const auto parts = OpenDocs(folder_ + "/a", std::nullopt);
  const auto all = OpenDocs(whole, std::nullopt);
  ASSERT_TRUE(parts.ok() && all.ok());
  for (const auto fingerprint : {FingerprintOfRows, FingerprintOfSample}) {
    const auto a = fingerprint(*parts->rows);
    const auto b = fingerprint(*all->rows);
    ASSERT_TRUE(a.ok() && b.ok());
    EXPECT_EQ(*a, *b);
    EXPECT_THAT(*a, testing::StartsWith("700x2 int16 "));
  }
  const std::string before = *FingerprintOfRows(*all->rows);
  next_ = 1;
  Write("whole.npy", 700, 2, "<i2", true);
  const auto other = OpenDocs(whole, std::nullopt);
  EXPECT_NE(*FingerprintOfRows(*other->rows), before);
  Write("none.npy", 0);
  EXPECT_EQ(*FingerprintOfSample(*OpenDocs(folder_ + "/none.npy", std::nullopt)->rows),
            "0x2 int16 sample crc32 00000000");
}

TEST_F(DocsFilesTest, ARangeIsRowsOfTheWhole) {
  Write("d1.npy", 40);
  Write("d2.npy", 40);
  auto docs = OpenDocs(folder_, std::nullopt);
  ASSERT_TRUE(docs.ok());
  const auto range = MakeRowRange(std::move(docs->rows), 30, 70);
  EXPECT_EQ(range->most_rows_in_place(), 80);
  const auto views = range->StartRows(5, 20);
  ASSERT_TRUE(views.ok());
  EXPECT_EQ(views->size(), 2U);
  std::vector<std::byte> fetched(15 * 4);
  ASSERT_TRUE(range->Fetch({5, 15}, fetched.data()).ok());
  ExpectRow(*range, 35, fetched.data());
  ExpectRow(*range, 49, fetched.data() + 14 * 4);
  range->Release();
  EXPECT_EQ(range->rows(), 40);
  EXPECT_EQ(range->name(), folder_);
  const auto view = range->Rows(5, 20);
  ASSERT_TRUE(view.ok());
  EXPECT_EQ(view->rows, 15);
  int16_t value;
  std::memcpy(&value, view->Row(0), 2);
  EXPECT_EQ(value, 70);
  EXPECT_FALSE(range->can_fetch_each());
  std::ofstream(folder_ + "/d1.npy", std::ios::app) << "more";
  EXPECT_TRUE(absl::IsDataLoss(range->CheckUnchanged()));
}

TEST_F(DocsFilesTest, EachRowOfARangeOfOneFileCanBeFetched) {
  Write("d.npy", 40);
  auto docs = OpenDocs(folder_ + "/d.npy", std::nullopt);
  ASSERT_TRUE(docs.ok());
  const auto range = MakeRowRange(std::move(docs->rows), 30, 40);
  ASSERT_TRUE(range->can_fetch_each());
  const auto view = range->Rows(0, 10);
  ASSERT_TRUE(view.ok());
  const size_t row_bytes = static_cast<size_t>(view->row_stride_bytes);
  std::vector<std::byte> rows(2 * row_bytes);
  ASSERT_TRUE(range->FetchEach(std::vector<int64_t>{9, 2}, rows.data()).ok());
  EXPECT_EQ(std::memcmp(rows.data(), view->Row(9), row_bytes), 0);
  EXPECT_EQ(std::memcmp(rows.data() + row_bytes, view->Row(2), row_bytes), 0);
}

}  // namespace
}  // namespace tiny_knn
