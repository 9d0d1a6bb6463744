#include "cli/labels.h"

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

std::string WriteFile(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

TEST(Labels, OnlyTheWantedLinesComeBack) {
  const std::string path = WriteFile("some.txt", "zero\none\r\ntwo\nthree");
  const auto labels = ReadLabels(path, {1, 3});
  ASSERT_TRUE(labels.ok()) << labels.status();
  EXPECT_THAT(*labels, ElementsAre(Pair(1, "one"), Pair(3, "three")));
}

TEST(Labels, TooFewLinesSaysHowManyThereAre) {
  const auto labels = ReadLabels(WriteFile("few.txt", "a\nb\n"), {0, 7});
  EXPECT_TRUE(absl::IsInvalidArgument(labels.status()));
  EXPECT_THAT(std::string(labels.status().message()), HasSubstr("has 2 lines"));
  EXPECT_THAT(std::string(labels.status().message()), HasSubstr("row 7"));
}

TEST(Labels, MissingFileAndFolderAreNamed) {
  const std::string missing = testing::TempDir() + "/none.txt";
  EXPECT_TRUE(absl::IsNotFound(ReadLabels(missing, {0}).status()));
  EXPECT_THAT(std::string(ReadLabels(missing, {0}).status().message()), HasSubstr("none.txt"));
  EXPECT_TRUE(absl::IsInvalidArgument(ReadLabels(testing::TempDir(), {0}).status()));
}

TEST(Labels, TerminalCommandsInALabelAreMadeVisible) {
  const auto labels = ReadAllLabels(WriteFile("escape.txt", "a\x1b[2Jb\n"));
  ASSERT_TRUE(labels.ok());
  EXPECT_THAT(*labels, ElementsAre("a\\x1b[2Jb"));
}

}  // namespace
}  // namespace tiny_knn
