#include "daemon/protocol/worker_messages.h"

#include <string>

#include "daemon/protocol/line_decoder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

using testing::HasSubstr;

JobSpec SomeSpec() {
  JobSpec spec;
  spec.queries_path = "q.npy";
  spec.docs_path = "d.npy";
  spec.output_path = "o.pkl";
  spec.working_folder = "/home/bea";
  return spec;
}

WorkerFinished SomeFinish() {
  return {.job = 5,
          .error_code = "ok",
          .error = "",
          .output_path = "/home/bea/o.pkl",
          .device = "cuda:0",
          .docs = "warm",
          .report_json = R"({"rescored_pairs":12})",
          .search_seconds = 1.5,
          .total_seconds = 2.25,
          .warm_docs = {{"/d.npy", "float32", "l2", 99}}};
}

template <typename Body>
Body ToWorkerAndBack(Body body) {
  const absl::StatusOr<std::string> line = EncodeToWorker(std::move(body));
  EXPECT_TRUE(line.ok()) << line.status();
  const absl::StatusOr<ToWorker> message = DecodeToWorker(*line);
  EXPECT_TRUE(message.ok()) << message.status();
  EXPECT_EQ(*EncodeToWorker(*message), *line);
  EXPECT_TRUE(std::holds_alternative<Body>(*message)) << *line;
  return std::get<Body>(*message);
}

template <typename Body>
Body FromWorkerAndBack(Body body) {
  const std::string line = EncodeFromWorker(std::move(body));
  const absl::StatusOr<FromWorker> message = DecodeFromWorker(line);
  EXPECT_TRUE(message.ok()) << message.status();
  EXPECT_EQ(EncodeFromWorker(*message), line);
  EXPECT_TRUE(std::holds_alternative<Body>(*message)) << line;
  return std::get<Body>(*message);
}

// The error of a `finished` with other members than these.
std::string FinishError(const nlohmann::json& patch) {
  nlohmann::json json = nlohmann::json::parse(EncodeFromWorker(SomeFinish()));
  for (const auto& [name, value] : patch.items()) json[name] = value;
  const absl::StatusOr<FromWorker> message = DecodeFromWorker(json.dump());
  return message.ok() ? "ok" : std::string(message.status().message());
}

TEST(WorkerMessages, EveryMessageComesBackWhole) {
  const auto run = ToWorkerAndBack(WorkerRun{.job = 5,
                                             .attempt = 2,
                                             .temporary_tag = "0a1b2c3d-5-2",
                                             .most_memory_bytes = 6,
                                             .most_warm_bytes = 8,
                                             .most_threads = 7,
                                             .spec = SomeSpec()});
  EXPECT_EQ(run.job, 5);
  EXPECT_EQ(run.attempt, 2);
  EXPECT_EQ(run.temporary_tag, "0a1b2c3d-5-2");
  EXPECT_EQ(run.most_memory_bytes, 6);
  EXPECT_EQ(run.most_warm_bytes, 8);
  EXPECT_EQ(run.most_threads, 7);
  EXPECT_EQ(run.spec.working_folder, "/home/bea");
  EXPECT_EQ(ToWorkerAndBack(WorkerCancel{.job = 5}).job, 5);
  const auto remove =
      ToWorkerAndBack(WorkerRemove{.job = 5, .temporary_tag = "t", .spec = SomeSpec()});
  EXPECT_EQ(remove.job, 5);
  EXPECT_EQ(remove.temporary_tag, "t");
  EXPECT_EQ(remove.spec.output_path, "o.pkl");
  const auto hello = FromWorkerAndBack(WorkerHello{.build = "0.1.0+12", .pid = 99});
  EXPECT_EQ(hello.build, "0.1.0+12");
  EXPECT_EQ(hello.pid, 99);
  FromWorkerAndBack(WorkerAlive{});
  const auto progress = FromWorkerAndBack(WorkerProgress{5, 6, 7});
  EXPECT_EQ(progress.job, 5);
  EXPECT_EQ(progress.pairs_done, 6);
  EXPECT_EQ(progress.pairs_total, 7);
  const auto log = FromWorkerAndBack(WorkerLog{.job = 5, .text = "read 5 rows"});
  EXPECT_EQ(log.job, 5);
  EXPECT_EQ(log.text, "read 5 rows");
  const auto finished = FromWorkerAndBack(SomeFinish());
  EXPECT_EQ(finished.job, 5);
  EXPECT_EQ(finished.error_code, "ok");
  EXPECT_EQ(finished.error, "");
  EXPECT_EQ(finished.output_path, "/home/bea/o.pkl");
  EXPECT_EQ(finished.device, "cuda:0");
  EXPECT_EQ(finished.docs, "warm");
  EXPECT_EQ(finished.report_json, R"({"rescored_pairs":12})");
  EXPECT_EQ(finished.search_seconds, 1.5);
  EXPECT_EQ(finished.total_seconds, 2.25);
  ASSERT_EQ(finished.warm_docs.size(), 1U);
  EXPECT_EQ(finished.warm_docs[0].metric, "l2");
  EXPECT_EQ(FromWorkerAndBack(WorkerRemoved{.job = 5}).job, 5);
}

