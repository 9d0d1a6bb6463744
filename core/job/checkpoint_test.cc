// Jobs that go on where others ended: what is kept, what is refused, and what comes out.
#include "core/job/checkpoint.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/cpu/cpu_engine.h"
#include "core/job/checkpoint_file.h"
#include "core/job/job_report.h"
#include "core/job/job_spec.h"
#include "core/job/npy_files_for_test.h"
#include "core/job/run_job.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int64_t kDim = 4;
constexpr int64_t kQueries = 50;
constexpr int64_t kDocs = 3000;

// Cancels once so many pairs are done.
class CancellingProgress : public Progress {
 public:
  explicit CancellingProgress(int64_t pairs) : pairs_(pairs) {}
  void Report(int64_t pairs_done, int64_t) override {
    if (pairs_done >= pairs_) cancelled_ = true;
  }
  bool cancelled() const override { return cancelled_; }

 private:
  const int64_t pairs_;
  std::atomic<bool> cancelled_ = false;
};

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    WriteRandom("q.npy", kQueries, 1);
    WriteRandom("d.npy", kDocs, 2);
    spec_.queries_path = Path("q.npy");
    spec_.docs_path = Path("d.npy");
    spec_.output_path = Path("out.pkl");
    spec_.checkpoint_path = Path("run.ckpt");
    spec_.checkpoint_seconds = 0;
    spec_.k = 7;
    spec_.threads = 1;
    spec_.batch_size = 20;
    spec_.memory_limit_bytes = 256 << 20;
  }

  void WriteRandom(const std::string& name, int64_t rows, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<float> values(static_cast<size_t>(rows * kDim));
    for (float& value : values) value = static_cast<float>(static_cast<int>(random() % 9) - 4);
    for (int64_t i = 3; i < rows; i += 17) {
      values[static_cast<size_t>(i * kDim)] = i % 2 == 0 ? std::nanf("") : HUGE_VALF;
    }
    WriteNpyForTest(Path(name), rows, values);
  }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  // Chunks of few docs, so that there are borders; the plan's own are for docs by the million.
  absl::StatusOr<PreparedJob> Prepare(const JobSpec& spec) {
    absl::StatusOr<PreparedJob> job = PrepareJob(spec);
    if (job.ok()) job->plan.doc_block = job->plan.doc_tile = job->plan.doc_chunk = 512;
    return job;
  }

  absl::StatusOr<JobResult> Run(const JobSpec& spec, Progress* progress = nullptr) {
    absl::StatusOr<PreparedJob> job = Prepare(spec);
    if (!job.ok()) return job.status();
    absl::StatusOr<JobResult> result = RunJob(spec, *job, *engine_, {.progress = progress});
    if (result.ok()) notes_ = JobNotes(spec, *job, MakeJobReport(*job, "cpu", *result));
    return result;
  }

  // Runs the job until so many pairs are done.
  void RunUntil(int64_t pairs) {
    CancellingProgress progress(pairs);
    EXPECT_TRUE(absl::IsCancelled(Run(spec_, &progress).status()));
  }

  // Names in the folder that are not the inputs.
  std::vector<std::string> OtherFiles() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      const std::string name = entry.path().filename().string();
      if (name != "q.npy" && name != "d.npy") names.push_back(name);
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  std::string Refusal() {
    const std::string before = ReadAllForTest(spec_.checkpoint_path);
    const absl::Status status = Run(spec_).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_EQ(ReadAllForTest(spec_.checkpoint_path), before) << "nothing lost";
    EXPECT_FALSE(fs::exists(spec_.output_path));
    return std::string(status.message());
  }

  CheckpointData Parsed() {
    const std::string bytes = ReadAllForTest(spec_.checkpoint_path);
    const auto data =
        ParseCheckpoint({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
    EXPECT_TRUE(data.ok()) << data.status();
    return data.value_or(CheckpointData());
  }

  fs::path folder_;
  JobSpec spec_;
  std::vector<std::string> notes_;
  std::unique_ptr<Engine> engine_ = MakeCpuEngine();
};

TEST_F(CheckpointTest, AJobThatEndsAnywhereGoesOnToTheSameBytesAndCounts) {
  JobSpec plain = spec_;
  plain.checkpoint_path.clear();
  for (const char* const output : {"out.pkl", "out.npz"}) {
    for (const bool exclude_self : {false, true}) {
      for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
        for (JobSpec* const spec : {&plain, &spec_}) {
          spec->output_path = Path(output);
          spec->exclude_self = exclude_self;
          spec->compute_dtype = dtype;
          spec->verify_queries = kQueries;
        }
        const absl::StatusOr<JobResult> expected = Run(plain);
        ASSERT_TRUE(expected.ok()) << expected.status();
        EXPECT_GT(expected->report.queries_with_tie_at_k, 0);
        const std::string bytes = ReadAllForTest(plain.output_path);
        fs::remove(plain.output_path);
        std::mt19937 random(7);
        for (int i = 0; i < 6; ++i) {
          // Several times, each a bit further; with other batches.
          int64_t pairs = 0;
          while (true) {
            pairs += 1 + static_cast<int64_t>(random() % (kQueries * kDocs / 2));
            spec_.batch_size = 1 + static_cast<int64_t>(random() % kQueries);
            if (pairs >= kQueries * kDocs) break;
            RunUntil(pairs);
            EXPECT_THAT(OtherFiles(), ElementsAre("run.ckpt", "run.ckpt.rows"));
          }
          // What is recorded as asked for.
          spec_.batch_size = plain.batch_size;
          const absl::StatusOr<JobResult> result = Run(spec_);
          ASSERT_TRUE(result.ok()) << result.status();
          ASSERT_EQ(ReadAllForTest(spec_.output_path), bytes);
          EXPECT_THAT(OtherFiles(), ElementsAre(output)) << "nothing else is left";
          fs::remove(spec_.output_path);
          const SearchReport& a = expected->report;
          const SearchReport& b = result->report;
          EXPECT_EQ(a.nonfinite_query_rows, b.nonfinite_query_rows);
          EXPECT_EQ(a.nonfinite_doc_rows, b.nonfinite_doc_rows);
          EXPECT_EQ(a.infs_made_in_queries, b.infs_made_in_queries);
          EXPECT_EQ(a.infs_made_in_docs, b.infs_made_in_docs);
          EXPECT_EQ(a.queries_with_tie_at_k, b.queries_with_tie_at_k);
        }
      }
    }
  }
}

