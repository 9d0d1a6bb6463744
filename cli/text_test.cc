#include "cli/text.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(DisplayWidth, WideAndCombiningCharacters) {
  EXPECT_EQ(DisplayWidth(""), 0);
  EXPECT_EQ(DisplayWidth("abc"), 3);
  EXPECT_EQ(DisplayWidth("äöü"), 3);
  EXPECT_EQ(DisplayWidth("e\u0301"), 1);
  EXPECT_EQ(DisplayWidth("日本語"), 6);
  EXPECT_EQ(DisplayWidth("🙂"), 2);
}

TEST(TruncateToWidth, NeverExceedsTheWidthAndNeverSplitsACharacter) {
  EXPECT_EQ(TruncateToWidth("abc", 3), "abc");
  EXPECT_EQ(TruncateToWidth("abcd", 3), "ab…");
  EXPECT_EQ(TruncateToWidth("日本語", 4), "日…");
  EXPECT_EQ(TruncateToWidth("日本語", 1), "…");
}

TEST(Pad, CountsColumnsNotBytes) {
  EXPECT_EQ(PadRight("日", 4), "日  ");
  EXPECT_EQ(PadLeft("ä", 3), "  ä");
  EXPECT_EQ(PadLeft("long", 2), "long");
}

TEST(FormatBytes, PicksAUnit) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(int64_t{5} << 30), "5.0 GiB");
  EXPECT_EQ(FormatBytes((int64_t{1} << 30) - 1), "1.0 GiB");
}

TEST(FormatRate, KeepsThreeDigits) {
  EXPECT_EQ(FormatRate(0), "0");
  EXPECT_EQ(FormatRate(812.4), "812");
  EXPECT_EQ(FormatRate(999.6), "1.00 k");
  EXPECT_EQ(FormatRate(1234), "1.23 k");
  EXPECT_EQ(FormatRate(45.67e6), "45.7 M");
  EXPECT_EQ(FormatRate(789e9), "789 G");
}

TEST(FormatSeconds, RollsOverCleanly) {
  EXPECT_EQ(FormatSeconds(0.4249), "0.42 s");
  EXPECT_EQ(FormatSeconds(59.999), "1:00");
  EXPECT_EQ(FormatSeconds(125), "2:05");
  EXPECT_EQ(FormatSeconds(3599.6), "1:00:00");
  EXPECT_EQ(FormatSeconds(3723), "1:02:03");
}

TEST(FormatScores, OneNotationForAllOfATable) {
  EXPECT_THAT(FormatScores(std::vector<double>{0.5, -2, 0}),
              ElementsAre("0.500000", "-2.000000", "0.000000"));
  EXPECT_THAT(FormatScores(std::vector<double>{1e-9, 2}),
              ElementsAre("1.000000e-09", "2.000000e+00"));
  EXPECT_THAT(FormatScores(std::vector<double>{std::nan(""), INFINITY, -INFINITY, -1}),
              ElementsAre("nan", "inf", "-inf", "-1.000000"));
}

TEST(Histogram, TallestWhereMostScoresAreAndVisibleWhereFew) {
  std::vector<double> scores(80, 0.0);
  scores.push_back(1.0);
  EXPECT_EQ(Histogram(scores, 4, false), "#  .");
  EXPECT_EQ(Histogram(scores, 4, true), "█  ▁");
}

TEST(Histogram, NothingToShowForEqualOrNoFiniteScores) {
  EXPECT_EQ(Histogram(std::vector<double>{}, 4, false), "");
  EXPECT_EQ(Histogram(std::vector<double>{1, 1}, 4, false), "");
  EXPECT_EQ(Histogram(std::vector<double>{std::nan(""), INFINITY}, 4, false), "");
}

TEST(Histogram, IgnoresNonFiniteScoresAndSurvivesTheWidestRange) {
  constexpr double kMax = std::numeric_limits<double>::max();
  EXPECT_EQ(Histogram(std::vector<double>{kMax, -kMax, std::nan(""), INFINITY}, 3, false), "# #");
}

TEST(Histogram, SurvivesTheNarrowestRange) {
  constexpr double kLeast = std::numeric_limits<double>::denorm_min();
  EXPECT_EQ(Histogram(std::vector<double>{0, kLeast}, 3, false), "# #");
  EXPECT_EQ(Histogram(std::vector<double>{-kLeast, 0, kLeast}, 3, false), "###");
  EXPECT_EQ(Histogram(std::vector<double>{1, std::nextafter(1.0, 2.0)}, 3, false), "# #");
}

TEST(EditDistance, CountsEditsAndSwaps) {
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("run", "run"), 0);
  EXPECT_EQ(EditDistance("rnu", "run"), 1);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
}

TEST(NearestWords, NearestFirstAndNoneThatIsFar) {
  const std::vector<std::string> words = {"paris", "parish", "party", "london"};
  EXPECT_THAT(NearestWords("pariss", words, 3), ElementsAre("paris", "parish"));
  EXPECT_THAT(NearestWords("pariss", words, 1), ElementsAre("paris"));
  EXPECT_THAT(NearestWords("zzzz", words, 3), IsEmpty());
  EXPECT_THAT(NearestWords("", words, 3), IsEmpty());
}

}  // namespace
}  // namespace tiny_knn
