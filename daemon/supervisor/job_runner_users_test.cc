// Workers of several users, in name only: what one user does concerns nobody else.
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string>

#include "daemon/supervisor/job_runner_for_test.h"
#include "gmock/gmock.h"

namespace tiny_knn {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// Neither of them runs this test.
constexpr int64_t kAda = 1234567;
constexpr int64_t kBea = 1234568;

class JobRunnerUsersTest : public JobRunnerTest {
 protected:
  JobRunnerUsersTest() { users_ = WorkerUsers::kInNameOnly; }
  ~JobRunnerUsersTest() override {
    for (const pid_t pid : spared_) kill(pid, SIGKILL);
    Until([&] {
      return std::all_of(spared_.begin(), spared_.end(), [](pid_t pid) { return IsGone(pid); });
    });
  }

  // Workers that are started from now on follow `script`.
  void Follow(const std::string& script) {
    const std::string path = testing::TempDir() + "script";
    std::ofstream(path) << script;
    if (!runner_) Start("@" + path);
  }
  static RunningJob JobOf(int64_t uid, int64_t id) {
    RunningJob job = Job(id);
    job.uid = uid;
    return job;
  }
  Ended RunAs(int64_t uid, int64_t id) { return RunOne(JobOf(uid, id)); }
  // With the script tells_pid.
  pid_t PidOf(int64_t uid, int64_t id) {
    log_.clear();
    EXPECT_EQ(RunAs(uid, id).outcome->state, JobState::kDone);
    return log_.empty() ? 0 : std::stoi(log_.front());
  }
  static bool IsGone(pid_t pid) { return kill(pid, 0) != 0 && errno == ESRCH; }
  // No worker dies of SIGKILL, as if it hung in the kernel, until the end of the test.
  void MakeUnkillable(milliseconds dying) {
    dying_ = dying;
    kill_ = [this](pid_t pid) { spared_.push_back(pid); };
  }

