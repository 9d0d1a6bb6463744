#include "core/job/run_job.h"

#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <vector>

#include "core/io/result_file.h"
#include "core/job/job_paths.h"
#include "core/job/verify.h"
#include "core/search/reference_search.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Answers with the oracle, then does what a test wants to go wrong.
class FaultyEngine : public Engine {
 public:
  std::function<absl::Status(const TopKView& out)> after_batch = [](const TopKView&) {
    return absl::OkStatus();
  };

  std::string_view device() const override { return "cpu"; }

 protected:
  absl::Status SearchBatch(RowSource& queries, int64_t first_query, int64_t num_queries,
                           RowSource& docs, const SearchParams& params, const SearchPlan&,
                           Progress&, const TopKView& out, SearchReport& report) override {
    std::vector<int64_t> wanted(static_cast<size_t>(num_queries));
    std::iota(wanted.begin(), wanted.end(), first_query);
    absl::Status status = ReferenceSearch(queries, wanted, docs, params, out, report);
    return status.ok() ? after_batch(out) : status;
  }
};

class FlagProgress : public Progress {
 public:
  void Report(int64_t, int64_t) override {}
  bool cancelled() const override { return cancel; }
  std::atomic<bool> cancel = false;
};

class RunJobTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    spec_.queries_path = WriteNpy("q.npy", 3, {1, 0, 0, 1, 1, 1});
    spec_.docs_path = WriteNpy("d.npy", 4, {5, 0, 0, 6, 7, 7, 1, 1});
    spec_.output_path = (folder_ / "out.pkl").string();
    spec_.k = 2;
    spec_.threads = 1;
    spec_.memory_limit_bytes = 256 << 20;
  }

  // float32 [rows, values / rows], C order.
  std::string WriteNpy(const std::string& name, int64_t rows, const std::vector<float>& values) {
    std::string header =
        fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows,
                    static_cast<int64_t>(values.size()) / std::max<int64_t>(rows, 1));
    header.resize(117, ' ');
    header += '\n';
    const std::string path = (folder_ / name).string();
    std::ofstream file(path, std::ios::binary);
    file << std::string("\x93NUMPY\x01\x00", 8) << static_cast<char>(header.size()) << '\0'
         << header;
    file.write(reinterpret_cast<const char*>(values.data()),
               static_cast<std::streamsize>(values.size() * sizeof(float)));
    return path;
  }

  absl::StatusOr<JobResult> Run() {
    absl::StatusOr<PreparedJob> job = PrepareJob(spec_);
    if (!job.ok()) return job.status();
    return RunJob(spec_, *job, engine_, {.progress = &progress_});
  }

  // Names in the test's folder that are not the inputs.
  std::vector<std::string> OtherFiles() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      const std::string name = entry.path().filename().string();
      if (name != "q.npy" && name != "d.npy") names.push_back(name);
    }
    return names;
  }

  fs::path folder_;
  JobSpec spec_;
  FaultyEngine engine_;
  FlagProgress progress_;
};

TEST_F(RunJobTest, WritesTheResultAndItsMetadata) {
  spec_.batch_size = 2;
  const absl::StatusOr<JobResult> result = Run();
  ASSERT_TRUE(result.ok()) << result.status();
  const absl::StatusOr<ResultFile> file = ReadResult(spec_.output_path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(file->indices, ElementsAre(2, 0, 2, 1, 2, 1));
  EXPECT_THAT(file->scores, ElementsAre(7, 5, 7, 6, 14, 6));
  EXPECT_EQ(file->metadata.k, 2);
  EXPECT_EQ(file->metadata.num_queries, 3);
  EXPECT_EQ(file->metadata.queries_path, spec_.queries_path);
  EXPECT_EQ(file->metadata.docs_path, spec_.docs_path);
  EXPECT_EQ(file->metadata.batch_size, 2);
  EXPECT_EQ(file->metadata.dtype, "float32");
  EXPECT_EQ(file->metadata.device, "cpu");
  EXPECT_EQ(file->metadata.metric, "ip");
  EXPECT_EQ(file->metadata.tiny_knn_version, "0.1.0");
  EXPECT_THAT(OtherFiles(), ElementsAre("out.pkl"));
}

TEST_F(RunJobTest, BatchSizeIsRecordedAs512WhenNoneWasAsked) {
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(ReadResult(spec_.output_path)->metadata.batch_size, 512);
}

TEST_F(RunJobTest, DefaultsAreKOfAllDocsAndANameFromBothStems) {
  spec_.k.reset();
  spec_.output_path.clear();
  absl::StatusOr<PreparedJob> job = PrepareJob(spec_);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->params.k, 4);
  EXPECT_TRUE(job->k_was_reduced);
  EXPECT_EQ(job->output_path, "top4_q_x_d.pkl");
}

