#include "core/job/one_line.h"

#include <string>

#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

TEST(OneLine, ControlAndInvalidBytesCannotReachATerminal) {
  EXPECT_EQ(OneLine("plain ü 日本 🙂"), "plain ü 日本 🙂");
  EXPECT_EQ(OneLine("a\nb\x1b[31m\x7f"), "a\\x0ab\\x1b[31m\\x7f");
  EXPECT_EQ(OneLine("\xc2\x9b"), "\\x9b");
  EXPECT_EQ(OneLine(std::string("\xe2\x80") + "\xae"), "\\u202e");
  EXPECT_EQ(OneLine("\xff\xc3"), "\uFFFD\uFFFD");
  EXPECT_EQ(OneLine("\xc0\xaf"), "\uFFFD\uFFFD");            // overlong
  EXPECT_EQ(OneLine("\xed\xa0\x80"), "\uFFFD\uFFFD\uFFFD");  // surrogate
}

TEST(OneLine, OfOneLineIsTheSame) {
  const std::string line = OneLine(std::string("a\\\n\xff\xe2\x80") + "\xae");
  EXPECT_EQ(OneLine(line), line);
}

}  // namespace
}  // namespace tiny_knn
