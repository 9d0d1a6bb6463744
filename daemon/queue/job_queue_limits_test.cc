// What a queue holds at most, how long, and at which cost.
#include <unistd.h>

#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "daemon/queue/job_queue_for_test.h"
#include "daemon/queue/speed_for_test.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

class JobQueueLimitsTest : public JobQueueTest {};

TEST_F(JobQueueLimitsTest, LimitsWhatAUserMayQueue) {
  limits_.queued_jobs_per_uid = 3;
  Reopen();
  for (const char* key : {"a", "b", "c"}) Submitted(1000, RequestOf(key));
  EXPECT_EQ(Refused(1000, RequestOf("d")).code, ErrorCode::kQueueFull);
  Submitted(1001, RequestOf("d"));
  queue_->Start(1);
  Submitted(1000, RequestOf("d"));
  queue_->Finish(2, {.state = JobState::kCancelled}, 0);
  Submitted(1000, RequestOf("e"));
  EXPECT_EQ(Refused(1000, RequestOf("f")).code, ErrorCode::kQueueFull);
  ASSERT_TRUE(queue_->Flush().status.ok());
  Reopen();  // counts again what it loads; the running job waits again
  EXPECT_EQ(Refused(1000, RequestOf("f")).code, ErrorCode::kQueueFull);
}

