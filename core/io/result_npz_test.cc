#include "core/io/result_npz.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

#include "core/io/npy_scalar.h"
#include "core/io/result_file.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;

std::string TestPath() {
  return testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name() +
         ".npz";
}

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::span<const uint8_t> AsBytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

ResultMetadata Metadata(int64_t num_queries, int64_t k, DType dtype = DType::kFloat32) {
  return {.num_queries = num_queries,
          .k = k,
          .score_dtype = dtype,
          .queries_path = "q\xff \xc3\xbc \xf0\x9f\x98\x80.npy",
          .docs_path = "",
          .batch_size = 512,
          .dtype = std::string(DTypeName(dtype)),
          .device = "cpu",
          .metric = "l2",
          .tiny_knn_version = "0.0.0"};
}

// indices 0, 1, 2, ..., scores their negatives, a NaN among them.
absl::Status Write(const std::string& path, const ResultMetadata& metadata, int64_t batch = 2) {
  auto writer = CreateResultWriter(path, metadata);
  if (!writer.ok()) return writer.status();
  const int64_t k = metadata.k;
  for (int64_t first = 0; first < metadata.num_queries; first += batch) {
    const int64_t rows = std::min(batch, metadata.num_queries - first);
    std::vector<int64_t> indices(static_cast<size_t>(rows * k));
    std::iota(indices.begin(), indices.end(), first * k);
    std::vector<float> floats;
    std::vector<double> doubles;
    for (const int64_t index : indices) {
      doubles.push_back(index == 1 ? std::nan("") : -static_cast<double>(index));
      floats.push_back(static_cast<float>(doubles.back()));
    }
    const bool wide = metadata.score_dtype == DType::kFloat64;
    absl::Status status = (*writer)->WriteRows(
        first, rows, indices.data(),
        wide ? static_cast<const void*>(doubles.data()) : static_cast<const void*>(floats.data()));
    if (!status.ok()) return status;
  }
  return (*writer)->Commit();
}

void ExpectSame(const ResultFile& file, const ResultMetadata& metadata) {
  EXPECT_EQ(file.metadata.num_queries, metadata.num_queries);
  EXPECT_EQ(file.metadata.k, metadata.k);
  EXPECT_EQ(file.metadata.score_dtype, metadata.score_dtype);
  // Field by field, as texts.
  const auto fields = [](const ResultMetadata& data) {
    std::vector<std::string> texts;
    VisitResultFields(data, /*all=*/true, [&](std::string_view key, const auto& field) {
      texts.push_back(fmt::format("{}={}", key, field));
    });
    return texts;
  };
  EXPECT_EQ(fields(file.metadata), fields(metadata));
  ASSERT_EQ(file.indices.size(), static_cast<size_t>(metadata.num_queries * metadata.k));
  ASSERT_EQ(file.scores.size(), file.indices.size());
  for (size_t i = 0; i < file.indices.size(); ++i) {
    EXPECT_EQ(file.indices[i], static_cast<int64_t>(i));
    if (i == 1) {
      EXPECT_TRUE(std::isnan(file.scores[i]));
    } else {
      EXPECT_EQ(file.scores[i], -static_cast<double>(i));
    }
  }
}

TEST(ResultNpzTest, WhatIsWrittenIsRead) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    for (const auto& [rows, k] : {std::pair(1, 1), {5, 3}, {1, 7}, {7, 1}, {0, 4}, {4, 0}}) {
      const ResultMetadata metadata = Metadata(rows, k, dtype);
      const absl::Status written = Write(TestPath(), metadata);
      ASSERT_TRUE(written.ok()) << written;
      const auto file = ReadResult(TestPath());
      ASSERT_TRUE(file.ok()) << file.status();
      ExpectSame(*file, metadata);
    }
  }
}

// Every field there is, of a part of many files of docs.
TEST(ResultFileTest, PartsAreReadAsTheyWereWrittenInBothFormats) {
  ResultMetadata metadata = Metadata(3, 2);
  metadata.exclude_self = true;
  metadata.docs_manifest = "0\t7\ta_1.npy\n7\t90\ta_2\xff.npy\n";
  metadata.part = {.docs_begin = 0,
                   .docs_end = 70,
                   .num_docs = 90,
                   .k_wanted = 20,
                   .queries_fingerprint = "3x2 float32 crc32 00000001",
                   .docs_fingerprint = "90x2 float32 sample crc32 00000002"};
  for (const char* const suffix : {".npz", ".pkl"}) {
    const std::string path = TestPath() + suffix;
    ASSERT_TRUE(Write(path, metadata).ok());
    const auto file = ReadResult(path);
    ASSERT_TRUE(file.ok()) << file.status();
    ExpectSame(*file, metadata);
  }
}

TEST(ResultFileTest, RowsAreCopiedFromWhereTheyLie) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    for (const char* const suffix : {".npz", ".pkl"}) {
      const std::string path = TestPath() + suffix;
      ASSERT_TRUE(Write(path, Metadata(5, 3, dtype)).ok());
      const auto opened = OpenedResult::Open(path);
      ASSERT_TRUE(opened.ok()) << opened.status();
      std::vector<int64_t> indices(6);
      std::vector<double> scores(6);
      (*opened)->CopyRows(2, 2, indices.data(), scores.data());
      EXPECT_EQ(indices, (std::vector<int64_t>{6, 7, 8, 9, 10, 11}));
      EXPECT_EQ(scores, (std::vector<double>{-6, -7, -8, -9, -10, -11}));
      EXPECT_TRUE((*opened)->CheckUnchanged().ok());
    }
  }
}