TEST_F(RunJobTest, DefaultKWithExcludeSelfIsOneLess) {
  spec_.k.reset();
  spec_.exclude_self = true;
  const absl::StatusOr<PreparedJob> job = PrepareJob(spec_);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->params.k, 3);
}

TEST_F(RunJobTest, AnExplicitKIsNotCalledReduced) {
  const absl::StatusOr<PreparedJob> job = PrepareJob(spec_);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_FALSE(job->k_was_reduced);
}

TEST_F(RunJobTest, KAboveDIsRefused) {
  spec_.k = 5;
  const absl::StatusOr<PreparedJob> job = PrepareJob(spec_);
  EXPECT_TRUE(absl::IsInvalidArgument(job.status()));
  EXPECT_THAT(std::string(job.status().message()), HasSubstr("k=5 exceeds the number of docs D=4"));
}

TEST_F(RunJobTest, NoDocsIsRefusedWithoutK) {
  spec_.k.reset();
  spec_.docs_path = WriteNpy("d.npy", 0, {});
  const absl::StatusOr<PreparedJob> job = PrepareJob(spec_);
  EXPECT_TRUE(absl::IsInvalidArgument(job.status()));
  EXPECT_THAT(std::string(job.status().message()), HasSubstr("d.npy: has 0 rows"));
}

TEST_F(RunJobTest, AnInputAsOutputIsRefusedUnderAnyName) {
  const fs::path link = folder_ / "link.pkl";
  fs::create_symlink(spec_.docs_path, link);
  for (const std::string& output :
       {spec_.queries_path, spec_.docs_path, link.string(), (folder_ / "." / "q.npy").string()}) {
    spec_.output_path = output;
    const absl::Status status = Run().status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << output << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("would overwrite the input"));
  }
}

TEST_F(RunJobTest, BadSpecValuesAreRefused) {
  for (int broken = 0; broken < 4; ++broken) {
    JobSpec spec = spec_;
    if (broken == 0) spec.batch_size = 0;
    if (broken == 1) spec.threads = -1;
    if (broken == 2) spec.memory_limit_bytes = -1;
    if (broken == 3) spec.verify_queries = -1;
    EXPECT_TRUE(absl::IsInvalidArgument(PrepareJob(spec).status())) << broken;
  }
}

TEST_F(RunJobTest, AMissingOutputFolderIsFoundBeforeTheSearch) {
  spec_.output_path = (folder_ / "no" / "out.pkl").string();
  bool searched = false;
  engine_.after_batch = [&](const TopKView&) {
    searched = true;
    return absl::OkStatus();
  };
  EXPECT_TRUE(absl::IsNotFound(Run().status()));
  EXPECT_FALSE(searched);
}

TEST_F(RunJobTest, AnErrorOfTheEngineLeavesNothing) {
  engine_.after_batch = [](const TopKView&) { return absl::ResourceExhaustedError("no memory"); };
  EXPECT_TRUE(absl::IsResourceExhausted(Run().status()));
  EXPECT_THAT(OtherFiles(), IsEmpty());
}