TEST_F(CheckpointTest, SaysThatItWentOnAndWhere) {
  RunUntil(kQueries * kDocs / 2);
  ASSERT_TRUE(Run(spec_).ok());
  EXPECT_THAT(notes_, testing::Contains(AllOf(HasSubstr("went on from the checkpoint "),
                                              HasSubstr("run.ckpt, at 5"))));
}

TEST_F(CheckpointTest, WhatIsDoneIsNotDoneAgain) {
  RunUntil(kQueries * kDocs / 2);
  const SearchState state = Parsed().state;
  EXPECT_EQ(state.finished_queries, 20);
  ASSERT_EQ(state.spans.size(), 1U);
  EXPECT_EQ(state.spans[0].first_query, 20);
  EXPECT_EQ(state.spans[0].docs_done % 512, 0);
  const auto expected = [&] {
    JobSpec plain = spec_;
    plain.checkpoint_path.clear();
    return Run(plain)->report.rescored_pairs;
  }();
  fs::remove(spec_.output_path);
  // The whole work, that of before included, is about that of one run.
  const auto result = Run(spec_);
  ASSERT_TRUE(result.ok());
  EXPECT_LE(result->report.rescored_pairs, expected * 5 / 4);
}

TEST_F(CheckpointTest, WorksWithRangesAndFolders) {
  fs::create_directory(Path("docs"));
  for (int i = 0; i < 3; ++i) WriteRandom(fmt::format("docs/{}.npy", i), 700, 10 + i);
  spec_.docs_path = Path("docs");
  spec_.docs_range = DocsRange{100, 2000};
  spec_.exclude_self = true;
  JobSpec plain = spec_;
  plain.checkpoint_path.clear();
  ASSERT_TRUE(Run(plain).ok());
  const std::string bytes = ReadAllForTest(plain.output_path);
  fs::remove(plain.output_path);
  RunUntil(kQueries * 1000);
  ASSERT_TRUE(Run(spec_).ok());
  EXPECT_EQ(ReadAllForTest(spec_.output_path), bytes);
  fs::remove(spec_.output_path);
  // A range of no more docs than k.
  spec_.docs_range = plain.docs_range = DocsRange{10, 15};
  ASSERT_TRUE(Run(plain).ok());
  const std::string few = ReadAllForTest(plain.output_path);
  fs::remove(plain.output_path);
  RunUntil(21 * 5);
  ASSERT_TRUE(Run(spec_).ok());
  EXPECT_EQ(ReadAllForTest(spec_.output_path), few);
}