TEST_F(JobQueueLimitsTest, LimitsTheMemoryOfWhatAUserQueues) {
  limits_.queued_bytes_per_uid = 300'000;
  Reopen();
  const std::string spec(100'000, 's');
  Submitted(1000, RequestOf("a"), spec);
  Submitted(1000, RequestOf("b"), spec);
  EXPECT_EQ(Refused(1000, RequestOf("c"), spec).code, ErrorCode::kQueueFull);
  queue_->Start(1);
  Submitted(1000, RequestOf("c"), spec);
}

TEST_F(JobQueueLimitsTest, LimitsWhatAllUsersQueueTogether) {
  limits_.queued_jobs_per_uid = 2;
  limits_.queued_jobs = 3;
  Reopen();
  Submitted(1000, RequestOf("a"));
  Submitted(1000, RequestOf("b"));
  Submitted(1001, RequestOf("a"));
  const ErrorReply all = Refused(1002, RequestOf("a"));
  EXPECT_EQ(all.code, ErrorCode::kQueueFull);
  EXPECT_NE(all.message.find("of all users"), std::string::npos) << all.message;
  // Who has used up what is his hears of that.
  EXPECT_NE(Refused(1000, RequestOf("c")).message.find("of yours"), std::string::npos);
  queue_->Start(1);
  Submitted(1002, RequestOf("a"));
  EXPECT_EQ(Refused(1002, RequestOf("b")).code, ErrorCode::kQueueFull);
  queue_->Finish(2, {.state = JobState::kCancelled}, 0);
  ASSERT_TRUE(queue_->Flush().status.ok());
  Reopen();  // counts again what it loads; the running job waits again
  EXPECT_EQ(Refused(1002, RequestOf("b")).code, ErrorCode::kQueueFull);
}

TEST_F(JobQueueLimitsTest, LimitsTheMemoryOfWhatAllUsersQueue) {
  limits_.queued_bytes = 300'000;
  Reopen();
  const std::string spec(100'000, 's');
  Submitted(1000, RequestOf("a"), spec);
  Submitted(1001, RequestOf("a"), spec);
  EXPECT_EQ(Refused(1002, RequestOf("a"), spec).code, ErrorCode::kQueueFull);
  queue_->Start(1);
  Submitted(1002, RequestOf("a"), spec);
}

TEST_F(JobQueueLimitsTest, WhatTheDeviceDidForAUserBesidesJobsCountsToo) {
  Submitted(1000, RequestOf("a"));
  const int64_t second = Submitted(1001, RequestOf("a"));
  EXPECT_EQ(queue_->scheduler().Next(), 1);
  queue_->Charge(1000, 5);
  EXPECT_EQ(queue_->scheduler().Next(), second);
}

TEST_F(JobQueueLimitsTest, ForgetsFinishedJobsBeyondTheLimits) {
  limits_.finished_jobs_per_uid = 2;
  limits_.finished_seconds = 100;
  Reopen();
  Submitted(1000, RequestOf("waits"));
  for (const char* key : {"a", "b", "c"}) Done(1000, key);
  Done(1001, "a");
  EXPECT_EQ(queue_->Expire(), Ids({2}));
  EXPECT_TRUE(queue_->has_changes());
  ASSERT_TRUE(queue_->Flush().status.ok());
  EXPECT_EQ(queue_->Expire(), Ids());
  EXPECT_FALSE(queue_->has_changes());
  Reopen();
  EXPECT_EQ(queue_->Expire(), Ids());
  now_ += 99;
  Done(1001, "b");
  now_ += 2;
  EXPECT_EQ(queue_->Expire(), Ids({3, 4, 5}));
  ASSERT_TRUE(queue_->Flush().status.ok());
  Reopen();
  EXPECT_EQ(queue_->jobs().size(), 2u);
  EXPECT_EQ(StateOf(1), JobState::kQueued);
}

TEST_F(JobQueueLimitsTest, KeepsWaitingJobsAndLateResultsWhenTheClockJumps) {
  limits_.finished_jobs_per_uid = 2;
  Reopen();
  const int64_t waits = SubmittedAndFlushed(1000, "waits");
  const int64_t runs = SubmittedAndFlushed(1000, "runs");
  queue_->Start(runs);
  now_ += 1e9;
  const int64_t future = Done(1000, "future");
  EXPECT_EQ(queue_->Expire(), Ids());
  now_ -= 2e9;  // 1983 or so
  const int64_t past1 = Done(1000, "past 1");
  const int64_t past2 = Done(1000, "past 2");
  // The one that finished first goes, not the one whose clock said least.
  EXPECT_EQ(queue_->Expire(), Ids({future}));
  now_ = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(queue_->Expire(), Ids());
  EXPECT_EQ(StateOf(waits), JobState::kQueued);
  EXPECT_EQ(StateOf(runs), JobState::kRunning);
  EXPECT_NE(queue_->Find(past1), nullptr);
  EXPECT_NE(queue_->Find(past2), nullptr);
}

TEST_F(JobQueueLimitsTest, CleansOneUsersFinishedJobsOrEveryones) {
  Done(1000, "a");
  Done(1001, "a");
  const int64_t died = SubmittedAndFlushed(1000, "died");
  queue_->Start(died);
  queue_->Finish(died, {.state = JobState::kFailed, .left_temporary = true}, 1);
  ASSERT_TRUE(queue_->Flush().status.ok());
  SubmittedAndFlushed(1000, "waits");
  EXPECT_EQ(queue_->Clean(1000), Ids({1}));  // not the one whose temporary file must still go
  EXPECT_EQ(queue_->Clean(1000), Ids());
  queue_->ForgetLeftover(died);
  ASSERT_TRUE(queue_->Flush().status.ok());
  EXPECT_EQ(queue_->Clean(std::nullopt), Ids({2, died}));
  ASSERT_TRUE(queue_->Flush().status.ok());
  Reopen();
  EXPECT_EQ(queue_->jobs().size(), 1u);
}

TEST_F(JobQueueLimitsTest, CutsWhatAWorkerSaysTooMuch) {
  const int64_t job = SubmittedAndFlushed(1000, "a");
  queue_->Start(job);
  std::string error(4095, 'e');
  error += "ü";
  const double not_a_number = std::numeric_limits<double>::quiet_NaN();
  queue_->Finish(job,
                 {.state = JobState::kFailed,
                  .error_code = std::string(1000, 'c'),
                  .error = error,
                  .device = std::string(1000, 'd'),
                  .docs = std::string(1000, 'w'),
                  .output_path = "/" + std::string(5000, 'o'),
                  .report_json = "{" + std::string(1 << 20, ' ') + "}",
                  .search_seconds = not_a_number},
                 not_a_number);
  ASSERT_TRUE(queue_->Flush().status.ok());
  const Job* found = queue_->Find(job);
  EXPECT_EQ(found->error, std::string(4095, 'e'));  // no half character
  EXPECT_EQ(found->error_code.size(), 64u);
  EXPECT_EQ(found->device.size(), 64u);
  EXPECT_EQ(found->docs.size(), 64u);
  EXPECT_EQ(found->output_path, "/tmp/out.pkl");
  EXPECT_EQ(found->report_json, "");
  Reopen();
  EXPECT_EQ(StateOf(job), JobState::kFailed);
}

int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0;
  file >> pages >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

TEST_F(JobQueueLimitsTest, HoldsTenThousandJobsQuicklyAndInLittleMemory) {
  constexpr int kJobs = 10'000;
  const std::string spec = R"({"queries":")" + std::string(600, 'q') + R"("})";
  double start = CpuSeconds();
  for (int i = 0; i < kJobs; ++i) {
    Submitted(1000, RequestOf(fmt::format("key-{}", i), i % 7), spec);
    if (i % 100 == 99) {
      ASSERT_TRUE(queue_->Flush().status.ok());
    }
  }
  const double submit_seconds = CpuSeconds() - start;
  queue_.reset();
  absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(folder_);
  ASSERT_TRUE(journal.ok()) << journal.status();
  start = CpuSeconds();
  ASSERT_EQ((*journal)->Load()->size(), static_cast<size_t>(kJobs));
  const double load_seconds = CpuSeconds() - start;
  journal->reset();
  start = CpuSeconds();
  Reopen();
  const double open_seconds = CpuSeconds() - start;
  start = CpuSeconds();
  for (int i = 0; i < 1000; ++i) {
    const std::optional<int64_t> next = queue_->scheduler().Next();
    ASSERT_TRUE(next);
    ASSERT_TRUE(queue_->scheduler().PositionOf(*next + 1 > kJobs ? 1 : *next + 1));
    queue_->Start(*next);
  }
  const double start_seconds = CpuSeconds() - start;
  ASSERT_TRUE(queue_->Flush().status.ok());
  const auto megabytes = static_cast<double>(ResidentBytes()) / 1e6;
  fmt::print(
      "10,000 jobs: submit {:.3f} s, load {:.3f} s, open {:.3f} s, next and start of 1,000 {:.4f} "
      "s of CPU time; {:.1f} MB resident\n",
      submit_seconds, load_seconds, open_seconds, start_seconds, megabytes);
  if (kSanitized) return;
  EXPECT_LT(load_seconds, 0.2);
  EXPECT_LT(open_seconds, 1);
  EXPECT_LT(start_seconds, 0.1);
  EXPECT_LT(megabytes, 100);
}

}  // namespace
}  // namespace tiny_knn