TEST(ResultNpzTest, TheSameResultIsTheSameBytesWhateverItsBatches) {
  ASSERT_TRUE(Write(TestPath(), Metadata(9, 4), 1).ok());
  const std::string bytes = ReadAll(TestPath());
  ASSERT_TRUE(Write(TestPath(), Metadata(9, 4), 5).ok());
  EXPECT_EQ(ReadAll(TestPath()), bytes);
}

TEST(ResultNpzTest, RowsOutOfOrderAndMissingRowsAreRefused) {
  const std::vector<int64_t> indices(4);
  const std::vector<float> scores(4);
  {
    auto writer = ResultNpzWriter::Create(TestPath(), Metadata(2, 4));
    ASSERT_TRUE(writer.ok());
    EXPECT_TRUE(
        absl::IsFailedPrecondition((*writer)->WriteRows(1, 1, indices.data(), scores.data())));
    ASSERT_TRUE((*writer)->WriteRows(0, 1, indices.data(), scores.data()).ok());
    EXPECT_TRUE(
        absl::IsFailedPrecondition((*writer)->WriteRows(0, 1, indices.data(), scores.data())));
    EXPECT_TRUE(absl::IsFailedPrecondition((*writer)->Commit()));
  }
  EXPECT_FALSE(std::filesystem::exists(TestPath()));
}

TEST(ResultNpzTest, EveryDamagedByteIsNoticedOrDoesNotMatter) {
  const ResultMetadata metadata = Metadata(3, 2);
  ASSERT_TRUE(Write(TestPath(), metadata).ok());
  const std::string bytes = ReadAll(TestPath());
  int refused = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const char flip : {'\x01', '\x80', '\xff'}) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ flip);
      const auto file = ParseResultNpz(AsBytes(damaged));
      if (!file.ok()) {
        EXPECT_TRUE(absl::IsInvalidArgument(file.status()));
        ++refused;
      } else if (file->metadata.num_queries == 3) {
        // A name that is no other's, or times that nobody reads.
        std::vector<int64_t> indices(6);
        ASSERT_EQ(file->indices.size(), indices.size() * sizeof(int64_t));
        std::memcpy(indices.data(), file->indices.data(), file->indices.size());
        EXPECT_EQ(indices, (std::vector<int64_t>{0, 1, 2, 3, 4, 5})) << i;
      }
    }
  }
  EXPECT_GT(refused, static_cast<int>(bytes.size()));
}

TEST(ResultNpzTest, EveryTruncationIsRefused) {
  ASSERT_TRUE(Write(TestPath(), Metadata(3, 2)).ok());
  const std::string bytes = ReadAll(TestPath());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(ParseResultNpz(AsBytes(bytes.substr(0, size))).ok()) << size;
  }
}

TEST(ResultFileTest, TheExtensionChoosesTheFormatAndTheContentTellsIt) {
  const std::string folder = testing::TempDir();
  for (const auto& [name, start] : {std::pair("a.npz", "PK\x03\x04"),
                                    {"a.pkl", "\x80\x04"},
                                    {"a", "\x80\x04"},
                                    {"npz", "\x80\x04"},
                                    {"a.NPZ", "\x80\x04"}}) {
    ASSERT_TRUE(Write(folder + name, Metadata(2, 2)).ok());
    EXPECT_THAT(ReadAll(folder + name), testing::StartsWith(start)) << name;
    std::filesystem::rename(folder + name, folder + "renamed");
    EXPECT_TRUE(ReadResult(folder + "renamed").ok());
  }
  const std::string nonsense = folder + "nonsense.npz";
  std::ofstream(nonsense) << "PK\x03\x04 and no more";
  const absl::Status status = ReadResult(nonsense).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("nonsense.npz: is no whole zip"));
}

TEST(NpyScalarTest, TextsAndNumbersComeBack) {
  for (const std::string text :
       {"", "ip", "\xff", "a\xc3\xbc", "\xf0\x9f\x98\x80", "\xed\xa0\x80"}) {
    const auto read = ParseNpyText(AsBytes(NpyText(text)));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, text);
  }
  for (const int64_t number : {int64_t{0}, int64_t{-1}, INT64_MAX, INT64_MIN}) {
    const auto read = ParseNpyInt(AsBytes(NpyInt(number)));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, number);
  }
  EXPECT_FALSE(ParseNpyInt(AsBytes(NpyText("ip"))).ok());
  EXPECT_FALSE(ParseNpyText(AsBytes(NpyInt(3))).ok());
  EXPECT_FALSE(ParseNpyInt(AsBytes(NpyHead("<i8", "(1,)") + std::string(8, '\0'))).ok());
  EXPECT_EQ(NpyInt(1).size() % 64, 8U) << "data starts on a cache line";
}

}  // namespace
}  // namespace tiny_knn
