#include "core/io/stored_zip.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;

// A zip of these entries; its checksums are their numbers.
std::string Zip(const std::vector<std::pair<std::string, std::string>>& entries) {
  StoredZipLayout layout;
  std::vector<uint32_t> crc32s;
  for (const auto& [name, text] : entries) {
    layout.Add(name, static_cast<int64_t>(text.size()));
    crc32s.push_back(static_cast<uint32_t>(crc32s.size()));
  }
  std::string zip;
  for (size_t i = 0; i < entries.size(); ++i) {
    EXPECT_EQ(static_cast<int64_t>(zip.size()), layout.header_offset(i));
    zip += layout.Header(i, crc32s[i]);
    EXPECT_EQ(static_cast<int64_t>(zip.size()), layout.data_offset(i));
    zip += entries[i].second;
  }
  EXPECT_EQ(static_cast<int64_t>(zip.size()), layout.directory_offset());
  zip += layout.Directory(crc32s);
  EXPECT_EQ(static_cast<int64_t>(zip.size()), layout.total_bytes());
  return zip;
}

std::span<const uint8_t> AsBytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

TEST(StoredZipTest, EntriesComeBackAsTheyWere) {
  for (const auto& entries : std::vector<std::vector<std::pair<std::string, std::string>>>{
           {},
           {{"a.npy", ""}},
           {{"a.npy", "hello"}, {"b", std::string(1000, '\0')}, {"a.npy", "x"}}}) {
    const std::string zip = Zip(entries);
    const auto read = ReadStoredZip(AsBytes(zip));
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_EQ(read->size(), entries.size());
    for (size_t i = 0; i < entries.size(); ++i) {
      EXPECT_EQ((*read)[i].name, entries[i].first);
      EXPECT_EQ((std::string{(*read)[i].bytes.begin(), (*read)[i].bytes.end()}), entries[i].second);
      EXPECT_EQ((*read)[i].crc32, i);
    }
    // A comment may follow.
    std::string with_comment = zip + "comment";
    with_comment[zip.size() - 2] = 7;
    EXPECT_TRUE(ReadStoredZip(AsBytes(with_comment)).ok());
  }
}

TEST(StoredZipTest, EveryTruncationIsRefused) {
  const std::string zip = Zip({{"a.npy", "hello"}, {"b.npy", "world"}});
  for (size_t size = 0; size < zip.size(); ++size) {
    EXPECT_FALSE(ReadStoredZip(AsBytes(zip.substr(0, size))).ok()) << size;
    EXPECT_FALSE(ReadStoredZip(AsBytes(zip.substr(zip.size() - size))).ok()) << size;
  }
}

TEST(StoredZipTest, CompressedAndEncryptedEntriesSayWhatToDo) {
  std::string zip = Zip({{"a.npy", "hello"}});
  const size_t directory = zip.size() - 22 - 46 - 5;
  std::string encrypted = zip;
  encrypted[directory + 8] = 1;
  EXPECT_THAT(std::string(ReadStoredZip(AsBytes(encrypted)).status().message()),
              HasSubstr("encrypted"));
  zip[directory + 10] = 8;
  EXPECT_THAT(std::string(ReadStoredZip(AsBytes(zip)).status().message()),
              HasSubstr("numpy.savez, not savez_compressed"));
}

// Holes take no disk: entries of more than 4 GiB, behind more than 4 GiB.
TEST(StoredZipTest, NumbersBeyond32BitsStandInZip64Fields) {
  constexpr int64_t kLarge = (int64_t{1} << 32) + 12345;
  StoredZipLayout layout;
  for (const auto& [name, bytes] : std::vector<std::pair<std::string, int64_t>>{
           {"indices.npy", kLarge}, {"scores.npy", 10}, {"more.npy", 0xFFFFFFFF}, {"k.npy", 3}}) {
    layout.Add(name, bytes);
  }
  const std::string path = testing::TempDir() + "large.zip";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  ASSERT_GE(fd, 0);
  unlink(path.c_str());
  const std::vector<uint32_t> crc32s = {1, 2, 3, 4};
  const auto put = [&](int64_t offset, const std::string& text) {
    ASSERT_EQ(pwrite(fd, text.data(), text.size(), offset), static_cast<ssize_t>(text.size()));
  };
  for (size_t i = 0; i < 4; ++i) put(layout.header_offset(i), layout.Header(i, crc32s[i]));
  put(layout.directory_offset(), layout.Directory(crc32s));
  put(layout.data_offset(3), "end");
  const auto bytes = static_cast<size_t>(layout.total_bytes());
  void* const mapped = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  const auto read = ReadStoredZip({static_cast<const uint8_t*>(mapped), bytes});
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 4U);
  EXPECT_EQ((*read)[0].bytes.size(), static_cast<size_t>(kLarge));
  EXPECT_EQ((*read)[1].bytes.size(), 10U);
  EXPECT_EQ((*read)[2].bytes.size(), size_t{0xFFFFFFFF});
  EXPECT_EQ(std::memcmp((*read)[3].bytes.data(), "end", 3), 0);
  EXPECT_EQ((*read)[3].crc32, 4U);
  munmap(mapped, bytes);
  close(fd);
}

}  // namespace
}  // namespace tiny_knn