TEST(WorkerMessages, WhatAHostileWorkerSaysIsBounded) {
  EXPECT_EQ(FinishError(nlohmann::json::object()), "ok");
  EXPECT_THAT(FinishError({{"error", std::string((1 << 14) + 1, 'x')}}), HasSubstr("`error`"));
  EXPECT_THAT(FinishError({{"error", "a line\nand another"}}),
              HasSubstr("without control characters"));
  EXPECT_THAT(FinishError({{"output_path", std::string(4096, 'x')}}), HasSubstr("`output_path`"));
  EXPECT_THAT(FinishError({{"device", std::string(257, 'x')}}), HasSubstr("`device`"));
  EXPECT_THAT(FinishError({{"device", "\x1B[2J"}}), HasSubstr("without control characters"));
  EXPECT_THAT(FinishError({{"error_code", "fine"}}), HasSubstr("the name of a status code"));
  EXPECT_THAT(FinishError({{"docs_state", "hot"}}), HasSubstr("`docs_state`"));
  EXPECT_THAT(FinishError({{"search_seconds", -1}}), HasSubstr("`search_seconds`"));
  EXPECT_THAT(FinishError({{"job", 0}}), HasSubstr("`job`"));
  EXPECT_THAT(FinishError({{"report", {{"a", std::string(1 << 16, 'x')}}}}),
              HasSubstr("`report` has to be null or an object of at most 65536 bytes"));
  nlohmann::json deep = 1;
  for (int i = 0; i < 5; ++i) deep = {{"a", deep}};
  EXPECT_THAT(FinishError({{"report", deep}}), HasSubstr("nested 4 deep at most"));
  const nlohmann::json docs = {{"docs_path", "/d"}, {"dtype", "int8"}, {"metric", "ip"}};
  EXPECT_EQ(FinishError({{"warm_docs", nlohmann::json::array({docs})}}),
            "finished: `warm_docs[0].bytes` is missing");
  EXPECT_THAT(FinishError({{"warm_docs", std::vector<int>(33, 1)}}),
              HasSubstr("a list of at most 32 objects"));
  EXPECT_THAT(std::string(DecodeFromWorker(R"({"type":"run","job":5})").status().message()),
              HasSubstr("`type` has to be one of hello, alive, "));
  EXPECT_FALSE(DecodeFromWorker("{}").ok());
  EXPECT_FALSE(DecodeFromWorker(R"({"type":"log","job":5,"text":5})").ok());
  EXPECT_FALSE(
      DecodeFromWorker(R"({"type":"progress","job":5,"pairs_done":-1,"pairs_total":2})").ok());
}

TEST(WorkerMessages, WhatAWorkerSaysFitsALineAndIsUnderstood) {
  for (const char filler : {'x', '"', '\x01', '\n', '\xFF'}) {
    const std::string huge(2 << 20, filler);
    WorkerFinished finished = SomeFinish();
    finished.error = huge;
    finished.output_path.assign(4095, filler);
    finished.device = huge;
    finished.report_json = R"({"a":")" + std::string((1 << 16) - 10, 'x') + R"("})";
    finished.warm_docs.assign(40, {std::string(4095, filler), huge, huge, 1});
    const std::string line = EncodeFromWorker(finished);
    EXPECT_LE(line.size(), kMostLineBytes);
    const absl::StatusOr<FromWorker> message = DecodeFromWorker(line);
    EXPECT_TRUE(message.ok()) << message.status();
    EXPECT_TRUE(DecodeFromWorker(EncodeFromWorker(WorkerLog{.job = 1, .text = huge})).ok());
  }
}

TEST(WorkerMessages, ASpecThatJsonCannotCarryIsAnError) {
  JobSpec spec = SomeSpec();
  spec.docs_path = "\xFF";
  EXPECT_EQ(
      EncodeToWorker(WorkerRemove{.job = 1, .temporary_tag = "t", .spec = spec}).status().code(),
      absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tiny_knn