  std::vector<pid_t> spared_;
};

TEST_F(JobRunnerUsersTest, AWorkerIsKeptForItsUserAndReplacedForAnother) {
  Follow("tells_pid");
  const pid_t first = PidOf(kAda, 1);
  EXPECT_EQ(runner_->worker_uid(), kAda);
  EXPECT_EQ(PidOf(kAda, 2), first);
  const pid_t second = PidOf(kBea, 3);
  EXPECT_NE(second, first);
  EXPECT_EQ(runner_->worker_uid(), kBea);
  EXPECT_TRUE(IsGone(first));
  EXPECT_NE(PidOf(kAda, 4), first);
  EXPECT_TRUE(IsGone(second));
  EXPECT_EQ(ended_.size(), 4u);
}

TEST_F(JobRunnerUsersTest, AWorkerThatItsUserHasStoppedIsReplacedAllTheSame) {
  Follow("tells_pid");
  const pid_t first = PidOf(kAda, 1);
  ASSERT_EQ(kill(first, SIGSTOP), 0);
  EXPECT_NE(PidOf(kBea, 2), first);
  EXPECT_TRUE(IsGone(first));
}

TEST_F(JobRunnerUsersTest, AWorkerThatIsGoneUnseenIsReplacedToo) {
  Follow("finish_and_die");
  for (int64_t id = 1; id <= 10; ++id) {
    EXPECT_EQ(RunAs(id % 2 == 0 ? kAda : kBea, id).outcome->state, JobState::kDone);
  }
}

TEST_F(JobRunnerUsersTest, WorkersThatDieHoldUpTheirUserAlone) {
  first_backoff_ = std::chrono::hours(1);
  Follow("die_running");
  EXPECT_EQ(RunAs(kAda, 1).outcome->error_code, "aborted");
  EXPECT_TRUE(runner_->MayStart(kAda)) << "the first gets a successor at once";
  EXPECT_EQ(RunAs(kAda, 2).outcome->error_code, "aborted");
  EXPECT_FALSE(runner_->MayStart(kAda));
  EXPECT_TRUE(runner_->MayStart(kBea));
  Follow("works");
  EXPECT_EQ(RunAs(kBea, 3).outcome->state, JobState::kDone);
  EXPECT_FALSE(runner_->MayStart(kAda)) << "another user's success is not this one's";
}

TEST_F(JobRunnerUsersTest, TheEndOfAUsersWaitIsTold) {
  first_backoff_ = milliseconds(100);
  Follow("die_running");
  RunAs(kAda, 1);
  RunAs(kAda, 2);
  const int before = ready_calls_;
  EXPECT_FALSE(runner_->MayStart(kAda));
  Until([&] { return ready_calls_ > before && runner_->MayStart(kAda); });
}

TEST_F(JobRunnerUsersTest, AUsersWorkerThatEndsBeforeItsHelloFailsThatJobAlone) {
  first_backoff_ = std::chrono::hours(1);
  silence_ = milliseconds(200);
  int64_t user = kBea;
  for (const auto& [script, why] : {
           std::pair("die_at_start", "exit code 3"),
           std::pair("exit_127", "exit code 127"),  // no word of ours that it was not executed
           std::pair("stop_at_start", "silent for 0.2 s"),
           std::pair("foreign", "another build"),
       }) {
    Follow(script);
    ++user;
    for (int64_t id : {1, 2}) {
      const Ended ended = RunAs(user, id);
      ASSERT_TRUE(ended.outcome) << script;
      EXPECT_EQ(ended.outcome->state, JobState::kFailed);
      EXPECT_EQ(ended.outcome->error_code, "aborted");
      EXPECT_THAT(ended.outcome->error, AllOf(HasSubstr(why), HasSubstr("submit again")));
      EXPECT_FALSE(ended.outcome->left_temporary);
    }
    EXPECT_EQ(runner_->trouble(), "") << "everybody would be told";
    EXPECT_FALSE(runner_->MayStart(user));
    EXPECT_TRUE(runner_->ready());
    Follow("works");
    EXPECT_EQ(RunAs(kAda, 3).outcome->state, JobState::kDone);
  }
}

TEST_F(JobRunnerUsersTest, AJobThatWaitsForAnothersWorkerToGoCanBeCancelled) {
  MakeUnkillable(std::chrono::hours(1));
  Follow("will_not_end");
  RunAs(kAda, 1);
  runner_->Run(JobOf(kBea, 2));
  EXPECT_EQ(runner_->running_job(), 2);
  runner_->Cancel();
  Until([&] { return ended_.size() == 2; });
  ASSERT_TRUE(ended_[1].outcome);
  EXPECT_EQ(ended_[1].outcome->state, JobState::kCancelled);
  EXPECT_FALSE(ended_[1].outcome->left_temporary);
  EXPECT_TRUE(runner_->ready()) << "the next may wait for it";
}

TEST_F(JobRunnerUsersTest, AWorkerThatCannotBeKilledIsLeftBehindAndAnotherOneStarted) {
  MakeUnkillable(milliseconds(500));
  Follow("will_not_end");
  RunAs(kAda, 1);
  runner_->Run(JobOf(kBea, 2));
  EXPECT_EQ(runner_->worker_uid(), std::nullopt) << "nobody's docs are warm";
  Until([&] { return ended_.size() == 2; });
  EXPECT_EQ(ended_[1].outcome->state, JobState::kDone);
  EXPECT_LT(ran_seconds_.back(), 0.5) << "and nobody pays for the wait";
  ASSERT_EQ(spared_.size(), 1u);
  EXPECT_FALSE(IsGone(spared_[0]));
}

TEST_F(JobRunnerUsersTest, AJobWhoseWorkerCannotBeKilledEndsAllTheSame) {
  MakeUnkillable(milliseconds(100));
  Follow("stubborn");
  runner_->Run(JobOf(kAda, 1));
  Until([&] { return progress_reports_ > 0; });
  runner_->Cancel();
  Until([&] { return !ended_.empty(); });
  EXPECT_EQ(ended_[0].outcome->state, JobState::kCancelled);
  EXPECT_TRUE(ended_[0].outcome->left_temporary);
  EXPECT_FALSE(runner_->has_worker());
  EXPECT_EQ(spared_.size(), 1u);
  Follow("works");
  EXPECT_EQ(RunAs(kAda, 2).outcome->state, JobState::kDone);
}

TEST_F(JobRunnerUsersTest, TheDaemonEndsAlthoughAWorkerCannotBeKilled) {
  MakeUnkillable(milliseconds(100));
  Follow("will_not_end");
  RunAs(kAda, 1);
  runner_->Run(JobOf(kBea, 2));  // waits for Ada's worker
  runner_->Abandon();
  Until([&] { return ended_.size() == 2; });
  EXPECT_FALSE(ended_[1].outcome) << "to be queued again";
  EXPECT_TRUE(runner_->has_worker());
  Until([&] { return runner_->ready(); });
  EXPECT_FALSE(runner_->has_worker());
}

TEST_F(JobRunnerUsersTest, AWorkerThatWasLeftBehindIsReapedWhenItEndsAfterAll) {
  MakeUnkillable(milliseconds(50));
  Follow("will_not_end");
  RunAs(kAda, 1);
  RunAs(kBea, 2);
  ASSERT_EQ(spared_.size(), 1u);
  kill(spared_[0], SIGKILL);
  Until([&] { return IsGone(spared_[0]); });  // a zombie would stay
}

TEST_F(JobRunnerUsersTest, TheSmallerOneOfBothTimeLimitsHolds) {
  max_seconds_ = 1;
  Follow("waits");
  for (const int64_t own : {0, 5}) {
    RunningJob job = JobOf(kAda, 1);
    job.timeout_seconds = own;
    const Ended ended = RunOne(job);
    EXPECT_EQ(ended.outcome->error_code, "deadline_exceeded");
    EXPECT_THAT(ended.outcome->error, HasSubstr("the 1 s that this daemon allows"));
  }
  runner_.reset();
  max_seconds_ = 5;
  Follow("waits");
  RunningJob job = JobOf(kAda, 2);
  job.timeout_seconds = 1;
  EXPECT_THAT(RunOne(job).outcome->error, HasSubstr("its timeout of 1 s"));
}

TEST_F(JobRunnerUsersTest, LeftoversAreRemovedByAWorkerOfTheirUser) {
  Follow("works");
  RunAs(kAda, 1);
  runner_->RemoveLeftover(JobOf(kBea, 2));
  Until([&] { return !removed_.empty(); });
  EXPECT_THAT(removed_, ElementsAre(2));
  EXPECT_EQ(runner_->worker_uid(), kBea);
}

TEST_F(JobRunnerUsersTest, ADaemonOfOneUserKeepsItsWorkerForWhoeverSubmits) {
  users_ = WorkerUsers::kOwn;
  Follow("tells_pid");
  const pid_t first = PidOf(geteuid(), 1);
  EXPECT_EQ(PidOf(kAda, 2), first);
  EXPECT_EQ(runner_->worker_uid(), geteuid());
}

}  // namespace
}  // namespace tiny_knn
