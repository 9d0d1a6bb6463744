#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "daemon/supervisor/job_runner_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(JobRunnerTest, AJobThatIsDoneSaysWhereItsResultIs) {
  Start("works");
  const Ended ended = RunOne(7);
  EXPECT_EQ(ended.job, 7);
  ASSERT_TRUE(ended.outcome);
  EXPECT_EQ(ended.outcome->state, JobState::kDone);
  EXPECT_EQ(ended.outcome->output_path, "/somewhere/out.pkl");
  EXPECT_EQ(ended.outcome->device, "cpu");
  EXPECT_FALSE(ended.outcome->left_temporary);
  EXPECT_EQ(progress_reports_, 1);
  EXPECT_THAT(log_, ElementsAre("a line"));
  EXPECT_TRUE(runner_->ready());
  EXPECT_TRUE(runner_->has_worker());
  // The same worker serves the next one.
  EXPECT_EQ(RunOne(8).outcome->state, JobState::kDone);
}

TEST_F(JobRunnerTest, AJobsErrorKeepsItsCodeAndItsLine) {
  Start("bad_input");
  const Ended ended = RunOne(1);
  EXPECT_EQ(ended.outcome->state, JobState::kFailed);
  EXPECT_EQ(ended.outcome->error_code, "not_found");
  EXPECT_EQ(ended.outcome->error, "q.npy: is not there");
}

TEST_F(JobRunnerTest, AWorkerThatDiesTakesItsJobAloneWithIt) {
  for (const auto& [script, why] :
       {std::pair("die_running", "signal 6"), std::pair("killed_running", "out of memory")}) {
    ended_.clear();
    Start(script);
    for (int64_t id : {1, 2, 3}) {
      const Ended ended = RunOne(id);
      ASSERT_TRUE(ended.outcome) << script;
      EXPECT_EQ(ended.outcome->state, JobState::kFailed);
      EXPECT_EQ(ended.outcome->error_code, "aborted");
      EXPECT_THAT(ended.outcome->error, AllOf(HasSubstr("the worker was killed"), HasSubstr(why)));
      EXPECT_TRUE(ended.outcome->left_temporary);
    }
  }
}

TEST_F(JobRunnerTest, WhatAWorkerSaidBeforeItDiedCounts) {
  Start("finish_and_die");
  EXPECT_EQ(RunOne(1).outcome->state, JobState::kDone);
}

TEST_F(JobRunnerTest, AJobSentToAWorkerThatDiedBetweenJobsIsQueuedAgain) {
  Start("finish_and_die");
  EXPECT_EQ(RunOne(1).outcome->state, JobState::kDone);
  // Unless its end was seen already, the second one was sent to the dead.
  const bool died_unseen = runner_->has_worker();
  const Ended second = RunOne(2);
  EXPECT_EQ(second.outcome.has_value(), !died_unseen);
  EXPECT_EQ(RunOne(2).outcome->state, JobState::kDone);
}

TEST_F(JobRunnerTest, ACancelledJobEndsCancelled) {
  Start("waits");
  runner_->Run(Job(1));
  Until([&] { return progress_reports_ > 0; });
  EXPECT_EQ(runner_->running_job(), 1);
  EXPECT_EQ(runner_->progress(), 0.25);
  runner_->Cancel();
  Until([&] { return !ended_.empty(); });
  EXPECT_EQ(ended_[0].outcome->state, JobState::kCancelled);
  EXPECT_EQ(ended_[0].outcome->error_code, "cancelled");
  EXPECT_TRUE(runner_->has_worker());
}

TEST_F(JobRunnerTest, AJobThatDoesNotStopWhenCancelledIsKilled) {
  Start("stubborn");
  runner_->Run(Job(1));
  Until([&] { return progress_reports_ > 0; });
  runner_->Cancel();
  Until([&] { return !ended_.empty(); });
  EXPECT_EQ(ended_[0].outcome->state, JobState::kCancelled);
  EXPECT_TRUE(ended_[0].outcome->left_temporary);
  EXPECT_FALSE(runner_->has_worker());
}

TEST_F(JobRunnerTest, AJobThatIsDoneBeforeItHearsOfItsCancellationIsDone) {
  Start("done_although_cancelled");
  runner_->Run(Job(1));
  Until([&] { return progress_reports_ > 0; });
  runner_->Cancel();
  Until([&] { return !ended_.empty(); });
  EXPECT_EQ(ended_[0].outcome->state, JobState::kDone);
}

