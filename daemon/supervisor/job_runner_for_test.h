// A runner of scripted workers, and what it told.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "daemon/supervisor/job_runner.h"
#include "gtest/gtest.h"

namespace tiny_knn {

inline constexpr char kScriptedWorker[] = "daemon/supervisor/scripted_worker_for_test";

struct Ended {
  int64_t job;
  std::optional<JobOutcome> outcome;
};

class JobRunnerTest : public testing::Test {
 protected:
  // A runner whose workers all follow `script`.
  void Start(const std::string& script,
             std::chrono::milliseconds idle_release = std::chrono::hours(1),
             std::vector<std::string> environment = {}) {
    using std::chrono::milliseconds;
    SupervisorOptions options;
    options.device = script;
    options.idle_release = std::chrono::duration_cast<std::chrono::seconds>(idle_release);
    options.max_memory_bytes = 1 << 20;
    options.max_seconds = max_seconds_;
    absl::StatusOr<WorkerBinary> binary = OpenWorkerBinary(worker_path_);
    ASSERT_TRUE(binary.ok()) << binary.status();
    JobRunner::Timing timing;
    timing.patience = milliseconds(100);
    timing.removal = milliseconds(2000);  // a worker has to start meanwhile, on a busy machine
    timing.silence = silence_;
    timing.silence_check = milliseconds(20);
    timing.first_backoff = first_backoff_;
    timing.longest_backoff = 4 * first_backoff_;
    timing.dying = dying_;
    timing.kill = kill_;
    // What is due for the one before is done while it is there; what is not is cancelled with it.
    loop_.poll();
    runner_.reset();
    runner_ = std::make_unique<JobRunner>(
        loop_, options, *std::move(binary), std::move(environment),
        JobRunner::Callbacks{[this](int64_t) { ++progress_reports_; },
                             [this](int64_t, const std::string& line) { log_.push_back(line); },
                             [this](int64_t job, std::optional<JobOutcome> outcome, double ran) {
                               ended_.push_back({job, std::move(outcome)});
                               ran_seconds_.push_back(ran);
                             },
                             [this](int64_t job, double) { removed_.push_back(job); },
                             [this] { ++ready_calls_; }},
        timing, users_);
  }

  static RunningJob Job(int64_t id, int64_t timeout_seconds = 0) {
    RunningJob job;
    job.id = id;
    job.attempt = 1;
    job.temporary_tag = "tag";
    job.timeout_seconds = timeout_seconds;
    job.spec.queries_path = "q.npy";
    job.spec.docs_path = "d.npy";
    return job;
  }

  // Runs the loop until `done`; a test that hangs is ended by its time limit.
  template <typename Done>
  void Until(const Done& done) {
    while (!done()) {
      loop_.run_one_for(std::chrono::milliseconds(50));
      loop_.restart();
    }
  }
  Ended RunOne(int64_t id, int64_t timeout_seconds = 0) { return RunOne(Job(id, timeout_seconds)); }
  Ended RunOne(RunningJob job) {
    Until([&] { return runner_->ready() && runner_->MayStart(job.uid); });
    const size_t before = ended_.size();
    runner_->Run(std::move(job));
    Until([&] { return ended_.size() > before; });
    return ended_.back();
  }

  std::string worker_path_ = kScriptedWorker;
  WorkerUsers users_ = WorkerUsers::kOwn;
  int64_t max_seconds_ = 0;
  std::chrono::milliseconds silence_ = std::chrono::seconds(20);
  std::chrono::milliseconds first_backoff_{10};
  std::chrono::milliseconds dying_ = std::chrono::seconds(10);
  std::function<void(pid_t)> kill_;
  boost::asio::io_context loop_;
  std::unique_ptr<JobRunner> runner_;
  std::vector<Ended> ended_;
  std::vector<double> ran_seconds_;
  std::vector<std::string> log_;
  std::vector<int64_t> removed_;
  int progress_reports_ = 0;
  int ready_calls_ = 0;
};

}  // namespace tiny_knn
