#include "daemon/supervisor/dispatcher.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "daemon/queue/failing_vfs_for_test.h"
#include "daemon/queue/journal.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using std::chrono::milliseconds;

constexpr char kWorker[] = "daemon/supervisor/scripted_worker_for_test";
// Neither of them runs this test.
constexpr int64_t kAda = 1234567;
constexpr int64_t kBea = 1234568;

class DispatcherTest : public testing::Test, public DispatcherListener {
 protected:
  // A dispatcher whose workers all follow `script`.
  void Start(const std::string& script, WorkerUsers users = WorkerUsers::kOwn) {
    const std::string folder =
        testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder);
    ASSERT_EQ(mkdir(folder.c_str(), 0700), 0);
    absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(folder);
    ASSERT_TRUE(journal.ok()) << journal.status();
    absl::StatusOr<std::unique_ptr<JobQueue>> queue =
        JobQueue::Open(*std::move(journal), QueueLimits{}, [] { return 1.75e9; });
    ASSERT_TRUE(queue.ok()) << queue.status();
    absl::StatusOr<JobLogs> logs = JobLogs::Open(folder + "/logs");
    ASSERT_TRUE(logs.ok()) << logs.status();
    absl::StatusOr<WorkerBinary> binary = OpenWorkerBinary(kWorker);
    ASSERT_TRUE(binary.ok()) << binary.status();
    SupervisorOptions options;
    options.device = script;
    options.max_memory_bytes = 1 << 20;
    options.grace = std::chrono::seconds(1);
    dispatcher_ =
        std::make_unique<Dispatcher>(loop_, options, *std::move(binary), std::vector<std::string>{},
                                     *std::move(queue), *std::move(logs), *this, users);
    dispatcher_->Start();
  }

  void OnJobChanged(int64_t job) override {
    const Job* found = dispatcher_->queue().Find(job);
    if (found != nullptr) heard_.emplace_back(job, found->state);
    if (on_changed_) on_changed_(job);
  }
  void OnStopped() override { stopped_ = true; }

  std::variant<JobQueue::Submitted, ErrorReply> Submit(const std::string& key,
                                                       int64_t uid = geteuid(), int priority = 0) {
    SubmitRequest request;
    request.key = key;
    request.priority = priority;
    request.spec.queries_path = "/q.npy";
    request.spec.docs_path = "/d.npy";
    request.spec.output_path = "/out.pkl";
    return dispatcher_->Submit(uid, request);
  }
  // Until what was asked for is written down, or could not be.
  JobQueue::FlushResult Written() {
    std::optional<JobQueue::FlushResult> written;
    dispatcher_->WhenWritten([&](const JobQueue::FlushResult& result) { written = result; });
    Until([&] { return written.has_value(); });
    return *written;
  }
  // Runs the loop until `done`; a test that hangs is ended by its time limit.
  template <typename Done>
  void Until(const Done& done) {
    while (!done()) {
      loop_.run_one_for(milliseconds(50));
      loop_.restart();
    }
  }

  // First: outlives the journal.
  FailingVfs vfs_;
  boost::asio::io_context loop_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::vector<std::pair<int64_t, JobState>> heard_;
  std::function<void(int64_t)> on_changed_;
  bool stopped_ = false;
};

TEST_F(DispatcherTest, AJobThatCouldNotBeWrittenDownIsNotRun) {
  Start("works");
  Written();
  vfs_.set_hook([](VfsCall call, const std::string&) -> std::optional<VfsFault> {
    if (call != VfsCall::kWrite) return std::nullopt;
    return VfsFault{.code = SQLITE_FULL};
  });
  // The worker is idle, so that the job would start in the transaction that accepts it.
  const auto submitted = Submit("key");
  ASSERT_TRUE(std::holds_alternative<JobQueue::Submitted>(submitted));
  const JobQueue::FlushResult written = Written();
  EXPECT_FALSE(written.status.ok());
  EXPECT_EQ(written.undone_submissions.size(), 1u);
  EXPECT_FALSE(dispatcher_->runner().running_job());
  EXPECT_FALSE(dispatcher_->runner().has_worker());
}

TEST_F(DispatcherTest, AJobRunsAndIsWrittenDownAsDone) {
  Start("works");
  const auto submitted = Submit("key");
  const int64_t job = std::get<JobQueue::Submitted>(submitted).job;
  Until([&] { return !heard_.empty() && heard_.back().second == JobState::kDone; });
  EXPECT_EQ(heard_.back().first, job);
  EXPECT_FALSE(dispatcher_->queue().has_changes());
}