TEST_F(CheckpointTest, ACheckpointOfAnotherSearchIsRefusedNamingTheDifference) {
  RunUntil(kQueries * kDocs / 2);
  const JobSpec spec = spec_;
  const auto refused_with = [&](const std::function<void()>& change) {
    change();
    const std::string message = Refusal();
    EXPECT_THAT(message, AllOf(HasSubstr("run.ckpt: is the checkpoint of another search: "),
                               HasSubstr("remove it to begin anew")));
    spec_ = spec;
    return message;
  };
  EXPECT_THAT(refused_with([&] { spec_.k = 8; }), HasSubstr("k is 7 there, 8 here"));
  EXPECT_THAT(refused_with([&] { spec_.metric = Metric::kL2; }), HasSubstr("metric is ip there"));
  EXPECT_THAT(refused_with([&] { spec_.compute_dtype = DType::kFloat64; }),
              HasSubstr("dtype is float32 there, float64 here"));
  EXPECT_THAT(refused_with([&] { spec_.exclude_self = true; }),
              HasSubstr("exclude-self is off there, on here"));
  EXPECT_THAT(refused_with([&] {
                spec_.docs_range = DocsRange{0, 1000};
              }),
              HasSubstr("docs range is all there, 0:1000 here"));
  const std::string docs = ReadAllForTest(Path("d.npy"));
  EXPECT_THAT(
      refused_with([&] { fs::last_write_time(Path("d.npy"), fs::file_time_type::clock::now()); }),
      HasSubstr("docs is a file of 48128 bytes, inode "));
  WriteRandom("q.npy", kQueries, 9);
  EXPECT_THAT(refused_with([] {}), HasSubstr("queries is a file of "));
}

TEST_F(CheckpointTest, WhatIsNoCheckpointIsLeftAlone) {
  std::ofstream(spec_.checkpoint_path) << "dear diary";
  EXPECT_THAT(Refusal(), HasSubstr("run.ckpt: is no checkpoint of tiny-knn"));
  EXPECT_THAT(OtherFiles(), ElementsAre("run.ckpt"));
  fs::remove(spec_.checkpoint_path);
  std::ofstream(Path("run.ckpt.rows")) << "rows of mine";
  EXPECT_THAT(Refusal(), HasSubstr("run.ckpt.rows: is no file of tiny-knn's"));
  EXPECT_EQ(ReadAllForTest(Path("run.ckpt.rows")), "rows of mine");
  fs::remove(Path("run.ckpt.rows"));
  spec_.checkpoint_path = spec_.docs_path;
  EXPECT_THAT(Refusal(), HasSubstr("d.npy: is no checkpoint"));
  EXPECT_THAT(OtherFiles(), IsEmpty());
  spec_.checkpoint_path = spec_.output_path;
  EXPECT_THAT(Refusal(), HasSubstr("is the output and the checkpoint"));
}

TEST_F(CheckpointTest, EveryDamagedByteIsNoticed) {
  RunUntil(kQueries * kDocs / 2);
  const std::string sound = ReadAllForTest(spec_.checkpoint_path);
  for (size_t i = 0; i < sound.size(); i += 7) {
    std::string damaged = sound;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x20);
    EXPECT_FALSE(
        ParseCheckpoint({reinterpret_cast<const uint8_t*>(damaged.data()), damaged.size()}).ok());
    EXPECT_FALSE(ParseCheckpoint({reinterpret_cast<const uint8_t*>(sound.data()), i}).ok());
  }
  std::ofstream(spec_.checkpoint_path) << sound.substr(0, sound.size() / 2);
  EXPECT_THAT(Refusal(), HasSubstr("run.ckpt: is a damaged checkpoint"));
  std::ofstream(spec_.checkpoint_path) << sound;
  // Rows that are not those that were written.
  std::string rows = ReadAllForTest(Path("run.ckpt.rows"));
  rows[200] = static_cast<char>(rows[200] ^ 1);
  std::ofstream(Path("run.ckpt.rows")) << rows;
  EXPECT_TRUE(absl::IsDataLoss(Run(spec_).status()));
  std::ofstream(Path("run.ckpt.rows")) << rows.substr(0, 500);
  EXPECT_THAT(Refusal(), HasSubstr("run.ckpt.rows: does not hold the rows"));
  fs::remove(Path("run.ckpt.rows"));
  EXPECT_THAT(Refusal(), HasSubstr("run.ckpt.rows: does not hold the rows"));
}