TEST_F(RunJobTest, CancelledAfterTheLastBatchLeavesNothing) {
  engine_.after_batch = [&](const TopKView&) {
    progress_.cancel = true;
    return absl::OkStatus();
  };
  EXPECT_TRUE(absl::IsCancelled(Run().status()));
  EXPECT_THAT(OtherFiles(), IsEmpty());
}

TEST_F(RunJobTest, AnInputTruncatedDuringTheSearchLeavesNothing) {
  engine_.after_batch = [&](const TopKView&) {
    fs::resize_file(spec_.docs_path, 130);
    return absl::OkStatus();
  };
  const absl::Status status = Run().status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("d.npy"));
  EXPECT_THAT(OtherFiles(), IsEmpty());
}

TEST_F(RunJobTest, VerifyCountsQueriesUpToAllOfThem) {
  spec_.verify_queries = 2;
  EXPECT_EQ(Run()->verified_queries, 2);
  spec_.verify_queries = 100;
  EXPECT_EQ(Run()->verified_queries, 3);
  spec_.verify_queries = 0;
  EXPECT_EQ(Run()->verified_queries, 0);
}

TEST_F(RunJobTest, VerifyFindsAScoreThatIsOneUlpOffAndNothingIsWritten) {
  spec_.verify_queries = 3;
  engine_.after_batch = [](const TopKView& out) {
    auto* scores = static_cast<float*>(out.scores);
    scores[5] = std::nextafter(scores[5], 0.0f);
    return absl::OkStatus();
  };
  const absl::Status status = Run().status();
  EXPECT_TRUE(absl::IsInternal(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 of 3 queries are wrong"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("query 2"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 2"));
  EXPECT_THAT(OtherFiles(), IsEmpty());
}

TEST_F(RunJobTest, VerifyFindsNegativeZeroAndAWrongIndex) {
  spec_.verify_queries = 3;
  spec_.k = 4;
  engine_.after_batch = [](const TopKView& out) {
    auto* scores = static_cast<float*>(out.scores);
    EXPECT_EQ(scores[3], 0.0f);
    scores[3] = -0.0f;
    return absl::OkStatus();
  };
  EXPECT_TRUE(absl::IsInternal(Run().status()));
  engine_.after_batch = [](const TopKView& out) {
    out.indices[0] ^= 1;
    return absl::OkStatus();
  };
  EXPECT_TRUE(absl::IsInternal(Run().status()));
}

TEST_F(RunJobTest, RelativePathsStartAtTheWorkingFolder) {
  spec_.working_folder = folder_.string();
  spec_.queries_path = "q.npy";
  spec_.docs_path = "./d.npy";
  spec_.output_path = "sub/out.pkl";
  fs::create_directory(folder_ / "sub");
  absl::StatusOr<PreparedJob> job = PrepareJob(spec_);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->output_path, (folder_ / "sub/out.pkl").string());
  const absl::StatusOr<JobResult> result = RunJob(spec_, *job, engine_, {});
  ASSERT_TRUE(result.ok()) << result.status();
  const absl::StatusOr<ResultFile> file = ReadResult(job->output_path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->metadata.queries_path, "q.npy") << "as typed";
  EXPECT_EQ(file->metadata.docs_path, "./d.npy");

  spec_.output_path.clear();
  job = PrepareJob(spec_);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->output_path, (folder_ / "top2_q_x_d.pkl").string());
}

TEST_F(RunJobTest, AbsolutePathsAreNotMoved) {
  spec_.working_folder = "/nowhere";
  const absl::StatusOr<JobResult> result = Run();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(OtherFiles(), ElementsAre("out.pkl"));
}