TEST_F(DispatcherTest, ADrainedDaemonRemovesWhatItsLastJobLeftBeforeItEnds) {
  Start("die_after_progress");
  const auto submitted = Submit("key");
  const int64_t job = std::get<JobQueue::Submitted>(submitted).job;
  dispatcher_->SetDraining(true);
  Until([&] { return stopped_; });
  EXPECT_EQ(dispatcher_->queue().Find(job)->state, JobState::kFailed);
  EXPECT_EQ(dispatcher_->queue().Find(job)->leftover_attempt, 0);
}

TEST_F(DispatcherTest, AskingAgainToStopGivesTheRunningJobNoMoreTime) {
  Start("waits");
  Submit("key");
  Until([&] { return dispatcher_->runner().progress() > 0; });
  const auto asked = std::chrono::steady_clock::now();
  dispatcher_->Stop(/*now=*/false);
  // Whoever keeps asking must not keep the daemon.
  Until([&] {
    dispatcher_->Stop(/*now=*/false);
    return stopped_ || std::chrono::steady_clock::now() - asked > std::chrono::seconds(20);
  });
  EXPECT_TRUE(stopped_);
}

TEST_F(DispatcherTest, FinishedJobsBeyondTheLimitAreForgottenWhileTheyCome) {
  Start("waits");
  Submit("running");
  for (int i = 0; i < 3000; ++i) {
    const auto submitted = Submit("key" + std::to_string(i));
    if (i % 100 == 99) Written();
    dispatcher_->Cancel(std::get<JobQueue::Submitted>(submitted).job);
    if (i % 100 == 99) Written();
  }
  EXPECT_LT(dispatcher_->queue().jobs().size(), 2000u);
}

TEST_F(DispatcherTest, LeftoversAreRemovedBeforeTheirUsersNextJobAndNotBeforeAnothers) {
  const std::string script = testing::TempDir() + "script";
  std::ofstream(script) << "die_after_progress";
  Start("@" + script, WorkerUsers::kInNameOnly);
  const int64_t died = std::get<JobQueue::Submitted>(Submit("1", kAda)).job;
  const int64_t next = std::get<JobQueue::Submitted>(Submit("2", kAda)).job;
  const int64_t beas = std::get<JobQueue::Submitted>(Submit("3", kBea)).job;
  const auto left = [&] { return dispatcher_->queue().Find(died)->leftover_attempt != 0; };
  std::vector<std::pair<int64_t, bool>> starts;  // and whether the leftover is still there
  on_changed_ = [&](int64_t job) {
    const JobState state = dispatcher_->queue().Find(job)->state;
    const bool known = !starts.empty() && starts.back().first == job;
    if (state == JobState::kRunning && !known) starts.emplace_back(job, left());
    if (job == died && state == JobState::kFailed) std::ofstream(script) << "works";
  };
  const auto done = [&](int64_t job) {
    return dispatcher_->queue().Find(job)->state == JobState::kDone;
  };
  Until([&] { return done(next) && done(beas); });
  EXPECT_THAT(starts, testing::ElementsAre(std::pair(died, false), std::pair(beas, true),
                                           std::pair(next, false)));
}

TEST_F(DispatcherTest, LeftoversAreRemovedWhenNothingWaits) {
  const std::string script = testing::TempDir() + "script";
  std::ofstream(script) << "die_after_progress";
  Start("@" + script, WorkerUsers::kInNameOnly);
  const int64_t died = std::get<JobQueue::Submitted>(Submit("1", kAda)).job;
  on_changed_ = [&](int64_t job) {
    if (dispatcher_->queue().Find(job)->state == JobState::kFailed) {
      std::ofstream(script) << "works";
    }
  };
  Until([&] {
    const Job* job = dispatcher_->queue().Find(died);
    return job->state == JobState::kFailed && job->leftover_attempt == 0;
  });
  EXPECT_EQ(dispatcher_->runner().worker_uid(), kAda);
}

TEST_F(DispatcherTest, AUserWhoseWorkersDieIsPassedOver) {
  const std::string script = testing::TempDir() + "script";
  std::ofstream(script) << "die_running";
  Start("@" + script, WorkerUsers::kInNameOnly);
  // Every job of Ada's is before Bea's by priority.
  std::vector<int64_t> adas;
  for (int i = 0; i < 6; ++i) {
    const auto submitted = Submit(std::to_string(i), kAda, /*priority=*/5);
    adas.push_back(std::get<JobQueue::Submitted>(submitted).job);
  }
  const int64_t beas = std::get<JobQueue::Submitted>(Submit("b", kBea)).job;
  Until([&] { return dispatcher_->queue().Find(beas)->state == JobState::kFailed; });
  EXPECT_EQ(dispatcher_->queue().Find(adas.back())->state, JobState::kQueued)
      << "Bea has waited for all of them";
}

}  // namespace
}  // namespace tiny_knn