TEST_F(CheckpointTest, OneProcessAtATime) {
  CheckpointOptions options{.path = spec_.checkpoint_path,
                            .identity = {{"k", "1"}},
                            .num_queries = 1,
                            .num_docs = 1,
                            .params = {.k = 1}};
  auto first = Checkpoint::Open(options);
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status second = Checkpoint::Open(options).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(second)) << second;
  EXPECT_THAT(std::string(second.message()), HasSubstr("another process is using"));
  ASSERT_TRUE((*first)->Remove().ok());
  first->reset();
  EXPECT_THAT(OtherFiles(), IsEmpty());
  EXPECT_TRUE(Checkpoint::Open(options).ok());
}

TEST_F(CheckpointTest, IsSavedNoMoreOftenThanAsked) {
  CheckpointOptions options{.path = spec_.checkpoint_path,
                            .interval = std::chrono::hours(1),
                            .identity = {},
                            .num_queries = 1,
                            .num_docs = 1,
                            .params = {.k = 1}};
  const auto seldom = Checkpoint::Open(options);
  ASSERT_TRUE(seldom.ok()) << seldom.status();
  EXPECT_FALSE((*seldom)->Due());
  options.path = Path("other.ckpt");
  options.interval = std::chrono::nanoseconds(0);
  const auto always = Checkpoint::Open(options);
  ASSERT_TRUE(always.ok());
  EXPECT_TRUE((*always)->Due());
}

TEST_F(CheckpointTest, AFolderThatCannotBeWrittenIsFoundAtOnce) {
  spec_.checkpoint_path = Path("none/run.ckpt");
  EXPECT_TRUE(absl::IsNotFound(Run(spec_).status()));
  EXPECT_THAT(OtherFiles(), IsEmpty());
}

TEST_F(CheckpointTest, StatesOfAnotherShapeAreRefused) {
  RunUntil(kQueries * kDocs / 2);
  const SearchState sound = Parsed().state;
  const SearchParams params{.k = 7};
  ASSERT_TRUE(CheckState(sound, kQueries, kDocs, params).ok());
  EXPECT_FALSE(CheckState(sound, kQueries - 20, kDocs, params).ok());
  EXPECT_FALSE(CheckState(sound, kQueries, 511, params).ok());
  EXPECT_FALSE(CheckState(sound, kQueries, kDocs, {.k = 5}).ok()) << "too many docs";
  EXPECT_FALSE(CheckState(sound, kQueries, kDocs, {.k = 9}).ok()) << "too few";
  EXPECT_FALSE(CheckState(sound, kQueries, kDocs, {.k = 7, .first_doc = 5000}).ok());
  const auto with = [&](const std::function<void(SearchState&)>& change) {
    SearchState state = sound;
    change(state);
    return CheckState(state, kQueries, kDocs, params).ok();
  };
  EXPECT_FALSE(with([](SearchState& s) { s.finished_queries = 21; }));
  EXPECT_FALSE(with([](SearchState& s) { s.finished_queries = -1; }));
  EXPECT_FALSE(with([](SearchState& s) { s.spans[0].docs_done = 0; }));
  EXPECT_FALSE(with([](SearchState& s) { s.spans[0].num_queries = INT64_MAX; }));
  EXPECT_FALSE(with([](SearchState& s) { s.spans[0].counts[0] = -1; }));
  EXPECT_FALSE(with([](SearchState& s) { s.spans[0].counts.pop_back(); }));
  EXPECT_FALSE(with([](SearchState& s) { s.spans[0].docs.pop_back(); }));
  EXPECT_FALSE(with([](SearchState& s) { s.spans[0].docs[0].index = kDocs; }));
  EXPECT_FALSE(with([](SearchState& s) { s.spans[0].docs[0].key = uint64_t{1} << 40; }));
  EXPECT_FALSE(with([](SearchState& s) { std::swap(s.spans[0].docs[0], s.spans[0].docs[1]); }));
}

}  // namespace
}  // namespace tiny_knn
