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
using testing::StartsWith;

JobView SomeJob(int64_t id) {
  JobView job;
  job.id = id;
  job.uid = 1000;
  job.state = JobState::kFailed;
  job.priority = -7;
  job.attempt = 2;
  job.shape = {1000, 2'000'000, 768, 500, 6'144'000'128};
  job.progress = 0.375;
  job.submitted_at = 1790000000.25;
  job.started_at = 1790000001.5;
  job.finished_at = 1790000003;
  job.elapsed_seconds = 1.5;
  job.eta_seconds = 0;
  job.jobs_before = {{1001, 2}, {0, 1}};
  job.reason = "the daemon is stopping";
  job.redacted = true;
  job.queries_path = "q \"1\".npy";
  job.docs_path = "/data/\xC3\xA9.npy";
  job.output_path = "/home/bea/out.pkl";
  job.device = "cuda";
  job.docs = "warm";
  job.error_code = "not_found";
  job.error = "/data/d.npy: no such file";
  job.report_json = R"({"k":500,"seconds":1.5})";
  return job;
}

void ExpectSame(const JobView& found, const JobView& expected) {
  EXPECT_EQ(JobViewToJson(found), JobViewToJson(expected));
  EXPECT_EQ(found.id, expected.id);
  EXPECT_EQ(found.uid, expected.uid);
  EXPECT_EQ(found.state, expected.state);
  EXPECT_EQ(found.priority, expected.priority);
  EXPECT_EQ(found.attempt, expected.attempt);
  EXPECT_EQ(found.shape, expected.shape);
  EXPECT_EQ(found.progress, expected.progress);
  EXPECT_EQ(found.submitted_at, expected.submitted_at);
  EXPECT_EQ(found.started_at, expected.started_at);
  EXPECT_EQ(found.finished_at, expected.finished_at);
  EXPECT_EQ(found.elapsed_seconds, expected.elapsed_seconds);
  EXPECT_EQ(found.eta_seconds, expected.eta_seconds);
  EXPECT_EQ(found.jobs_before, expected.jobs_before);
  EXPECT_EQ(found.reason, expected.reason);
  EXPECT_EQ(found.redacted, expected.redacted);
  EXPECT_EQ(found.queries_path, expected.queries_path);
  EXPECT_EQ(found.docs_path, expected.docs_path);
  EXPECT_EQ(found.output_path, expected.output_path);
  EXPECT_EQ(found.device, expected.device);
  EXPECT_EQ(found.docs, expected.docs);
  EXPECT_EQ(found.error_code, expected.error_code);
  EXPECT_EQ(found.error, expected.error);
  EXPECT_EQ(found.report_json, expected.report_json);
}

template <typename Body>
Body ThereAndBack(Body body) {
  const std::string line = EncodeReply({.id = 7, .body = std::move(body)});
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const absl::StatusOr<ServerMessage> message = DecodeServerMessage(line);
  if (!message.ok() || !std::holds_alternative<Reply>(*message)) {
    ADD_FAILURE() << line << ": " << message.status();
    return {};
  }
  const Reply& reply = std::get<Reply>(*message);
  EXPECT_EQ(reply.id, 7);
  EXPECT_EQ(EncodeReply(reply), line);
  EXPECT_TRUE(std::holds_alternative<Body>(reply.body)) << line;
  return std::get<Body>(reply.body);
}

std::string ErrorOf(std::string_view line) {
  const absl::StatusOr<ServerMessage> message = DecodeServerMessage(line);
  if (message.ok()) return "ok";
  EXPECT_EQ(message.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(message.status().message());
}

TEST(Replies, EveryReplyComesBackWhole) {
  const auto error = ThereAndBack(ErrorReply{ErrorCode::kQueueFull, "20000 jobs are queued"});
  EXPECT_EQ(error.code, ErrorCode::kQueueFull);
  EXPECT_EQ(error.message, "20000 jobs are queued");
  const auto hello = ThereAndBack(
      HelloReply{.protocol = 1, .features = {"a", "b"}, .build = "0.1.0+12", .uid = 1000});
  EXPECT_EQ(hello.protocol, 1);
  EXPECT_THAT(hello.features, ElementsAre("a", "b"));
  EXPECT_EQ(hello.build, "0.1.0+12");
  EXPECT_EQ(hello.uid, 1000);
  const auto submit = ThereAndBack(SubmitReply{.job = SomeJob(3), .existed = true});
  ExpectSame(submit.job, SomeJob(3));
  EXPECT_TRUE(submit.existed);
  const auto jobs = ThereAndBack(JobsReply{.jobs = {SomeJob(1), SomeJob(2)}, .more = true});
  ASSERT_EQ(jobs.jobs.size(), 2U);
  ExpectSame(jobs.jobs[1], SomeJob(2));
  EXPECT_TRUE(jobs.more);
  EXPECT_EQ(ThereAndBack(SubscribeReply{.sequence = 12}).sequence, 12);
  const auto log = ThereAndBack(LogReply{.text = "a\nb\n", .next_offset = 4, .finished = true});
  EXPECT_EQ(log.text, "a\nb\n");
  EXPECT_EQ(log.next_offset, 4);
  EXPECT_TRUE(log.finished);
  EXPECT_EQ(ThereAndBack(CleanReply{.removed = 5}).removed, 5);
  ThereAndBack(EmptyReply{});
}

TEST(Replies, StatsComeBackWhole) {
  StatsReply sent;
  sent.version = "0.1.0";
  sent.pid = 4711;
  sent.uid = 1000;
  sent.uptime_seconds = 2.5;
  sent.device = "cuda:0";
  sent.device_state = "job 12";
  sent.running_uid = 0;
  sent.max_memory_bytes = 16;
  sent.warm_docs = {{"/d.npy", "float16", "cosine", 99}};
  sent.queued = 1;
  sent.running = 2;
  sent.finished = 3;
  sent.connections = 4;
  sent.draining = true;
  sent.stopping = true;
  sent.journal = "ok";
  sent.socket_path = "/run/s";
  sent.state_folder = "/var/lib/s";
  const StatsReply found = ThereAndBack(sent);
  EXPECT_EQ(found.version, "0.1.0");
  EXPECT_EQ(found.pid, 4711);
  EXPECT_EQ(found.uid, 1000);
  EXPECT_EQ(found.uptime_seconds, 2.5);
  EXPECT_EQ(found.device, "cuda:0");
  EXPECT_EQ(found.device_state, "job 12");
  EXPECT_EQ(found.running_uid, 0);
  EXPECT_EQ(found.max_memory_bytes, 16);
  ASSERT_EQ(found.warm_docs.size(), 1U);
  EXPECT_EQ(found.warm_docs[0].docs_path, "/d.npy");
  EXPECT_EQ(found.warm_docs[0].dtype, "float16");
  EXPECT_EQ(found.warm_docs[0].metric, "cosine");
  EXPECT_EQ(found.warm_docs[0].bytes, 99);
  EXPECT_EQ(found.queued + 10 * found.running + 100 * found.finished, 321);
  EXPECT_EQ(found.connections, 4);
  EXPECT_TRUE(found.draining && found.stopping);
  EXPECT_EQ(found.journal, "ok");
  EXPECT_EQ(found.socket_path, "/run/s");
  EXPECT_EQ(found.state_folder, "/var/lib/s");
}

TEST(Replies, StatsOfADaemonWithoutARunningJobNameNoUser) {
  EXPECT_EQ(ThereAndBack(StatsReply{}).running_uid, std::nullopt);
  const std::string line = EncodeReply({.id = 1, .body = StatsReply{}});
  EXPECT_THAT(line, HasSubstr(R"("running_uid":null)"));
  std::string older = line;
  older.replace(older.find(R"("running_uid":null,)"), 19, "");
  EXPECT_EQ(ErrorOf(older), "ok");
}

TEST(Replies, EventsComeBackWhole) {
  const std::string line = EncodeEvent({.sequence = 12, .job = SomeJob(3)});
  const absl::StatusOr<ServerMessage> message = DecodeServerMessage(line);
  ASSERT_TRUE(message.ok()) << message.status();
  ASSERT_TRUE(std::holds_alternative<JobEvent>(*message));
  const JobEvent& event = std::get<JobEvent>(*message);
  EXPECT_EQ(event.sequence, 12);
  ExpectSame(event.job, SomeJob(3));
}

TEST(Replies, HaveTheirForm) {
  EXPECT_EQ(nlohmann::json::parse(EncodeReply({.id = 7, .body = EmptyReply{}})),
            nlohmann::json::parse(R"({"id":7,"ok":true,"type":"done"})"));
  EXPECT_EQ(
      nlohmann::json::parse(EncodeReply({.id = 7, .body = ErrorReply{ErrorCode::kDraining, "m"}})),
      nlohmann::json::parse(R"({"id":7,"ok":false,"error":{"code":"draining","message":"m"}})"));
  EXPECT_EQ(EncodeReply({.id = 7, .body = JobsReply{}}),
            R"({"id":7,"ok":true,"type":"jobs","jobs":[],"more":false})");
}

TEST(Replies, WhatANewerDaemonAddsIsIgnored) {
  EXPECT_EQ(ErrorOf(R"({"id":1,"ok":true,"type":"clean","removed":1,"later":[]})"), "ok");
  const auto message = DecodeServerMessage(
      R"({"id":1,"ok":false,"error":{"code":"too_hot","message":"wait","later":1}})");
  ASSERT_TRUE(message.ok());
  const auto& error = std::get<ErrorReply>(std::get<Reply>(*message).body);
  EXPECT_EQ(error.code, ErrorCode::kInternal);
  EXPECT_EQ(error.message, "wait");
}

TEST(Replies, WhatIsWrongIsNamed) {
  EXPECT_EQ(ErrorOf(R"({"ok":true,"type":"done"})"), "`id` is missing");
  EXPECT_EQ(ErrorOf(R"({"id":1,"type":"done"})"), "`ok` is missing");
  EXPECT_EQ(ErrorOf(R"({"id":1,"ok":true})"), "`type` is missing");
  EXPECT_EQ(ErrorOf(R"({"id":1,"ok":true,"type":"error"})"), "`type` is no reply of this protocol");
  EXPECT_EQ(ErrorOf(R"({"id":1,"ok":false,"type":"done"})"), "`error` is missing");
  EXPECT_EQ(ErrorOf(R"({"id":1,"ok":false,"error":{"code":"internal"}})"),
            "`error.message` is missing");
  EXPECT_EQ(ErrorOf(R"({"id":1,"ok":true,"type":"clean","removed":-1})"),
            "`removed` has to be a whole number of at least 0");
  EXPECT_EQ(ErrorOf(R"({"event":"nap","sequence":1,"job":{}})"), "`event` has to be job");
  EXPECT_EQ(ErrorOf(R"({"event":"job","sequence":1,"job":{}})"), "in `job`: `id` is missing");
  EXPECT_THAT(ErrorOf(R"({"id":1,"ok":true,"type":"jobs","more":false,"jobs":[5]})"),
              StartsWith("in `jobs[0]`: "));
}

// ---- A line holds no more than 1 MiB ------------------------------------------------------------

// A job whose texts are the longest that can come in.
JobView LongestJob(int64_t id, char filler) {
  JobView job = SomeJob(id);
  for (std::string* path : {&job.queries_path, &job.docs_path, &job.output_path}) {
    path->assign(4095, filler);
  }
  job.error.assign(1 << 14, filler);
  job.reason.assign(1 << 14, filler);
  job.jobs_before.assign(kMostUsersBefore, {4294967295, 9223372036854775807});
  job.report_json = R"({"a":")" + std::string((1 << 16) - 10, 'x') + R"("})";
  return job;
}

TEST(Replies, JobsThatDoNotFitALineAreLeftForLater) {
  for (const char filler : {'x', '\x01', '\xFF'}) {
    JobsReply sent;
    for (int id = 1; id <= 1000; ++id) sent.jobs.push_back(LongestJob(id, filler));
    const std::string line = EncodeReply({.id = 1, .body = sent});
    EXPECT_LE(line.size(), kMostLineBytes);
    EXPECT_GT(line.size(), kMostLineBytes / 2);  // as many as fit
    const auto message = DecodeServerMessage(line);
    ASSERT_TRUE(message.ok()) << message.status();
    const auto& found = std::get<JobsReply>(std::get<Reply>(*message).body);
    EXPECT_TRUE(found.more);
    ASSERT_FALSE(found.jobs.empty());
    EXPECT_EQ(found.jobs.back().id, static_cast<int64_t>(found.jobs.size()));
  }
}

TEST(Replies, AThousandJobsWithPathsOfAHundredBytesFitALine) {
  JobsReply sent;
  for (int id = 1; id <= 1000; ++id) {
    JobView& job = sent.jobs.emplace_back(SomeJob(id));
    for (std::string* path : {&job.queries_path, &job.docs_path, &job.output_path}) {
      path->assign(100, 'x');
    }
  }
  const std::string line = EncodeReply({.id = 1, .body = sent});
  EXPECT_LE(line.size(), kMostLineBytes);
  EXPECT_THAT(line, testing::EndsWith(R"(],"more":false})"));
}

TEST(Replies, ALineIsFilledToItsLastByte) {
  // The second job grows until it is the one that does not fit any more.
  JobsReply sent{.jobs = {SomeJob(1), SomeJob(2)}};
  const size_t others = EncodeReply({.id = 1, .body = sent}).size() - sent.jobs[1].docs_path.size();
  sent.jobs[1].docs_path.assign(1000, 'x');
  const size_t escaped = others + 1000 - EncodeReply({.id = 1, .body = sent}).size();
  EXPECT_EQ(escaped, 0U);
  sent.jobs[1].docs_path.assign(kMostLineBytes - others, 'x');
  EXPECT_EQ(EncodeReply({.id = 1, .body = sent}).size(), kMostLineBytes);
  sent.jobs[1].docs_path += 'x';
  const std::string line = EncodeReply({.id = 1, .body = sent});
  EXPECT_LT(line.size(), 2000U);
  EXPECT_THAT(line, HasSubstr(R"("more":true)"));
}

TEST(Replies, TheLongestValuesFitALine) {
  for (const char filler : {'x', '"', '\x01', '\xFF'}) {
    EXPECT_LE(EncodeEvent({.sequence = 1, .job = LongestJob(1, filler)}).size(), kMostLineBytes);
    EXPECT_LE(EncodeReply({.id = 1, .body = SubmitReply{.job = LongestJob(1, filler)}}).size(),
              kMostLineBytes);
    const std::string huge(3 << 20, filler);
    EXPECT_LE(EncodeReply({.id = 1, .body = ErrorReply{ErrorCode::kBadRequest, huge}}).size(),
              kMostLineBytes);
    StatsReply stats;
    stats.warm_docs.assign(100, {std::string(4095, filler), huge, huge, 1});
    EXPECT_LE(EncodeReply({.id = 1, .body = stats}).size(), kMostLineBytes);
  }
  // A log holds no control characters but line ends.
  for (const char filler : {'x', '\n', '"', '\xFF'}) {
    const LogReply log{.text = std::string(256 << 10, filler)};
    EXPECT_LE(EncodeReply({.id = 1, .body = log}).size(), kMostLineBytes);
  }
}

}  // namespace
}  // namespace tiny_knn
