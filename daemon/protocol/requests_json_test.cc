#include <array>
#include <limits>
#include <string>

#include "daemon/protocol/client_messages.h"
#include "daemon/protocol/line_decoder.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

JobSpec SomeSpec() {
  JobSpec spec;
  spec.queries_path = "q.npy";
  spec.docs_path = "/data/d.npy";
  spec.output_path = "out.pkl";
  spec.working_folder = "/home/bea";
  spec.k = 500;
  spec.umask = 0027;
  return spec;
}

std::string MustEncode(const Request& request) {
  const absl::StatusOr<std::string> line = EncodeRequest(request);
  EXPECT_TRUE(line.ok()) << line.status();
  return line.ok() ? *line : "";
}

Request MustDecode(std::string_view line) {
  std::variant<Request, RequestError> decoded = DecodeRequest(line);
  if (const auto* error = std::get_if<RequestError>(&decoded)) {
    ADD_FAILURE() << line << ": " << error->error.message;
    return {};
  }
  return std::get<Request>(std::move(decoded));
}

template <typename Body>
Body ThereAndBack(Body body) {
  const std::string line = MustEncode({.id = kMost, .body = std::move(body)});
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const Request request = MustDecode(line);
  EXPECT_EQ(request.id, kMost);
  EXPECT_EQ(MustEncode(request), line);
  EXPECT_TRUE(std::holds_alternative<Body>(request.body));
  return std::get<Body>(request.body);
}

RequestError ErrorOf(std::string_view line) {
  std::variant<Request, RequestError> decoded = DecodeRequest(line);
  if (auto* error = std::get_if<RequestError>(&decoded)) {
    EXPECT_EQ(error->error.message.find('\n'), std::string::npos);
    return *error;
  }
  return {.id = -1, .error = {.code = ErrorCode::kInternal, .message = "no error"}};
}

std::string MessageOf(std::string_view line) {
  const RequestError error = ErrorOf(line);
  EXPECT_EQ(error.error.code, ErrorCode::kBadRequest) << line;
  return error.error.message;
}

// A submit with other members than these.
std::string Submit(const nlohmann::json& patch) {
  nlohmann::json json = nlohmann::json::parse(MustEncode(
      {.id = 3,
       .body = SubmitRequest{.key = "abc", .spec = SomeSpec(), .shape = {1, 2, 3, 4, 5}}}));
  json.merge_patch(patch);
  return json.dump();
}

// ---- What is said is heard ----------------------------------------------------------------------

TEST(Requests, EveryRequestComesBackWhole) {
  const auto hello = ThereAndBack(HelloRequest{2, 9, "tiny-knn 0.1.0"});
  EXPECT_EQ(hello.least_protocol, 2);
  EXPECT_EQ(hello.greatest_protocol, 9);
  EXPECT_EQ(hello.client, "tiny-knn 0.1.0");
  const auto submit = ThereAndBack(SubmitRequest{
      .key = "!~" + std::string(126, 'k'),
      .priority = -100,
      .timeout_seconds = kMostTimeoutSeconds,
      .spec = SomeSpec(),
      .shape = {kMost, 2, 3, 4, 5},
  });
  EXPECT_EQ(submit.key.size(), kMostKeyBytes);
  EXPECT_EQ(submit.priority, -100);
  EXPECT_EQ(submit.timeout_seconds, kMostTimeoutSeconds);
  EXPECT_EQ(submit.spec.queries_path, "q.npy");
  EXPECT_EQ(submit.spec.working_folder, "/home/bea");
  EXPECT_EQ(submit.spec.k, 500);
  EXPECT_EQ(submit.spec.umask, 0027);
  EXPECT_EQ(submit.shape, (JobShape{kMost, 2, 3, 4, 5}));
  EXPECT_THAT(ThereAndBack(StatusRequest{{1, kMost}}).jobs, ElementsAre(1, kMost));
  const auto list =
      ThereAndBack(ListRequest{.finished = false, .everyone = true, .after_job = 7, .limit = 9});
  EXPECT_FALSE(list.finished);
  EXPECT_TRUE(list.everyone);
  EXPECT_EQ(list.after_job, 7);
  EXPECT_EQ(list.limit, 9);
  EXPECT_THAT(ThereAndBack(WaitRequest{{3}}).jobs, ElementsAre(3));
  EXPECT_THAT(ThereAndBack(SubscribeRequest{{4}}).jobs, ElementsAre(4));
  EXPECT_THAT(ThereAndBack(CancelRequest{{5, 6}}).jobs, ElementsAre(5, 6));
  const auto log = ThereAndBack(LogRequest{.job = 8, .offset = kMost});
  EXPECT_EQ(log.job, 8);
  EXPECT_EQ(log.offset, kMost);
  ThereAndBack(CleanRequest{});
  ThereAndBack(StatsRequest{});
  EXPECT_TRUE(ThereAndBack(DrainRequest{.undo = true}).undo);
  EXPECT_TRUE(ThereAndBack(ShutdownRequest{.now = true}).now);
}

