#include "cli/labels.h"

#include <sys/stat.h>

#include <fstream>
#include <utility>

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

TEST(Labels, LinesMayLieAcrossReadsAndTheLastNeedsNoEnd) {
  const std::string part(50'000, 'x');
  const std::string path =
      WriteFile("long.txt", part + "0\n" + part + "1\n\n" + part + part + "3\r\n" + "last");
  const auto labels = ReadAllLabels(path);
  ASSERT_TRUE(labels.ok()) << labels.status();
  EXPECT_THAT(*labels, ElementsAre(part + "0", part + "1", "", part + part + "3", "last"));
  EXPECT_THAT(*ReadAllLabels(WriteFile("ended.txt", "a\n\n")), ElementsAre("a", ""));
  EXPECT_THAT(*ReadAllLabels(WriteFile("empty.txt", "")), ElementsAre());
}

TEST(Labels, ALineThatNeverEndsIsRefused) {
  const std::string path = WriteFile("endless.txt", "a\n" + std::string(3 << 20, 'x'));
  const absl::Status status = ReadAllLabels(path).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("line 2 is longer than 1 MiB"));
}

TEST(Labels, OnlyRegularFilesAreRead) {
  const std::string fifo = testing::TempDir() + "/labels.fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  for (const auto& [path, kind] : {std::pair<std::string, std::string>{fifo, "a FIFO"},
                                   {"/dev/zero", "a device"},
                                   {testing::TempDir(), "a directory"}}) {
    const absl::Status status = ReadLabels(path, {0}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << path;
    EXPECT_THAT(std::string(status.message()), HasSubstr(kind));
  }
}

TEST(Labels, TerminalCommandsInALabelAreMadeVisible) {
  const auto labels = ReadAllLabels(WriteFile("escape.txt", "a\x1b[2Jb\n"));
  ASSERT_TRUE(labels.ok());
  EXPECT_THAT(*labels, ElementsAre("a\\x1b[2Jb"));
}

}  // namespace
}  // namespace tiny_knn
