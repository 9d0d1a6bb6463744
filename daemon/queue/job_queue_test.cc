#include "daemon/queue/job_queue.h"

#include <sqlite3.h>

#include <optional>
#include <string>
#include <variant>

#include "daemon/queue/job_queue_for_test.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

TEST_F(JobQueueTest, TakesAJobThroughItsLife) {
  SubmitRequest request = RequestOf("a", 7);
  request.timeout_seconds = 60;
  request.spec.working_folder = "/home/bea";
  request.spec.output_path = "out.pkl";
  const int64_t id = Submitted(1000, request, R"({"queries":"q.npy"})");
  EXPECT_EQ(id, 1);
  ASSERT_TRUE(queue_->Flush().status.ok());
  EXPECT_FALSE(queue_->has_changes());
  const Job* job = queue_->Find(id);
  EXPECT_EQ(job->state, JobState::kQueued);
  EXPECT_EQ(job->uid, 1000);
  EXPECT_EQ(job->key, "a");
  EXPECT_EQ(job->priority, 7);
  EXPECT_EQ(job->timeout_seconds, 60);
  EXPECT_EQ(job->spec_json, R"({"queries":"q.npy"})");
  EXPECT_EQ(job->shape, request.shape);
  EXPECT_EQ(job->queries_path, "q.npy");
  EXPECT_EQ(job->docs_path, "d.npy");
  EXPECT_EQ(job->output_path, "/home/bea/out.pkl");
  EXPECT_EQ(job->submitted_at, now_);
  EXPECT_EQ(queue_->scheduler().Order(), Ids({1}));
  now_ += 5;
  queue_->Start(id);
  EXPECT_EQ(job->state, JobState::kRunning);
  EXPECT_EQ(job->attempt, 1);
  EXPECT_EQ(job->started_at, now_);
  EXPECT_EQ(queue_->scheduler().size(), 0);
  ASSERT_TRUE(queue_->Flush().status.ok());
  now_ += 5;
  queue_->Finish(id,
                 {.state = JobState::kDone,
                  .error_code = "",
                  .error = "",
                  .device = "cuda",
                  .docs = "warm",
                  .output_path = "/home/bea/real.pkl",
                  .report_json = "{}",
                  .search_seconds = 2.5},
                 4.5);
  ASSERT_TRUE(queue_->Flush().status.ok());
  EXPECT_EQ(job->state, JobState::kDone);
  EXPECT_EQ(job->finished_at, now_);
  EXPECT_EQ(job->ran_seconds, 4.5);
  EXPECT_EQ(job->output_path, "/home/bea/real.pkl");
  const std::string described = Describe(*job);
  const std::string tag = queue_->TemporaryTag(1, 2);
  EXPECT_TRUE(tag.ends_with("-1-2")) << tag;
  EXPECT_EQ(tag.size(), 12u);
  Reopen();
  EXPECT_EQ(Describe(*queue_->Find(id)), described);
  EXPECT_EQ(queue_->TemporaryTag(1, 2), tag);
  EXPECT_EQ(queue_->Find(2), nullptr);
}

TEST_F(JobQueueTest, OneKeyIsOneJobAlsoAfterARestart) {
  const int64_t job = SubmittedAndFlushed(1000, "a");
  for (int restarts = 0; restarts < 2; ++restarts) {
    SubmitRequest again = RequestOf("a", 50);
    again.shape.num_docs = 99;  // read again from a file that has grown
    const auto answer = queue_->Submit(1000, again, "{}");
    ASSERT_TRUE(std::holds_alternative<JobQueue::Submitted>(answer));
    EXPECT_TRUE(std::get<JobQueue::Submitted>(answer).existed);
    EXPECT_EQ(std::get<JobQueue::Submitted>(answer).job, job);
    EXPECT_FALSE(queue_->has_changes());
    const ErrorReply conflict = Refused(1000, RequestOf("a"), R"({"k":3})");
    EXPECT_EQ(conflict.code, ErrorCode::kKeyConflict);
    EXPECT_NE(conflict.message.find("'a' belongs to job 1"), std::string::npos);
    Reopen();
  }
  EXPECT_EQ(SubmittedAndFlushed(1001, "a"), 2);  // another user's
}

TEST_F(JobQueueTest, FreesTheKeyOfAForgottenJobButNotItsId) {
  EXPECT_EQ(Done(1000, "a"), 1);
  EXPECT_EQ(queue_->Clean(1000), Ids({1}));
  // In one transaction with the removal.
  EXPECT_EQ(Submitted(1000, RequestOf("a")), 2);
  ASSERT_TRUE(queue_->Flush().status.ok());
  Reopen();
  EXPECT_EQ(queue_->Find(1), nullptr);
  EXPECT_EQ(queue_->jobs().size(), 1u);
  queue_->Finish(2, {.state = JobState::kCancelled}, 0);
  ASSERT_TRUE(queue_->Flush().status.ok());
  EXPECT_EQ(queue_->Clean(std::nullopt), Ids({2}));
  ASSERT_TRUE(queue_->Flush().status.ok());
  Reopen();
  EXPECT_EQ(SubmittedAndFlushed(1000, "a"), 3);
}