TEST(Requests, OptionalMembersHaveTheirDefaults) {
  const auto list = std::get<ListRequest>(MustDecode(R"({"id":1,"type":"list"})").body);
  EXPECT_TRUE(list.finished);
  EXPECT_FALSE(list.everyone);
  EXPECT_EQ(list.after_job, 0);
  EXPECT_EQ(list.limit, 1000);
  EXPECT_THAT(std::get<SubscribeRequest>(MustDecode(R"({"id":1,"type":"subscribe"})").body).jobs,
              IsEmpty());
  EXPECT_FALSE(std::get<ShutdownRequest>(MustDecode(R"({"id":1,"type":"shutdown"})").body).now);
  const auto submit =
      std::get<SubmitRequest>(MustDecode(R"({"id":1,"type":"submit","key":"k",)"
                                         R"("spec":{"queries":"/q","docs":"/d","output":"/o"}})")
                                  .body);
  EXPECT_EQ(submit.priority, 0);
  EXPECT_EQ(submit.timeout_seconds, 0);
  EXPECT_EQ(submit.shape, JobShape());
}

TEST(Requests, UnknownMembersAreIgnoredButInASpec) {
  MustDecode(R"({"id":1,"type":"stats","later":{"a":[1]}})");
  MustDecode(Submit({{"shape", {{"later", 1}}}}));
  EXPECT_THAT(MessageOf(Submit({{"spec", {{"kk", 5}}}})), StartsWith("submit: in `spec`: "));
}