TEST_F(RunJobTest, MessagesNameInputsAsTyped) {
  spec_.working_folder = folder_.string();
  spec_.queries_path = "q.npy";
  spec_.docs_path = "none.npy";
  EXPECT_EQ(std::string(PrepareJob(spec_).status().message()),
            "none.npy: cannot open, expected an .npy file: No such file or directory");
  spec_.docs_path = "d.npy";
  spec_.k = 5;
  EXPECT_THAT(std::string(PrepareJob(spec_).status().message()),
              testing::EndsWith("the number of docs D=4 in d.npy"));
  spec_.k = 2;
  spec_.output_path = "d.npy";
  EXPECT_THAT(std::string(PrepareJob(spec_).status().message()),
              testing::EndsWith("d.npy: the output would overwrite the input d.npy; choose another "
                                "--output-path"));
  spec_.output_path = "out.pkl";
  engine_.after_batch = [&](const TopKView&) {
    fs::resize_file(folder_ / "d.npy", 130);
    return absl::OkStatus();
  };
  EXPECT_THAT(std::string(Run().status().message()), testing::StartsWith("d.npy: "));
}

TEST_F(RunJobTest, PathsInsideOfOtherPathsAreLeftAlone) {
  spec_.working_folder = "/";
  spec_.queries_path = "a";
  spec_.docs_path = "b";
  EXPECT_EQ(std::string(WithPathsAsTyped(spec_, absl::InternalError("/a: '/b' /x/a /a")).message()),
            "a: 'b' /x/a a");
  spec_.working_folder.clear();
  EXPECT_EQ(std::string(WithPathsAsTyped(spec_, absl::InternalError("/a")).message()), "/a");
}

TEST_F(RunJobTest, TheTagNamesTheTemporaryFile) {
  std::vector<std::string> during;
  engine_.after_batch = [&](const TopKView&) {
    during = OtherFiles();
    return absl::OkStatus();
  };
  absl::StatusOr<PreparedJob> job = PrepareJob(spec_);
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_TRUE(RunJob(spec_, *job, engine_, {.temporary_tag = "job7-1"}).ok());
  EXPECT_THAT(during, ElementsAre(".out.pkl.job7-1.tmp"));
  EXPECT_THAT(OtherFiles(), ElementsAre("out.pkl"));
}

// Remembers which warm docs reached the search.
class WarmEngine : public FaultyEngine {
 public:
  class Docs : public WarmDocs {
   public:
    bool filled() const override { return searches > 0; }
    int64_t bytes() const override { return 1; }
    int searches = 0;
  };

 protected:
  absl::Status StartWarmSearch(WarmDocs& warm_docs, const RowSource&, const SearchParams&,
                               const SearchPlan&) override {
    ++dynamic_cast<Docs&>(warm_docs).searches;
    return absl::OkStatus();
  }
};

TEST_F(RunJobTest, WarmDocsReachTheEngine) {
  WarmEngine engine;
  WarmEngine::Docs docs;
  absl::StatusOr<PreparedJob> job = PrepareJob(spec_);
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_TRUE(RunJob(spec_, *job, engine, {.warm_docs = &docs}).ok());
  EXPECT_EQ(docs.searches, 1);
  ASSERT_TRUE(RunJob(spec_, *job, engine, {}).ok());
  EXPECT_EQ(docs.searches, 1);
}

TEST(SampleDistinct, IsAscendingDistinctInRangeAndRepeatable) {
  const std::vector<int64_t> sample = SampleDistinct(1000, 50, 7);
  ASSERT_EQ(sample.size(), 50u);
  for (size_t i = 0; i < sample.size(); ++i) {
    EXPECT_GE(sample[i], 0);
    EXPECT_LT(sample[i], 1000);
    if (i > 0) {
      EXPECT_LT(sample[i - 1], sample[i]);
    }
  }
  EXPECT_EQ(sample, SampleDistinct(1000, 50, 7));
  EXPECT_NE(sample, SampleDistinct(1000, 50, 8));
}

TEST(SampleDistinct, AllWhenAsManyOrMoreAreAsked) {
  EXPECT_THAT(SampleDistinct(3, 3, 1), ElementsAre(0, 1, 2));
  EXPECT_THAT(SampleDistinct(3, 9, 1), ElementsAre(0, 1, 2));
  EXPECT_THAT(SampleDistinct(0, 9, 1), IsEmpty());
  EXPECT_THAT(SampleDistinct(3, 0, 1), IsEmpty());
}

}  // namespace
}  // namespace tiny_knn
