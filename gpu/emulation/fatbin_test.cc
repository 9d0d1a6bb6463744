// What nvcc embeds is read, and bytes that are none of its are refused.
#include "gpu/emulation/fatbin.h"

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace tiny_knn::emulation {
namespace {

using Bytes = std::vector<std::byte>;

template <typename T>
void Put(Bytes& bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
}

Bytes Entry(uint16_t kind, uint32_t arch, const std::string& text, uint64_t flags = 0x11) {
  constexpr uint32_t kHeader = 64;
  Bytes entry(kHeader + text.size());
  Put<uint16_t>(entry, 0, kind);
  Put<uint32_t>(entry, 4, kHeader);
  Put<uint64_t>(entry, 8, text.size());
  Put<uint32_t>(entry, 28, arch);
  Put<uint64_t>(entry, 40, flags);
  std::memcpy(entry.data() + kHeader, text.data(), text.size());
  return entry;
}

Bytes Container(const std::vector<Bytes>& entries) {
  Bytes bytes(16);
  for (const Bytes& entry : entries) bytes.insert(bytes.end(), entry.begin(), entry.end());
  Put<uint32_t>(bytes, 0, 0xba55ed50);
  Put<uint16_t>(bytes, 4, 1);
  Put<uint16_t>(bytes, 6, 16);
  Put<uint64_t>(bytes, 8, bytes.size() - 16);
  return bytes;
}

TEST(Fatbin, PtxEntriesAreFoundAmongOthers) {
  const Bytes bytes =
      Container({Entry(2, 75, "machine code"), Entry(1, 75, std::string("first\0\0", 7)),
                 Entry(1, 90, "second")});
  EXPECT_EQ(FatbinSize(bytes), bytes.size());
  const auto images = ReadFatbin(bytes);
  ASSERT_TRUE(images.ok()) << images.status();
  ASSERT_EQ(images->size(), 2U);
  EXPECT_EQ((*images)[0].arch, 75);
  EXPECT_EQ((*images)[0].text, "first");
  EXPECT_EQ((*images)[1].arch, 90);
  EXPECT_EQ((*images)[1].text, "second");
}

TEST(Fatbin, CompressedPtxIsRefusedWithTheRemedy) {
  for (const uint64_t flag : {0x2011U, 0x8011U}) {
    const auto images = ReadFatbin(Container({Entry(1, 75, "packed", flag)}));
    EXPECT_TRUE(absl::IsFailedPrecondition(images.status()));
    EXPECT_NE(images.status().message().find("-no-compress"), absl::string_view::npos);
  }
}

TEST(Fatbin, WhatEndsEarlyOrIsNoContainerIsRefused) {
  const Bytes bytes = Container({Entry(1, 75, "text")});
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(ReadFatbin(std::span(bytes).first(size)).ok()) << size;
  }
  Bytes other = bytes;
  Put<uint32_t>(other, 0, 0x12345678);
  EXPECT_FALSE(ReadFatbin(other).ok());
  EXPECT_EQ(FatbinSize(other), 0U);
  for (const uint64_t size : {uint64_t{5}, ~uint64_t{0}, uint64_t{1} << 63}) {
    other = bytes;
    Put<uint64_t>(other, 16 + 8, size);  // of the entry
    EXPECT_FALSE(ReadFatbin(other).ok()) << size;
  }
  other = bytes;
  Put<uint32_t>(other, 16 + 4, 3);  // its header
  EXPECT_FALSE(ReadFatbin(other).ok());
}

TEST(Fatbin, NoBytesMakeItReadBeyondThem) {
  std::mt19937 random(1);
  const Bytes bytes = Container({Entry(1, 75, "text"), Entry(1, 90, "more")});
  for (int i = 0; i < 20'000; ++i) {
    Bytes changed = bytes;
    for (int j = 0; j < 3; ++j) {
      changed[random() % changed.size()] = static_cast<std::byte>(random());
    }
    const auto images = ReadFatbin(changed);
    if (images.ok()) {
      EXPECT_LE(images->size(), 2U);
    }
  }
}

}  // namespace
}  // namespace tiny_knn::emulation