TEST(Requests, ArgumentsThatNoJsonHoldsAreRefusedWhileEncoding) {
  JobSpec spec = SomeSpec();
  spec.docs_path = "\xFF.npy";
  EXPECT_EQ(EncodeRequest({.id = 1, .body = SubmitRequest{.key = "k", .spec = spec, .shape = {}}})
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  spec.docs_path = std::string(kMostLineBytes, 'x');
  EXPECT_EQ(EncodeRequest({.id = 1, .body = SubmitRequest{.key = "k", .spec = spec, .shape = {}}})
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  const std::string line = MustEncode({.id = 1, .body = HelloRequest{1, 1, "a\xFF\x1B[2J"}});
  EXPECT_EQ(std::get<HelloRequest>(MustDecode(line).body).client, "a\xEF\xBF\xBD?[2J");
}

// ---- What is wrong is refused, and named --------------------------------------------------------

TEST(Requests, ErrorsCarryTheIdIfItCouldBeRead) {
  EXPECT_EQ(ErrorOf("{").id, 0);
  EXPECT_EQ(ErrorOf("[]").id, 0);
  EXPECT_EQ(ErrorOf(R"({"type":"stats"})").id, 0);
  EXPECT_EQ(ErrorOf(R"({"id":7})").id, 7);
  EXPECT_EQ(ErrorOf(R"({"id":7,"type":"nap"})").id, 7);
  EXPECT_EQ(ErrorOf(R"({"id":7,"type":"log"})").id, 7);
  EXPECT_EQ(MessageOf(R"({"id":7,"type":"log"})"), "log: `job` is missing");
  EXPECT_THAT(MessageOf(R"({"id":7,"type":"nap"})"),
              HasSubstr("`type` has to be one of hello, submit, status, "));
  EXPECT_EQ(MessageOf(R"({"id":7,"type":5})"), "`type` has to be a string");
}

TEST(Requests, IdsAreWholeNumbersOf64Bits) {
  for (const char* id : {"0", "-1", "1.0", "1e3", "9223372036854775808", "18446744073709551616",
                         "1e400", "\"1\"", "null", "true", "[1]"}) {
    const RequestError error = ErrorOf(fmt::format(R"({{"id":{},"type":"stats"}})", id));
    EXPECT_EQ(error.id, 0) << id;
    EXPECT_EQ(error.error.code, ErrorCode::kBadRequest) << id;
  }
  EXPECT_EQ(MessageOf(R"({"id":1.0,"type":"stats"})"),
            "`id` has to be a whole number of at least 1");
}

TEST(Requests, NumbersStayInTheirRange) {
  EXPECT_EQ(MessageOf(Submit({{"priority", 101}})),
            "submit: `priority` has to be a whole number from -100 to 100");
  EXPECT_THAT(MessageOf(Submit({{"priority", -101}})), HasSubstr("`priority`"));
  EXPECT_THAT(MessageOf(Submit({{"priority", 5000000000}})), HasSubstr("`priority`"));
  EXPECT_THAT(MessageOf(Submit({{"priority", 1.5}})), HasSubstr("`priority`"));
  EXPECT_THAT(MessageOf(Submit({{"timeout_seconds", -1}})), HasSubstr("`timeout_seconds`"));
  EXPECT_THAT(MessageOf(Submit({{"timeout_seconds", kMostTimeoutSeconds + 1}})),
              HasSubstr("`timeout_seconds`"));
  EXPECT_EQ(MessageOf(Submit({{"shape", {{"docs", -1}}}})),
            "submit: `shape.docs` has to be a whole number of at least 0");
  EXPECT_THAT(MessageOf(Submit({{"shape", 5}})), HasSubstr("`shape` has to be an object"));
  for (const char* limit : {"0", "1001", "-1", "\"5\""}) {
    EXPECT_EQ(MessageOf(fmt::format(R"({{"id":1,"type":"list","limit":{}}})", limit)),
              "list: `limit` has to be a whole number from 1 to 1000");
  }
  EXPECT_THAT(MessageOf(R"({"id":1,"type":"list","after_job":-1})"), HasSubstr("`after_job`"));
  EXPECT_THAT(MessageOf(R"({"id":1,"type":"log","job":0})"), HasSubstr("`job`"));
  EXPECT_THAT(MessageOf(R"({"id":1,"type":"drain","undo":1})"),
              HasSubstr("`undo` has to be true or false"));
}

TEST(Requests, KeysArePrintableAsciiWithoutSpaces) {
  for (const std::string& key :
       {std::string(), std::string("a b"), std::string("\x7F"), std::string("\t"),
        std::string("\xC3\xA9"), std::string(129, 'k'), std::string("a\0b", 3)}) {
    EXPECT_EQ(MessageOf(Submit({{"key", key}})),
              "submit: `key` has to be 1 to 128 printable ASCII characters without spaces");
  }
}

TEST(Requests, AListOfJobsHoldsIdsAndNotTooMany) {
  for (const char* type : {"status", "wait", "subscribe", "cancel"}) {
    for (const char* jobs : {"5", "[0]", "[-1]", "[1.5]", "[\"1\"]", "[null]", "{}", "null"}) {
      EXPECT_THAT(MessageOf(fmt::format(R"({{"id":1,"type":"{}","jobs":{}}})", type, jobs)),
                  HasSubstr("`jobs` has to be a list of job ids"));
    }
    std::string jobs = "1";
    for (int i = 1; i < 1000; ++i) jobs += ",1";
    MustDecode(fmt::format(R"({{"id":1,"type":"{}","jobs":[{}]}})", type, jobs));
    const RequestError error =
        ErrorOf(fmt::format(R"({{"id":1,"type":"{}","jobs":[{},1]}})", type, jobs));
    EXPECT_EQ(error.error.code, ErrorCode::kTooManyJobs);
    EXPECT_THAT(error.error.message, HasSubstr("has 1001 ids, and at most 1000"));
  }
}

TEST(Requests, AProtocolRangeIsOne) {
  for (const char* range : {"[2,1]", "[1]", "[1,1,1]", "[0,1]", "[1,4294967297]", "[1,1.5]", "1",
                            "null", "{}", "[null,1]"}) {
    EXPECT_EQ(MessageOf(fmt::format(R"({{"id":1,"type":"hello","protocol":{}}})", range)),
              "hello: `protocol` has to be two whole numbers of at least 1, the lesser first");
  }
  EXPECT_EQ(MessageOf(R"({"id":1,"type":"hello"})"), "hello: `protocol` is missing");
}

TEST(Requests, ASpecSaysWhereItsPathsLie) {
  EXPECT_THAT(MessageOf(Submit({{"spec", {{"output", nullptr}}}})), HasSubstr("`output`"));
  EXPECT_THAT(MessageOf(Submit({{"spec", {{"working_folder", nullptr}}}})),
              HasSubstr("`working_folder`"));
  EXPECT_THAT(MessageOf(Submit({{"spec", {{"working_folder", "/" + std::string(4095, 'x')}}}})),
              HasSubstr("a path of 4096 bytes; a path has at most 4095"));
  EXPECT_THAT(MessageOf(Submit({{"spec", {{"queries", 5}}}})), StartsWith("submit: in `spec`: "));
  EXPECT_THAT(MessageOf(Submit({{"spec", 5}})), HasSubstr("`spec` has to be an object"));
}

// ---- Errors by name -----------------------------------------------------------------------------

TEST(ErrorCodes, EveryCodeComesBackFromItsName) {
  for (int i = 0; i <= static_cast<int>(ErrorCode::kInternal); ++i) {
    const auto code = static_cast<ErrorCode>(i);
    EXPECT_EQ(ParseErrorCode(ErrorCodeName(code)), code);
    EXPECT_FALSE(ToStatus({.code = code, .message = "m"}).ok());
    EXPECT_EQ(ToStatus({.code = code, .message = "m"}).message(), "m");
  }
  EXPECT_EQ(ErrorCodeName(ErrorCode::kQueueFull), "queue_full");
  EXPECT_EQ(ParseErrorCode("queue full"), std::nullopt);
}

TEST(ErrorCodes, AreTheStatusThatTheProgramHandles) {
  const auto status = [](ErrorCode code) {
    return ToStatus({.code = code, .message = "m"}).code();
  };
  EXPECT_EQ(status(ErrorCode::kBadRequest), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status(ErrorCode::kUnknownJob), absl::StatusCode::kNotFound);
  EXPECT_EQ(status(ErrorCode::kNotAllowed), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(status(ErrorCode::kQueueFull), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status(ErrorCode::kJournalFull), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status(ErrorCode::kDraining), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status(ErrorCode::kStopping), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace tiny_knn