TEST_F(JobRunnerTest, AJobBeforeItsWorkersHelloCanBeCancelled) {
  Start("waits");
  runner_->Run(Job(1));
  runner_->Cancel();
  Until([&] { return !ended_.empty(); });
  EXPECT_EQ(ended_[0].outcome->state, JobState::kCancelled);
}

TEST_F(JobRunnerTest, AJobOutOfTimeFailsAndSaysSo) {
  for (const char* script : {"waits", "stubborn"}) {
    ended_.clear();
    Start(script);
    const Ended ended = RunOne(1, /*timeout_seconds=*/1);
    EXPECT_EQ(ended.outcome->state, JobState::kFailed) << script;
    EXPECT_EQ(ended.outcome->error_code, "deadline_exceeded") << script;
    EXPECT_THAT(ended.outcome->error, HasSubstr("timeout of 1 s"));
  }
}

TEST_F(JobRunnerTest, ASilentWorkerIsKilled) {
  silence_ = milliseconds(200);
  Start("waits");
  const Ended ended = RunOne(1);
  EXPECT_EQ(ended.outcome->state, JobState::kFailed);
  EXPECT_THAT(ended.outcome->error, HasSubstr("silent for 0.2 s"));
}

TEST_F(JobRunnerTest, AWorkerThatSaysWhatIsNoMessageIsKilled) {
  for (const char* script : {"garbage", "long_line", "close_socket"}) {
    ended_.clear();
    Start(script);
    const Ended ended = RunOne(1);
    ASSERT_TRUE(ended.outcome) << script;
    EXPECT_EQ(ended.outcome->state, JobState::kFailed) << script;
    EXPECT_EQ(ended.outcome->error_code, "aborted") << script;
  }
}

TEST_F(JobRunnerTest, WhatAWorkerSaysOfOtherJobsIsIgnored) {
  Start("wrong_job");
  EXPECT_EQ(RunOne(1).job, 1);
  EXPECT_EQ(ended_.size(), 1u);
  EXPECT_EQ(progress_reports_, 1);
}

TEST_F(JobRunnerTest, AJobWaitsAsLongAsNoWorkerCanBeStarted) {
  for (const auto& [script, why] :
       {std::pair("foreign", "another build"), std::pair("die_at_start", "exit code 3")}) {
    ended_.clear();
    Start(script);
    EXPECT_EQ(runner_->trouble(), "");
    for (int i = 0; i < 5; ++i) {
      EXPECT_FALSE(RunOne(1).outcome) << script;  // to be queued again
      EXPECT_THAT(runner_->trouble(), HasSubstr(why));
    }
  }
}

TEST_F(JobRunnerTest, LeftoversAreRemovedByAWorkerAndGivenUpWhenItDies) {
  Start("works");
  runner_->RemoveLeftover(Job(5));
  Until([&] { return !removed_.empty(); });
  EXPECT_THAT(removed_, ElementsAre(5));
  EXPECT_TRUE(ended_.empty());
  Start("die_removing");
  runner_->RemoveLeftover(Job(6));
  Until([&] { return removed_.size() == 2; });
  EXPECT_THAT(removed_, ElementsAre(5, 6));
}

TEST_F(JobRunnerTest, AnAbandonedJobHasNoOutcomeAndItsWorkerIsGone) {
  Start("stubborn");
  runner_->Run(Job(1));
  Until([&] { return progress_reports_ > 0; });
  runner_->Abandon();
  EXPECT_FALSE(runner_->ready());
  Until([&] { return runner_->ready(); });
  ASSERT_EQ(ended_.size(), 1u);
  EXPECT_FALSE(ended_[0].outcome);
  EXPECT_FALSE(runner_->has_worker());
}

TEST_F(JobRunnerTest, AJobThatKillsOneWorkerAfterTheOtherBeforeASignOfLifeFails) {
  Start("die_running");
  // As the queue does: what may be left of the job is removed first, by the worker that runs it.
  runner_->RemoveLeftover(Job(1));
  Until([&] { return removed_.size() == 1 && runner_->ready(); });
  EXPECT_FALSE(RunOne(1).outcome);  // it may have been the worker's fault
  runner_->RemoveLeftover(Job(1));
  Until([&] { return removed_.size() == 2 && runner_->ready(); });
  const Ended second = RunOne(1);
  ASSERT_TRUE(second.outcome);
  EXPECT_EQ(second.outcome->error_code, "aborted");
}

