#include "daemon/protocol/job_view.h"

#include <limits>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

using Json = nlohmann::json;

JobView WaitingJob() {
  JobView job;
  job.id = 12;
  job.queries_path = "q.npy";
  job.docs_path = "d.npy";
  job.output_path = "/o.pkl";
  return job;
}

std::string ErrorOf(const Json& patch) {
  Json json = JobViewToJson(WaitingJob());
  for (const auto& [name, value] : patch.items()) json[name] = value;
  const absl::StatusOr<JobView> view = JobViewFromJson(json);
  if (view.ok()) return "ok";
  EXPECT_EQ(view.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(view.status().message());
}

TEST(JobView, EveryStateComesBackFromItsName) {
  for (const JobState state : {JobState::kQueued, JobState::kRunning, JobState::kDone,
                               JobState::kFailed, JobState::kCancelled}) {
    EXPECT_EQ(ParseJobState(JobStateName(state)), state);
    JobView view = WaitingJob();
    view.state = state;
    EXPECT_EQ(JobViewFromJson(JobViewToJson(view))->state, state);
  }
  EXPECT_EQ(JobStateName(JobState::kCancelled), "cancelled");
  EXPECT_EQ(ParseJobState("Done"), std::nullopt);
}

TEST(JobView, WhatIsNotKnownIsNull) {
  const Json json = JobViewToJson(WaitingJob());
  std::set<std::string> nulls;
  for (const auto& [name, value] : json.items()) {
    if (value.is_null()) nulls.insert(name);
  }
  EXPECT_EQ(nulls, (std::set<std::string>{"k", "started_at", "finished_at", "elapsed_seconds",
                                          "eta_seconds", "reason", "device", "docs_state",
                                          "error_code", "error", "report"}));
  EXPECT_EQ(json.size(), 27U);
  EXPECT_EQ(json["jobs_before"], Json::array());
  EXPECT_EQ(json["redacted"], false);
}

TEST(JobView, NumbersThatJsonLacksAreMadeHarmless) {
  JobView job = WaitingJob();
  job.progress = std::numeric_limits<double>::quiet_NaN();
  job.submitted_at = -std::numeric_limits<double>::infinity();
  job.eta_seconds = std::numeric_limits<double>::infinity();
  job.started_at = -1;
  const absl::StatusOr<JobView> found = JobViewFromJson(JobViewToJson(job));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->progress, 0);
  EXPECT_EQ(found->submitted_at, 0);
  EXPECT_EQ(found->eta_seconds, 0);
  EXPECT_EQ(found->started_at, 0);
  job.progress = 1.0000001;
  EXPECT_EQ(JobViewFromJson(JobViewToJson(job))->progress, 1);
}

TEST(JobView, AReportThatIsNoneIsNull) {
  JobView job = WaitingJob();
  for (const std::string& report :
       {std::string("{"), std::string("[1]"), std::string("5"), std::string("\xFF"),
        std::string(R"({"a":{"a":{"a":{"a":{}}}}})"),
        R"({"a":")" + std::string(1 << 16, 'x') + R"("})"}) {
    job.report_json = report;
    EXPECT_TRUE(JobViewToJson(job)["report"].is_null()) << report;
  }
  job.report_json = R"({"a":{"a":{"a":{}}}})";
  EXPECT_EQ(JobViewFromJson(JobViewToJson(job))->report_json, job.report_json);
}

TEST(JobView, LongTextsAreCutBetweenCharacters) {
  JobView job = WaitingJob();
  job.error = "x";
  for (int i = 0; i < 10'000; ++i) job.error += "\xC3\xA9";
  const std::string error = JobViewToJson(job)["error"];
  EXPECT_EQ(error.size(), (size_t{1} << 14) - 1);
  EXPECT_TRUE(error.ends_with("\xC3\xA9"));
}

TEST(JobView, ADaemonThatKnowsOneUserOnlyLeavesOutWhatConcernsOthers) {
  Json json = JobViewToJson(WaitingJob());
  json.erase("jobs_before");
  json.erase("redacted");
  const absl::StatusOr<JobView> view = JobViewFromJson(json);
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_TRUE(view->jobs_before.empty());
  EXPECT_FALSE(view->redacted);
}

TEST(JobView, EachMemberIsCheckedAndNamed) {
  EXPECT_EQ(ErrorOf(Json::object()), "ok");
  EXPECT_EQ(ErrorOf({{"later", 1}}), "ok");
  EXPECT_EQ(ErrorOf({{"id", 0}}), "`id` has to be a whole number of at least 1");
  EXPECT_EQ(ErrorOf({{"uid", -1}}), "`uid` has to be a whole number from 0 to 4294967295");
  EXPECT_EQ(ErrorOf({{"state", "asleep"}}),
            "`state` has to be queued, running, done, failed or cancelled");
  EXPECT_EQ(ErrorOf({{"priority", 1.5}}),
            "`priority` has to be a whole number from -2147483647 to 2147483647");
  EXPECT_EQ(ErrorOf({{"queries", -1}}), "`queries` has to be a whole number of at least 0");
  EXPECT_EQ(ErrorOf({{"k", -1}}), "`k` has to be null or a whole number of at least 0");
  EXPECT_EQ(ErrorOf({{"progress", 1.5}}), "`progress` has to be a number from 0 to 1");
  EXPECT_EQ(ErrorOf({{"progress", nullptr}}), "`progress` has to be a number of at least 0");
  EXPECT_EQ(ErrorOf({{"eta_seconds", -1}}),
            "`eta_seconds` has to be null or a number of at least 0");
  EXPECT_EQ(ErrorOf({{"jobs_before", 5}}), "`jobs_before` has to be a list of at most 32 objects");
  EXPECT_EQ(ErrorOf({{"jobs_before", {{{"uid", 1}, {"jobs", 0}}}}}),
            "`jobs_before[0].jobs` has to be a whole number of at least 1");
  EXPECT_EQ(ErrorOf({{"jobs_before", {{{"jobs", 1}}}}}), "`jobs_before[0].uid` is missing");
  EXPECT_EQ(ErrorOf({{"redacted", 1}}), "`redacted` has to be true or false");
  EXPECT_EQ(ErrorOf({{"reason", 5}}), "`reason` has to be null or a string");
  EXPECT_EQ(ErrorOf({{"docs_path", nullptr}}), "`docs_path` has to be a string");
  EXPECT_EQ(ErrorOf({{"docs_state", "hot"}}), "`docs_state` has to be null, warm or cold");
  EXPECT_EQ(ErrorOf({{"report", "{}"}}),
            "`report` has to be null or an object nested 4 deep at most");
  EXPECT_FALSE(JobViewFromJson(Json::array()).ok());
}

}  // namespace
}  // namespace tiny_knn
