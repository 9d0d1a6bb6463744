#include "daemon/protocol/line_decoder.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> TakeAll(LineDecoder& decoder) {
  std::vector<std::string> lines;
  while (auto line = decoder.Next()) lines.push_back(*std::move(line));
  return lines;
}

TEST(LineDecoder, CutsAtLineEndsHoweverTheBytesCome) {
  const std::string stream = "a\n\nbc\r\nd\re\n\r\nf";
  for (size_t step = 1; step <= stream.size(); ++step) {
    LineDecoder decoder;
    std::vector<std::string> lines;
    for (size_t i = 0; i < stream.size(); i += step) {
      ASSERT_TRUE(decoder.Feed(std::string_view(stream).substr(i, step)).ok());
      for (std::string& line : TakeAll(decoder)) lines.push_back(std::move(line));
    }
    EXPECT_THAT(lines, ElementsAre("a", "", "bc", "d\re", "")) << step;
    EXPECT_EQ(decoder.pending_bytes(), 1U);
  }
}

TEST(LineDecoder, LinesLeftForLaterAreKept) {
  LineDecoder decoder;
  std::vector<std::string> lines;
  for (int i = 0; i < 1000; ++i) {
    const std::string number = std::to_string(i);
    ASSERT_TRUE(decoder.Feed(number + "\n" + number).ok());
    lines.push_back(*decoder.Next());
    ASSERT_TRUE(decoder.Feed("x\n").ok());
  }
  EXPECT_EQ(lines[2], "1");
  EXPECT_EQ(TakeAll(decoder).size(), 1000U);
  EXPECT_EQ(decoder.pending_bytes(), 0U);
}

TEST(LineDecoder, TakesALineOfTheGreatestLengthWithEitherLineEnd) {
  const std::string longest(kMostLineBytes, 'x');
  for (const std::string end : {"\n", "\r\n"}) {
    LineDecoder decoder;
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE(decoder.Feed(longest).ok());
      for (const char c : end) ASSERT_TRUE(decoder.Feed({&c, 1}).ok());
      EXPECT_THAT(TakeAll(decoder), ElementsAre(longest));
    }
  }
}

TEST(LineDecoder, RefusesALongerLineForGood) {
  for (const std::string end : {"", "\n", "\r\n", "\ry"}) {
    LineDecoder decoder;
    const absl::Status status =
        decoder.Feed("first\n" + std::string(kMostLineBytes + 1, 'x') + end);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(TakeAll(decoder), ElementsAre("first"));
    EXPECT_EQ(decoder.pending_bytes(), 0U);
    EXPECT_EQ(decoder.Feed("{}\n"), status);
    EXPECT_THAT(TakeAll(decoder), IsEmpty());
  }
}

TEST(LineDecoder, ACarriageReturnInsideCounts) {
  LineDecoder decoder;
  ASSERT_TRUE(decoder.Feed(std::string(kMostLineBytes, 'x') + "\r").ok());
  EXPECT_FALSE(decoder.Feed("y").ok());
}

TEST(LineDecoder, AnUnfinishedLineHoldsNoMoreThanWasSent) {
  LineDecoder decoder;
  size_t held = 0;
  while (decoder.Feed(std::string(4096, 'x')).ok()) held = decoder.pending_bytes();
  EXPECT_EQ(held, kMostLineBytes);
}

}  // namespace
}  // namespace tiny_knn
