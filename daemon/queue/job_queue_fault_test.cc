// Any sequence of operations on a queue whose disk fails at random, and whose process is killed at
// random: compared with what was promised.
#include <sqlite3.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "daemon/queue/failing_vfs_for_test.h"
#include "daemon/queue/job_queue.h"
#include "daemon/queue/journal_for_test.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using Ids = std::vector<int64_t>;
using Jobs = std::map<int64_t, Job>;

enum class Weather { kFair, kNoSpace, kBroken };

class Storm {
 public:
  explicit Storm(unsigned seed) : random_(seed) { OpenAt({}); }

  void Run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) Step();
    // Space comes back, and everything that was left is written.
    weather_ = Weather::kFair;
    if (queue_->journal().health() == JournalHealth::kFailed) Kill();
    queue_->journal().RestoreReserve();
    ASSERT_FALSE(queue_->Refusal());
    Flush();
    ASSERT_FALSE(queue_->has_changes());
    Kill();
  }

  int kills() const { return kills_; }
  int failures() const { return failures_; }

 private:
  int Below(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }

  // A process that starts with these files.
  void OpenAt(const FailingVfs::Files& files) {
    folder_ = PrivateFolder(fmt::format("state{}", folders_++ % 2));
    vfs_.Forget(folder_);
    FailingVfs::WriteInto(files, folder_);
    vfs_.set_hook([this](VfsCall call, const std::string&) { return Weathered(call); });
    absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(folder_);
    ASSERT_TRUE(journal.ok()) << journal.status();
    QueueLimits limits;
    limits.finished_jobs_per_uid = 4;
    auto queue = JobQueue::Open(*std::move(journal), limits, [this] { return now_; });
    ASSERT_TRUE(queue.ok()) << queue.status();
    queue_ = *std::move(queue);
  }

  std::optional<VfsFault> Weathered(VfsCall call) {
    if (weather_ == Weather::kNoSpace && call == VfsCall::kWrite && Below(3) != 0) {
      return VfsFault{.code = SQLITE_FULL, .half = Below(2) == 0};
    }
    if (weather_ == Weather::kBroken && call == VfsCall::kWrite && Below(6) == 0) {
      return VfsFault{.code = SQLITE_IOERR_WRITE, .error_number = EIO, .half = Below(2) == 0};
    }
    if (weather_ == Weather::kBroken && call == VfsCall::kSync && Below(2) == 0) {
      return VfsFault{.code = SQLITE_IOERR_FSYNC, .error_number = EIO};
    }
    return std::nullopt;
  }

  void Step() {
    now_ += Below(100) - 20;  // also backwards
    const int what = Below(100);
    if (what < 25) {
      Submit();
    } else if (what < 45) {
      StartNext();
    } else if (what < 60) {
      Finish();
    } else if (what < 66) {
      if (const std::optional<int64_t> job = Any(JobState::kRunning)) {
        queue_->Requeue(*job, Below(2) == 0);
        started_.erase(*job);
      }
    } else if (what < 69) {
      if (const std::optional<int64_t> job = AnyJob()) queue_->ForgetLeftover(*job);
    } else if (what < 71) {
      Forgotten(queue_->Clean(Below(2) == 0 ? std::nullopt : std::optional<int64_t>(User())));
    } else if (what < 74) {
      Forgotten(queue_->Expire());
    } else if (what < 92) {
      Flush();
    } else if (what < 95) {
      const int next = Below(8);
      weather_ = next == 0 ? Weather::kBroken : next < 4 ? Weather::kNoSpace : Weather::kFair;
    } else if (what < 98) {
      if (weather_ == Weather::kFair) queue_->journal().RestoreReserve();
    } else {
      Kill();
    }
    CheckMemory();
  }

  int64_t User() { return 1000 + Below(3); }

  std::optional<int64_t> AnyJob() {
    if (queue_->jobs().empty()) return std::nullopt;
    return std::next(queue_->jobs().begin(), Below(static_cast<int>(queue_->jobs().size())))->first;
  }
  std::optional<int64_t> Any(JobState state) {
    for (int tries = 0; tries < 20; ++tries) {
      const std::optional<int64_t> job = AnyJob();
      if (job && queue_->Find(*job)->state == state) return job;
    }
    return std::nullopt;
  }

  void Submit() {
    SubmitRequest request;
    request.key = fmt::format("key-{}", Below(25));
    request.priority = Below(3);
    request.spec.output_path = "/out";
    const int64_t uid = User();
    const auto same =
        std::find_if(queue_->jobs().begin(), queue_->jobs().end(), [&](const auto& entry) {
          return entry.second.uid == uid && entry.second.key == request.key;
        });
    const auto answer = queue_->Submit(uid, request, "{}");
    const auto* submitted = std::get_if<JobQueue::Submitted>(&answer);
    if (same != queue_->jobs().end()) {
      ASSERT_NE(submitted, nullptr);
      ASSERT_TRUE(submitted->existed);
      ASSERT_EQ(submitted->job, same->first) << "one key, two jobs";
    } else if (queue_->journal().health() != JournalHealth::kOk) {
      ASSERT_EQ(submitted, nullptr);
    } else {
      ASSERT_NE(submitted, nullptr);
      ASSERT_FALSE(submitted->existed);
      ASSERT_FALSE(acknowledged_.contains(submitted->job)) << "an id given twice";
    }
  }

  void StartNext() {
    const std::optional<int64_t> next = queue_->scheduler().Next();
    if (!next) return;
    queue_->Start(*next);
    started_.insert(*next);
  }

  void Finish() {
    std::optional<int64_t> job = Any(Below(4) == 0 ? JobState::kQueued : JobState::kRunning);
    if (!job) return;
    JobOutcome outcome;
    outcome.state = Below(3) == 0 ? JobState::kFailed : JobState::kDone;
    outcome.error = "because";
    outcome.left_temporary = Below(4) == 0;
    queue_->Finish(*job, outcome, Below(50));
    started_.erase(*job);
  }

  // Only what was durably finished may go.
  void Forgotten(const Ids& ids) {
    for (const int64_t id : ids) {
      ASSERT_TRUE(durable_.contains(id));
      ASSERT_TRUE(IsFinished(durable_.at(id).state)) << id;
    }
  }

  void Flush() {
    const Jobs before = queue_->jobs();
    const JobQueue::FlushResult result = queue_->Flush();
    if (result.status.ok()) {
      ASSERT_TRUE(result.undone_submissions.empty() && result.undone_starts.empty());
      durable_ = before;
      for (const auto& [id, job] : before) acknowledged_.insert(id);
      started_.clear();
      possible_.reset();
      return;
    }
    ++failures_;
    if (queue_->journal().health() == JournalHealth::kFailed && !broken_) {
      broken_ = true;
      possible_ = before;  // what was being written may be on disk
    }
    Ids submissions;
    Ids starts;
    for (const auto& [id, job] : before) {
      const Job* after = queue_->Find(id);
      if (!acknowledged_.contains(id)) {
        submissions.push_back(id);
        ASSERT_EQ(after, nullptr) << "an undone submission stayed";
      } else if (started_.contains(id)) {
        starts.push_back(id);
        ASSERT_EQ(after->state, JobState::kQueued);
        ASSERT_EQ(after->attempt, job.attempt - 1);
      } else {
        ASSERT_NE(after, nullptr) << "an acknowledged job is lost";
        ASSERT_EQ(Describe(*after), Describe(job)) << "an outcome was lost";
      }
    }
    ASSERT_EQ(result.undone_submissions, submissions);
    ASSERT_EQ(result.undone_starts, starts);
    started_.clear();
  }

  // The process dies, or the power fails, and the next one starts. Its disk is well.
  void Kill() {
    ++kills_;
    const FailingVfs::Files files = Below(2) == 0 ? vfs_.written(folder_) : vfs_.synced(folder_);
    weather_ = Weather::kFair;
    vfs_.set_hook(nullptr);
    queue_.reset();
    OpenAt(files);
    if (testing::Test::HasFatalFailure()) return;
    if (possible_ && !Continues(durable_)) {
      ASSERT_TRUE(Continues(*possible_)) << "neither before nor after the write that failed";
    } else {
      ASSERT_TRUE(Continues(durable_)) << "not what was promised";
    }
    durable_ = queue_->jobs();
    for (const auto& [id, job] : durable_) acknowledged_.insert(id);
    possible_.reset();
    broken_ = false;
    started_.clear();
  }

  // Whether the queue is what a restart makes of these jobs.
  bool Continues(const Jobs& jobs) const {
    if (jobs.size() != queue_->jobs().size()) return false;
    for (const auto& [id, job] : jobs) {
      const Job* found = queue_->Find(id);
      if (found == nullptr) return false;
      Job expected = job;
      if (job.state == JobState::kRunning) {
        expected.leftover_attempt = job.attempt;
        ++expected.crashes;
        expected.state = expected.crashes > 3 ? JobState::kFailed : JobState::kQueued;
        if (expected.state == JobState::kQueued) expected.started_at.reset();
        if (expected.state == JobState::kFailed) {
          expected.finished_at = now_;
          expected.error_code = "aborted";
          expected.error = found->error;
        }
      }
      if (Describe(*found) != Describe(expected)) return false;
    }
    return true;
  }

  void CheckMemory() {
    Ids queued;
    std::set<std::pair<int64_t, std::string>> keys;
    for (const auto& [id, job] : queue_->jobs()) {
      ASSERT_EQ(id, job.id);
      if (job.state == JobState::kQueued) queued.push_back(id);
      ASSERT_EQ(job.state == JobState::kRunning, job.started_at && !job.finished_at) << id;
      ASSERT_EQ(IsFinished(job.state), job.finished_at.has_value()) << id;
      ASSERT_TRUE(keys.insert({job.uid, job.key}).second) << "one key, two jobs";
    }
    Ids waiting = queue_->scheduler().Order();
    std::sort(waiting.begin(), waiting.end());
    ASSERT_EQ(waiting, queued);
  }

  FailingVfs vfs_;
  std::mt19937 random_;
  Weather weather_ = Weather::kFair;
  double now_ = 1.75e9;
  int folders_ = 0;
  int kills_ = 0;
  int failures_ = 0;
  std::string folder_;
  Jobs durable_;                  // as of the last write that succeeded
  std::optional<Jobs> possible_;  // or so, after a write that failed halfway
  bool broken_ = false;
  std::set<int64_t> acknowledged_;
  std::set<int64_t> started_;  // since the last Flush, and running
  std::unique_ptr<JobQueue> queue_;
};

TEST(JobQueueFaultTest, KeepsItsPromisesInAnyWeather) {
  int kills = 0;
  int failures = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Storm storm(seed);
    storm.Run(400);
    if (HasFailure()) return;
    kills += storm.kills();
    failures += storm.failures();
  }
  fmt::print("{} kills, {} failed writes\n", kills, failures);
  EXPECT_GT(kills, 300);
  EXPECT_GT(failures, 300);
}

}  // namespace
}  // namespace tiny_knn
