// Workers as real users: what only root can try.
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "daemon/supervisor/job_runner_for_test.h"
#include "gmock/gmock.h"

namespace tiny_knn {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// Of Debian, without login.
constexpr int64_t kGames = 5;
constexpr int64_t kNews = 9;
constexpr int64_t kNobodyAtAll = 54321;

class WorkerUserTest : public JobRunnerTest {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "NOT RUN: runs as root";
    if (getpwuid(kGames) == nullptr || getpwuid(kNews) == nullptr) {
      GTEST_SKIP() << "NOT RUN: runs where passwd has games (5) and news (9), as Debian's";
    }
    users_ = WorkerUsers::kEach;
  }
  Ended RunAs(int64_t uid, int64_t id) {
    RunningJob job = Job(id);
    job.uid = uid;
    return RunOne(job);
  }
  // What kill(2) says to that user.
  static int KillAs(uid_t uid, pid_t pid, int number) {
    const pid_t child = fork();
    if (child == 0) {
      if (setgroups(0, nullptr) != 0 || setresgid(uid, uid, uid) != 0 ||
          setresuid(uid, uid, uid) != 0) {
        _exit(99);
      }
      _exit(kill(pid, number) == 0 ? 0 : errno);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
  }
};

TEST_F(WorkerUserTest, AWorkerIsItsUserAndHasNothingOfRoots) {
  ASSERT_GT(dup(2), 2);  // not close-on-exec, as libraries open them
  Start("identity", std::chrono::hours(1), {"TINY_KNN_X=1"});
  const Ended ended = RunAs(kGames, 1);
  ASSERT_TRUE(ended.outcome);
  ASSERT_EQ(ended.outcome->state, JobState::kDone) << ended.outcome->error;
  EXPECT_EQ(runner_->worker_uid(), kGames);
  for (const char* line :
       {"Uid: 5 5 5 5", "Gid: 60 60 60 60", "Groups: 60 ", "NoNewPrivs: 1",
        "CapInh: 0000000000000000", "CapPrm: 0000000000000000", "CapEff: 0000000000000000",
        "CapAmb: 0000000000000000", "cwd /", "env TINY_KNN_X=1", "parent closed"}) {
    EXPECT_THAT(log_, Contains(line));
  }
  EXPECT_THAT(log_, Contains(StartsWith("fd 3 socket:")));
  for (const std::string& line : log_) {
    if (!line.starts_with("fd ")) continue;
    EXPECT_THAT(line, testing::AnyOf("fd 0 /dev/null", "fd 1 /dev/null", "fd 2 /dev/null",
                                     StartsWith("fd 3 socket:"), HasSubstr("/proc/")));
  }
  // The next one is somebody else, and so is root's.
  log_.clear();
  EXPECT_EQ(RunAs(kNews, 2).outcome->state, JobState::kDone);
  EXPECT_THAT(log_, AllOf(Contains("Uid: 9 9 9 9"), Contains("Groups: 9 ")));
  log_.clear();
  EXPECT_EQ(RunAs(0, 3).outcome->state, JobState::kDone);
  EXPECT_THAT(log_, Contains("Uid: 0 0 0 0"));
}

TEST_F(WorkerUserTest, AUserWithoutAnEntryFailsAndHoldsUpNobody) {
  first_backoff_ = std::chrono::hours(1);
  Start("works");
  for (int64_t id : {1, 2}) {
    const Ended ended = RunAs(kNobodyAtAll, id);
    ASSERT_TRUE(ended.outcome);
    EXPECT_EQ(ended.outcome->state, JobState::kFailed);
    EXPECT_EQ(ended.outcome->error_code, "permission_denied");
    EXPECT_THAT(ended.outcome->error, HasSubstr("knows no user 54321"));
  }
  EXPECT_EQ(runner_->trouble(), "");
  EXPECT_FALSE(runner_->MayStart(kNobodyAtAll));
  EXPECT_EQ(RunAs(kGames, 3).outcome->state, JobState::kDone);
}

// Numbers that would mean another user to the calls that change it.
TEST_F(WorkerUserTest, NoNumberMakesAWorkerOfRoot) {
  Start("identity");
  for (const int64_t uid : {int64_t{-1}, int64_t{1} << 32}) {
    const Ended ended = RunAs(uid, 1);
    ASSERT_TRUE(ended.outcome);
    EXPECT_EQ(ended.outcome->error_code, "permission_denied") << uid;
  }
  EXPECT_THAT(log_, Not(Contains(StartsWith("Uid:"))));
}

TEST_F(WorkerUserTest, AUserMayKillHisWorkerAndNobodyElses) {
  Start("tells_pid");
  EXPECT_EQ(RunAs(kGames, 1).outcome->state, JobState::kDone);
  const pid_t pid = std::stoi(log_.front());
  EXPECT_EQ(KillAs(kNews, pid, SIGKILL), EPERM);
  EXPECT_EQ(KillAs(kGames, getpid(), 0), EPERM);
  EXPECT_EQ(KillAs(kGames, pid, SIGSTOP), 0);
  EXPECT_EQ(RunAs(kNews, 2).outcome->state, JobState::kDone);
}

TEST_F(WorkerUserTest, AProgramThatUsersMayNotExecuteIsTroubleOfTheDaemons) {
  namespace fs = std::filesystem;
  worker_path_ = testing::TempDir() + "worker";
  fs::remove(worker_path_);
  fs::copy_file(kScriptedWorker, worker_path_);
  ASSERT_EQ(chmod(worker_path_.c_str(), 0700), 0);
  Start("works");
  EXPECT_FALSE(RunAs(kGames, 1).outcome) << "to be queued again";
  EXPECT_THAT(runner_->trouble(),
              AllOf(HasSubstr("exit code 127"), HasSubstr("Permission denied")));
  EXPECT_EQ(RunAs(0, 2).outcome->state, JobState::kDone);
  EXPECT_EQ(runner_->trouble(), "");
}

TEST_F(WorkerUserTest, AFolderThatTheUserMayNotEnterIsNoObstacle) {
  namespace fs = std::filesystem;
  const std::string folder = testing::TempDir() + "closed";
  fs::remove_all(folder);
  ASSERT_EQ(mkdir(folder.c_str(), 0700), 0);
  worker_path_ = folder + "/worker";
  fs::copy_file(kScriptedWorker, worker_path_);
  ASSERT_EQ(chmod(worker_path_.c_str(), 0755), 0);
  Start("works");
  EXPECT_EQ(RunAs(kGames, 1).outcome->state, JobState::kDone);
}

}  // namespace
}  // namespace tiny_knn