TEST_F(JobRunnerTest, AHelloOfAWorkerThatIsBeingKilledStartsNothing) {
  const std::string told = testing::TempDir() + "told";
  for (const bool cancel : {false, true}) {
    unlink(told.c_str());
    ended_.clear();
    Start("works", std::chrono::hours(1), {"TINY_KNN_TOLD=" + told});
    runner_->Run(Job(1));
    while (access(told.c_str(), F_OK) != 0) usleep(1000);  // the loop has not read the hello
    cancel ? runner_->Cancel() : runner_->Abandon();
    Until([&] { return !ended_.empty(); });
    ASSERT_EQ(ended_[0].outcome.has_value(), cancel);  // else it is to be queued again
    if (!cancel) continue;
    EXPECT_EQ(ended_[0].outcome->state, JobState::kCancelled);
  }
}

TEST_F(JobRunnerTest, ACancelledJobStaysCancelledWhenTheDaemonStops) {
  Start("stubborn");
  runner_->Run(Job(1));
  Until([&] { return progress_reports_ > 0; });
  runner_->Cancel();
  runner_->Abandon();
  Until([&] { return !ended_.empty(); });
  ASSERT_TRUE(ended_[0].outcome);
  EXPECT_EQ(ended_[0].outcome->state, JobState::kCancelled);
}

TEST_F(JobRunnerTest, ARemovalThatHangsIsGivenUp) {
  silence_ = std::chrono::hours(1);  // a worker that is stuck in a folder shows signs of life
  Start("hang_removing");
  runner_->RemoveLeftover(Job(1));
  Until([&] { return !removed_.empty(); });
  EXPECT_EQ(RunOne(2).outcome->state, JobState::kDone);
}

TEST_F(JobRunnerTest, WhatCouldNotBeRemovedIsInTheJobsLog) {
  Start("note_removing");
  runner_->RemoveLeftover(Job(1));
  Until([&] { return !removed_.empty(); });
  EXPECT_THAT(log_, ElementsAre("note: cannot remove"));
}

TEST_F(JobRunnerTest, CancelsBeforeTheHelloAreNoFailedStarts) {
  Start("die_at_start");
  for (int64_t id : {1, 2}) {
    Until([&] { return runner_->ready(); });
    runner_->Run(Job(id));
    runner_->Cancel();
    Until([&] { return std::ssize(ended_) == id; });
    EXPECT_EQ(ended_.back().outcome->state, JobState::kCancelled);
  }
  EXPECT_FALSE(RunOne(3).outcome);  // its first try
}

TEST_F(JobRunnerTest, AnIdleWorkerIsReleasedAndAnotherOneStartedWhenNeeded) {
  for (const char* script : {"works", "will_not_end"}) {
    Start(script, milliseconds(0));
    EXPECT_EQ(RunOne(1).outcome->state, JobState::kDone);
    if (std::string(script) == "will_not_end") continue;  // killed after seconds, by ~WorkerProcess
    Until([&] { return !runner_->has_worker(); });
    EXPECT_EQ(RunOne(2).outcome->state, JobState::kDone);
  }
}

TEST_F(JobRunnerTest, AWorkerGetsNothingButItsSocketAndWhatIsListed) {
  // Descriptors of ours that are not close-on-exec, as libraries open them.
  ASSERT_GT(dup(2), 2);
  setenv("SECRET", "value", 1);
  char first[] = "LD_LIBRARY_PATH=/opt/lib", second[] = "SECRET=value", third[] = "TINY_KNN_X=1",
       fourth[] = "HOME=/home/ada", fifth[] = "LD_LIBRARY_PATHS=1";
  char* given[] = {first, second, third, fourth, fifth, nullptr};
  Start("surroundings", std::chrono::hours(1), WorkerEnvironment(given));
  RunOne(1);
  std::vector<std::string> socket;
  for (auto line = log_.begin(); line != log_.end();) {
    if (line->starts_with("fd 3 socket:")) {
      socket.push_back(*line);
      line = log_.erase(line);
    } else {
      ++line;
    }
  }
  EXPECT_EQ(socket.size(), 1u);
  EXPECT_THAT(log_, testing::UnorderedElementsAre(
                        "fd 0 /dev/null", "fd 1 /dev/null", "fd 2 /dev/null", "cwd /",
                        "env LD_LIBRARY_PATH=/opt/lib", "env TINY_KNN_X=1", "a line"));
}

TEST(OpenWorkerBinary, RefusesWhatIsNoProgram) {
  EXPECT_TRUE(absl::IsNotFound(OpenWorkerBinary("/nowhere/tiny-knn").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(OpenWorkerBinary("/tmp").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(OpenWorkerBinary("/dev/null").status()));
}

}  // namespace
}  // namespace tiny_knn
