#include "daemon/protocol/json_object.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;

std::string ErrorOf(std::string_view line) {
  const auto json = ParseJsonObject(line);
  if (json.ok()) return "ok";
  EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(json.status().message());
}

std::string Nested(const std::string& open, const std::string& close, int depth) {
  std::string line = "{\"a\":";
  for (int i = 1; i < depth; ++i) line += open;
  line += "1";
  for (int i = 1; i < depth; ++i) line += close;
  return line + "}";
}

TEST(ParseJsonObject, ReadsEveryKindOfValue) {
  const auto json = ParseJsonObject(
      "\t{\"a\":[1,-2,0.5,true,null,{\"b\":[]},\"\xC3\xA9\\u00e9\\n\"],\"c\":{}} \r");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(*json, nlohmann::json::parse(
                       R"({"a":[1,-2,0.5,true,null,{"b":[]},"\u00e9\u00e9\n"],"c":{}})"));
}

TEST(ParseJsonObject, RefusesWhatIsNotOneObject) {
  for (const char* line : {"", " ", "{", "}", "{}{}", "{} x", "x{}", "{\"a\":1,}", "{a:1}",
                           "{'a':1}", "{\"a\":}", "{\"a\":01}", "{\"a\":NaN}", "{\"a\":+1}",
                           "/**/{}", "{\"a\":\"\\ud800\"}", "{\"a\":\"\\x\"}"}) {
    EXPECT_THAT(ErrorOf(line), HasSubstr("not one JSON object")) << line;
  }
  for (const char* line : {"[]", "1", "\"a\"", "null", "true", "-1", "0.5"}) {
    EXPECT_EQ(ErrorOf(line), "not a JSON object") << line;
  }
}

TEST(ParseJsonObject, RefusesNestingBeyondTheLimit) {
  const std::vector<std::pair<std::string, std::string>> kinds = {{"[", "]"}, {"{\"a\":", "}"}};
  for (const auto& [open, close] : kinds) {
    EXPECT_EQ(ErrorOf(Nested(open, close, kMostJsonDepth)), "ok");
    EXPECT_EQ(ErrorOf(Nested(open, close, kMostJsonDepth + 1)),
              "objects and arrays are nested deeper than 16");
    EXPECT_EQ(ErrorOf(Nested(open, close, 100'000)),
              "objects and arrays are nested deeper than 16");
  }
}

TEST(ParseJsonObject, RefusesAMemberGivenTwiceAtAnyDepth) {
  EXPECT_EQ(ErrorOf(R"({"a":1,"a":1})"), "a member is given twice");
  EXPECT_EQ(ErrorOf(R"({"a":[{"b":1,"\u0062":2}]})"), "a member is given twice");
  EXPECT_EQ(ErrorOf(R"({"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]})"), "ok");
}

TEST(ParseJsonObject, RefusesNumbersThatNoDoubleHolds) {
  EXPECT_EQ(ErrorOf(R"({"a":1e309})"), "a number is too great");
  EXPECT_EQ(ErrorOf(R"({"a":-1e309})"), "a number is too great");
  EXPECT_EQ(ErrorOf(R"({"a":1e308})"), "ok");
  EXPECT_EQ(ErrorOf(R"({"a":123456789012345678901234567890})"), "ok");
}

TEST(ParseJsonObject, RefusesBytesThatAreNoText) {
  using std::string_literals::operator""s;
  EXPECT_THAT(ErrorOf("{}\0"s), HasSubstr("control character"));
  EXPECT_THAT(ErrorOf("{}\0{\"a\":1}"s), HasSubstr("control character"));
  EXPECT_THAT(ErrorOf("{\"a\":\"\x1b[2J\"}"), HasSubstr("control character"));
  EXPECT_THAT(ErrorOf("{\"a\":\n1}"), HasSubstr("control character"));
  EXPECT_THAT(ErrorOf("\xEF\xBB\xBF{}"), HasSubstr("byte order mark"));
  for (const char* bad : {"\xFF", "\xC3", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80"}) {
    EXPECT_THAT(ErrorOf("{\"a\":\"" + std::string(bad) + "\"}"), HasSubstr("not one JSON object"));
  }
}

TEST(ParseJsonObject, NeverRepeatsThePeersBytes) {
  for (const char* line : {"{\"SECRET\":1,\"SECRET\":2}", "{\"a\":SECRET}",
                           "{\"a\":\"SECRET\xFF\"}", "SECRET", "{\"SECRET\"}"}) {
    EXPECT_THAT(ErrorOf(line), Not(HasSubstr("SECRET")));
  }
}

}  // namespace
}  // namespace tiny_knn
