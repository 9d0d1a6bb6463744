#include "cli/values.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(ParseCount, TakesDigitsInRange) {
  EXPECT_EQ(*ParseCount("--k", "1", 1), 1);
  EXPECT_EQ(*ParseCount("--k", "007", 1), 7);
  EXPECT_EQ(*ParseCount("--k", "9223372036854775807", 1), INT64_MAX);
  EXPECT_EQ(*ParseCount("--verify", "0", 0), 0);
  EXPECT_EQ(*ParseCount("--threads", "8", 1, 8), 8);
}

TEST(ParseCount, RefusesEverythingElseNamingFlagAndText) {
  for (const char* text : {"", "0", "-1", "+1", " 1", "1 ", "1.0", "1e3", "1k", "0x10", "1_000",
                           "9223372036854775808", "99999999999999999999999", "NaN"}) {
    const auto count = ParseCount("--k", text, 1);
    ASSERT_FALSE(count.ok()) << text;
    EXPECT_THAT(Message(count.status()), StartsWith("--k expects a whole number of at least 1"));
    EXPECT_THAT(Message(count.status()), HasSubstr(std::string("'") + text + "'"));
  }
}

TEST(ParseCount, SaysTheRangeWhenThereIsOne) {
  EXPECT_THAT(Message(ParseCount("--threads", "9", 1, 8).status()), HasSubstr("from 1 to 8"));
}

TEST(ParseSize, UnitsAreBinaryUnlessDecimalIsSpeltOut) {
  EXPECT_EQ(*ParseSize("--m", "1"), 1);
  EXPECT_EQ(*ParseSize("--m", "1000000"), 1000000);
  EXPECT_EQ(*ParseSize("--m", "17B"), 17);
  EXPECT_EQ(*ParseSize("--m", "2K"), 2048);
  EXPECT_EQ(*ParseSize("--m", "512M"), int64_t{512} << 20);
  EXPECT_EQ(*ParseSize("--m", "4G"), int64_t{4} << 30);
  EXPECT_EQ(*ParseSize("--m", "4g"), int64_t{4} << 30);
  EXPECT_EQ(*ParseSize("--m", "4GiB"), int64_t{4} << 30);
  EXPECT_EQ(*ParseSize("--m", "1T"), int64_t{1} << 40);
  EXPECT_EQ(*ParseSize("--m", "4GB"), 4000000000);
  EXPECT_EQ(*ParseSize("--m", "3kb"), 3000);
}

TEST(ParseSize, FractionsAreExactAndDropPartsOfAByte) {
  EXPECT_EQ(*ParseSize("--m", "1.5GiB"), 1610612736);
  EXPECT_EQ(*ParseSize("--m", "0.5K"), 512);
  EXPECT_EQ(*ParseSize("--m", "1.0001K"), 1024);
  EXPECT_EQ(*ParseSize("--m", "0.001K"), 1);
  EXPECT_EQ(*ParseSize("--m", "0.1234567890123456789123T"), 135742175046);
}

TEST(ParseSize, RefusesEverythingElse) {
  for (const char* text : {"",
                           "G",
                           "0",
                           "0G",
                           "0.0001K",
                           "-1G",
                           "+1G",
                           "1 G",
                           " 1G",
                           "1G ",
                           "1.G",
                           ".5G",
                           "1.5",
                           "1.5B",
                           "1,5G",
                           "4GG",
                           "4Gi",
                           "4Q",
                           "4iB",
                           "1e9",
                           "0x10",
                           "lots",
                           "9223372036854775808",
                           "8388608T",
                           "99999999999999999999G",
                           "1.2.3G"}) {
    const auto size = ParseSize("--memory-limit", text);
    ASSERT_FALSE(size.ok()) << text << " is " << *size;
    EXPECT_THAT(Message(size.status()), StartsWith("--memory-limit expects a size such as 4G"));
  }
  EXPECT_EQ(*ParseSize("--m", "8388607T"), int64_t{8388607} << 40);
}

TEST(ParseRange, AllItsForms) {
  const auto range = [](const char* text, int64_t size) {
    const auto parsed = ParseRange("--queries", text, size);
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    return std::pair(parsed->begin, parsed->end);
  };
  EXPECT_EQ(range("0:5", 10), std::pair(INT64_C(0), INT64_C(5)));
  EXPECT_EQ(range("7:", 10), std::pair(INT64_C(7), INT64_C(10)));
  EXPECT_EQ(range(":3", 10), std::pair(INT64_C(0), INT64_C(3)));
  EXPECT_EQ(range(":", 10), std::pair(INT64_C(0), INT64_C(10)));
  EXPECT_EQ(range("4", 10), std::pair(INT64_C(4), INT64_C(5)));
  EXPECT_EQ(range("8:99", 10), std::pair(INT64_C(8), INT64_C(10)));
}

TEST(ParseRange, RefusesEmptyBackwardAndOutside) {
  for (const char* text : {"", "5:5", "5:4", "10", "10:12", "-1:2", "a", "1:2:3", "1-2",
                           "9223372036854775807", "99999999999999999999"}) {
    const auto range = ParseRange("--queries", text, 10);
    ASSERT_FALSE(range.ok()) << text;
    EXPECT_THAT(Message(range.status()), StartsWith("--queries "));
  }
}

TEST(ParseDuration, UnitsAreSecondsMinutesHoursAndDays) {
  EXPECT_EQ(*ParseDuration("--t", "0"), 0);
  EXPECT_EQ(*ParseDuration("--t", "30"), 30);
  EXPECT_EQ(*ParseDuration("--t", "30s"), 30);
  EXPECT_EQ(*ParseDuration("--t", "10m"), 600);
  EXPECT_EQ(*ParseDuration("--t", "2H"), 7200);
  EXPECT_EQ(*ParseDuration("--t", "1d"), 86400);
  EXPECT_EQ(*ParseDuration("--t", "100000000"), 100'000'000);
}

TEST(ParseDuration, RefusesWhatIsNone) {
  for (const char* text : {"", "s", "-1", "1.5h", "10 m", "10min", "1h30m", "100000001", "2000d",
                           "9223372036854775807d", "99999999999999999999"}) {
    const auto seconds = ParseDuration("--timeout", text);
    ASSERT_FALSE(seconds.ok()) << text << " is " << *seconds;
    EXPECT_THAT(Message(seconds.status()), StartsWith("--timeout expects a duration such as 30s"));
  }
}

TEST(ParseInteger, MayBeNegative) {
  EXPECT_EQ(*ParseInteger("--p", "-100", -100, 100), -100);
  EXPECT_EQ(*ParseInteger("--p", "0", -100, 100), 0);
  EXPECT_EQ(*ParseInteger("--p", "100", -100, 100), 100);
  for (const char* text : {"", "-", "--1", "+1", "101", "-101", "1.0", "a", "1 "}) {
    const auto value = ParseInteger("--priority", text, -100, 100);
    ASSERT_FALSE(value.ok()) << text;
    EXPECT_THAT(Message(value.status()),
                StartsWith("--priority expects a whole number from -100 to 100"));
  }
}

TEST(CheckDevice, KnowsTheNamesOfDevices) {
  for (const char* text : {"auto", "cpu", "cuda", "cuda:0", "cuda:15"}) {
    EXPECT_TRUE(CheckDevice("--device", text).ok()) << text;
  }
  for (const char* text : {"", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:1000", "cuda0"}) {
    EXPECT_THAT(Message(CheckDevice("--device", text)), StartsWith("--device expects auto, cpu"));
  }
}

}  // namespace
}  // namespace tiny_knn
