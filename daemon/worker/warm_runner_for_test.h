// A runner over small files in a folder of the test's own, and what it said.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/job/run_job.h"
#include "daemon/worker/engines_for_test.h"
#include "daemon/worker/files_for_test.h"
#include "daemon/worker/warm_runner.h"
#include "gtest/gtest.h"

namespace tiny_knn {

inline constexpr int64_t kHourNs = int64_t{3600} * 1'000'000'000;
inline constexpr int64_t kGiB = int64_t{1} << 30;

class RecordingListener : public JobListener {
 public:
  void Report(int64_t, int64_t) override { ++reports; }
  bool cancelled() const override { return cancel; }
  void Log(const std::vector<std::string>& more) override {
    lines.insert(lines.end(), more.begin(), more.end());
  }
  bool cancel = false;
  int reports = 0;
  std::vector<std::string> lines;
};

class WarmRunnerTest : public testing::Test {
 protected:
  WarmRunnerTest() : folder_(MakeTestFolder()) {
    WriteNpy(folder_ + "/q.npy", 50, RandomValues(50 * 8, 1));
    WriteNpy(folder_ + "/d.npy", 400, RandomValues(400 * 8, 2));
    WriteNpy(folder_ + "/e.npy", 400, RandomValues(400 * 8, 3));
    run_.job = 7;
    run_.most_memory_bytes = kGiB;
    run_.most_threads = 1;
    run_.temporary_tag = std::string("job7-1");
    run_.spec.working_folder = folder_;
    run_.spec.queries_path = std::string("q.npy");
    run_.spec.docs_path = std::string("d.npy");
    run_.spec.output_path = std::string("out.pkl");
    run_.spec.k = 5;
    options_.now_ns = [this] { return now_ns_; };
    options_.open_engine = [this](const EngineOptions& options) {
      opened_.push_back(options.device);
      return OpenEngineForTest(options);
    };
    Restart();
  }

  void Restart() { runner_ = std::make_unique<WarmRunner>(options_); }

  WorkerFinished Run() {
    listener_.lines.clear();
    return runner_->Run(run_, listener_);
  }

  // Runs it; the result has to be what a new engine finds in the files as they are now.
  WorkerFinished RunRight() {
    WorkerFinished finished = Run();
    EXPECT_EQ(finished.error_code, "ok") << finished.error;
    EXPECT_EQ(ReadAll(finished.output_path), BytesOfDirectRun(run_.spec, folder_ + "/scratch.pkl"));
    return finished;
  }

  // What one job's plan takes, and its docs once they are kept.
  std::pair<int64_t, int64_t> PlanAndWarmBytes() {
    JobSpec spec = run_.spec;
    spec.memory_limit_bytes = run_.most_memory_bytes;
    spec.threads = run_.most_threads;
    const absl::StatusOr<PreparedJob> job = PrepareJob(spec);
    EXPECT_TRUE(job.ok()) << job.status();
    const WorkerFinished finished = Run();
    EXPECT_EQ(finished.warm_docs.size(), 1u);
    const std::pair<int64_t, int64_t> bytes = {job->plan.memory.total(),
                                               finished.warm_docs.at(0).bytes};
    Restart();
    return bytes;
  }

  static std::vector<std::string> Names(const std::vector<WarmDocsStats>& docs) {
    std::vector<std::string> names;
    for (const WarmDocsStats& one : docs) {
      names.push_back(std::filesystem::path(one.docs_path).filename().string());
    }
    return names;
  }

  const std::string folder_;
  WorkerRun run_;
  WarmRunnerOptions options_;
  int64_t now_ns_ = WallClockNs() + kHourNs;  // as if the files had been written an hour ago
  std::vector<std::string> opened_;           // devices that were opened
  std::unique_ptr<WarmRunner> runner_;
  RecordingListener listener_;
};

}  // namespace tiny_knn