TEST_F(JobQueueTest, RefusesRequestsThatCannotBe) {
  const auto code = [this](auto change, const std::string& spec = "{}") {
    SubmitRequest request = RequestOf("a");
    change(request);
    return Refused(1000, request, spec).code;
  };
  EXPECT_EQ(code([](auto& r) { r.key = ""; }), ErrorCode::kBadRequest);
  EXPECT_EQ(code([](auto& r) { r.key = std::string(129, 'k'); }), ErrorCode::kBadRequest);
  EXPECT_EQ(code([](auto& r) { r.key = "a\nb"; }), ErrorCode::kBadRequest);
  EXPECT_EQ(code([](auto& r) { r.key = "\xc3\xa9"; }), ErrorCode::kBadRequest);
  EXPECT_EQ(code([](auto& r) { r.priority = 101; }), ErrorCode::kBadRequest);
  EXPECT_EQ(code([](auto& r) { r.timeout_seconds = -1; }), ErrorCode::kBadRequest);
  EXPECT_EQ(code([](auto& r) { r.spec.output_path = ""; }), ErrorCode::kBadRequest);
  EXPECT_EQ(code([](auto& r) {
              r.spec.output_path = "out.pkl";
              r.spec.working_folder = "here";
            }),
            ErrorCode::kBadRequest);
  EXPECT_EQ(code([](auto& r) { r.spec.docs_path = std::string(5000, 'd'); }),
            ErrorCode::kBadRequest);
  EXPECT_EQ(code([](auto&) {}, std::string(200'000, 's')), ErrorCode::kBadRequest);
  EXPECT_TRUE(queue_->jobs().empty());
}

TEST_F(JobQueueTest, QueuesAJobAgainThatTheDaemonDiedWithUntilItIsPoison) {
  const int64_t job = SubmittedAndFlushed(1000, "a");
  for (int crash = 1; crash <= 3; ++crash) {
    queue_->Start(job);
    ASSERT_TRUE(queue_->Flush().status.ok());
    Reopen();
    EXPECT_FALSE(queue_->has_changes());
    const Job* found = queue_->Find(job);
    EXPECT_EQ(found->state, JobState::kQueued);
    EXPECT_EQ(found->crashes, crash);
    EXPECT_EQ(found->attempt, crash);
    EXPECT_EQ(found->leftover_attempt, crash);
    EXPECT_FALSE(found->started_at);
    EXPECT_EQ(queue_->scheduler().Next(), job);
    queue_->ForgetLeftover(job);
    ASSERT_TRUE(queue_->Flush().status.ok());
    Reopen();  // a restart while it waits counts nothing
    EXPECT_EQ(queue_->Find(job)->crashes, crash);
    EXPECT_EQ(queue_->Find(job)->leftover_attempt, 0);
  }
  queue_->Start(job);
  ASSERT_TRUE(queue_->Flush().status.ok());
  Reopen();
  EXPECT_EQ(StateOf(job), JobState::kFailed);
  EXPECT_EQ(queue_->Find(job)->error_code, "aborted");
  EXPECT_EQ(queue_->Find(job)->finished_at, now_);
  EXPECT_EQ(queue_->Find(job)->leftover_attempt, 4);
  EXPECT_FALSE(queue_->scheduler().Next());
  Reopen();
  EXPECT_EQ(StateOf(job), JobState::kFailed);
}

TEST_F(JobQueueTest, RequeuesWithoutBlame) {
  const int64_t job = SubmittedAndFlushed(1000, "a");
  for (int i = 1; i <= 10; ++i) {
    queue_->Start(job);
    ASSERT_TRUE(queue_->Flush().status.ok());
    queue_->Requeue(job, i == 10);
    ASSERT_TRUE(queue_->Flush().status.ok());
    Reopen();
  }
  EXPECT_EQ(StateOf(job), JobState::kQueued);
  EXPECT_EQ(queue_->Find(job)->attempt, 10);
  EXPECT_EQ(queue_->Find(job)->crashes, 0);
  EXPECT_EQ(queue_->Find(job)->leftover_attempt, 10);
}

TEST_F(JobQueueTest, UndoesPromisesThatCouldNotBeWrittenAndKeepsOutcomes) {
  const int64_t runs = SubmittedAndFlushed(1000, "runs");
  const int64_t waits = SubmittedAndFlushed(1000, "waits");
  const int64_t stops = SubmittedAndFlushed(1000, "stops");
  queue_->Start(runs);
  queue_->Start(stops);
  ASSERT_TRUE(queue_->Flush().status.ok());
  vfs_.set_hook([](VfsCall call, const std::string&) -> std::optional<VfsFault> {
    return call == VfsCall::kWrite ? std::optional(VfsFault{.code = SQLITE_FULL}) : std::nullopt;
  });
  const int64_t fresh = Submitted(1000, RequestOf("new"));
  const int64_t started = Submitted(1000, RequestOf("new and started"));
  queue_->Start(started);
  const int64_t cancelled = Submitted(1000, RequestOf("new and cancelled"));
  queue_->Finish(cancelled, {.state = JobState::kCancelled}, 0);
  queue_->Start(waits);
  queue_->Finish(runs, {.state = JobState::kDone}, 3);
  queue_->Requeue(stops, false);
  JobQueue::FlushResult result = queue_->Flush();
  EXPECT_EQ(result.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(result.undone_submissions, Ids({fresh, started, cancelled}));
  EXPECT_EQ(result.undone_starts, Ids({waits}));
  EXPECT_EQ(queue_->Find(fresh), nullptr);
  EXPECT_EQ(StateOf(waits), JobState::kQueued);
  EXPECT_EQ(queue_->Find(waits)->attempt, 0);
  EXPECT_FALSE(queue_->Find(waits)->started_at);
  EXPECT_EQ(StateOf(runs), JobState::kDone);
  EXPECT_EQ(StateOf(stops), JobState::kQueued);
  EXPECT_EQ(queue_->scheduler().Order(), Ids({waits, stops}));
  EXPECT_TRUE(queue_->has_changes());
  // No new promises, but old ones are known.
  EXPECT_EQ(Refused(1000, RequestOf("new")).code, ErrorCode::kJournalFull);
  EXPECT_TRUE(
      std::holds_alternative<JobQueue::Submitted>(queue_->Submit(1000, RequestOf("waits"), "{}")));
  // Outcomes that nobody was told of are not forgotten.
  EXPECT_EQ(queue_->Clean(1000), Ids());
  result = queue_->Flush();
  EXPECT_FALSE(result.status.ok());
  EXPECT_TRUE(result.undone_submissions.empty());
  EXPECT_TRUE(result.undone_starts.empty());
  vfs_.set_hook(nullptr);
  queue_->journal().RestoreReserve();
  EXPECT_FALSE(queue_->Refusal());
  ASSERT_TRUE(queue_->Flush().status.ok());
  EXPECT_FALSE(queue_->has_changes());
  Reopen();
  EXPECT_EQ(StateOf(runs), JobState::kDone);
  EXPECT_EQ(StateOf(stops), JobState::kQueued);
  EXPECT_EQ(queue_->Find(stops)->crashes, 0);
  EXPECT_EQ(queue_->jobs().size(), 3u);
}

TEST_F(JobQueueTest, RefusesEverythingOnceTheDiskHasFailed) {
  SubmittedAndFlushed(1000, "a");
  vfs_.set_hook([](VfsCall call, const std::string&) -> std::optional<VfsFault> {
    return call == VfsCall::kSync ? std::optional(VfsFault{.code = SQLITE_IOERR_FSYNC})
                                  : std::nullopt;
  });
  Submitted(1000, RequestOf("b"));
  EXPECT_EQ(queue_->Flush().undone_submissions, Ids({2}));
  vfs_.set_hook(nullptr);
  EXPECT_EQ(Refused(1000, RequestOf("b")).code, ErrorCode::kJournalFailed);
  queue_->Start(1);
  EXPECT_EQ(queue_->Flush().undone_starts, Ids({1}));
}

TEST_F(JobQueueTest, IgnoresChangesToJobsThatCannotChange) {
  const int64_t job = Done(1000, "a");
  queue_->Start(job);
  queue_->Requeue(job, true);
  queue_->Finish(job, {.state = JobState::kFailed}, 1);
  for (const int64_t other : {int64_t{0}, int64_t{-1}, int64_t{99}}) {
    queue_->Start(other);
    queue_->Requeue(other, true);
    queue_->Finish(other, {.state = JobState::kFailed}, 1);
    queue_->ForgetLeftover(other);
  }
  EXPECT_FALSE(queue_->has_changes());
  EXPECT_EQ(StateOf(job), JobState::kDone);
}

TEST_F(JobQueueTest, RemembersWhoUsedTheDeviceAfterARestart) {
  Done(1000, "a");  // one second
  Submitted(1000, RequestOf("b"));
  Submitted(1001, RequestOf("b"));
  ASSERT_TRUE(queue_->Flush().status.ok());
  EXPECT_EQ(queue_->scheduler().Order(), Ids({3, 2}));
  Reopen();
  EXPECT_EQ(queue_->scheduler().Order(), Ids({3, 2}));
}

}  // namespace
}  // namespace tiny_knn
