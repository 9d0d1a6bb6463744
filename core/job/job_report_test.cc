#include "core/job/job_report.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/cpu/cpu_engine.h"
#include "core/io/row_source.h"
#include "core/matrix/matrix_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class JobReportTest : public testing::Test {
 protected:
  JobReportTest() {
    spec_.queries_path = std::string("q.npy");
    spec_.docs_path = std::string("d.npy");
    job_.queries = MakeMemoryRowSource("/w/q.npy", {values_.data(), DType::kFloat32, 1, 2});
    job_.docs = MakeMemoryRowSource("/w/d.npy", {values_.data(), DType::kFloat32, 2, 2});
    job_.params.k = 2;
    job_.shape.num_queries = 1;
    job_.shape.num_docs = 2;
    job_.shape.dim = 2;
    job_.shape.k = 2;
    job_.output_path = "/w/a\"\xFF.pkl";
  }

  const std::vector<float> values_ = {1, 2, 3, 4};
  JobSpec spec_;
  PreparedJob job_;
  JobResult result_;

  std::vector<std::string> Notes() const {
    return JobNotes(spec_, job_, MakeJobReport(job_, "cpu", result_));
  }
};

TEST_F(JobReportTest, PlanNamesTheFilesAsTyped) {
  const auto planned = PlanLines(spec_, job_, *MakeCpuEngine());
  ASSERT_TRUE(planned.ok()) << planned.status();
  const std::vector<std::string>& lines = *planned;
  ASSERT_GT(lines.size(), 6u);
  EXPECT_EQ(lines[0], "queries       q.npy [1, 2] float32");
  EXPECT_EQ(lines[1], "docs          d.npy [2, 2] float32");
  EXPECT_EQ(lines[2], "output        " + job_.output_path);
  EXPECT_EQ(lines[3], "device        cpu");
  EXPECT_EQ(lines[4],
            "search        1 queries x 2 docs x 2 dims, k=2, metric ip, computed in "
            "float32");
  for (const std::string& line : lines) EXPECT_EQ(line.find('\n'), std::string::npos);
}

TEST_F(JobReportTest, NothingNoticedIsNoNote) { EXPECT_THAT(Notes(), IsEmpty()); }

TEST_F(JobReportTest, EverythingNoticedIsANote) {
  job_.k_was_reduced = true;
  spec_.compute_dtype = DType::kFloat16;
  result_.report.nonfinite_query_rows = 1;
  result_.report.nonfinite_doc_rows = 2;
  result_.report.infs_made_in_queries = 1;
  result_.report.infs_made_in_docs = 3;
  result_.report.queries_with_tie_at_k = 1;
  result_.verified_queries = 1;
  EXPECT_THAT(Notes(),
              ElementsAre("k=2: fewer docs than the default k=2000; --k sets another",
                          "q.npy: 1 row with NaN or infinity (NaN scores rank last)",
                          "q.npy: 1 value was too large for float16 and became infinite",
                          "d.npy: 2 rows with NaN or infinity (NaN scores rank last)",
                          "d.npy: 3 values were too large for float16 and became infinite",
                          "1 query has a tie across rank 2: of equal scores the lower doc index "
                          "is kept",
                          "verified 1 of 1 query (seed 1): identical to exact arithmetic"));
}

TEST_F(JobReportTest, ReportIsAJsonObjectWhateverTheNames) {
  result_.search_seconds = 0.25;
  result_.report.queries_with_tie_at_k = 7;
  const nlohmann::json json =
      nlohmann::json::parse(JobReportToJson(MakeJobReport(job_, "cpu", result_)));
  EXPECT_EQ(json.size(), 17u);
  EXPECT_EQ(json["output_path"], "/w/a\"\xEF\xBF\xBD.pkl");
  EXPECT_EQ(json["docs"], 2);
  EXPECT_EQ(json["device"], "cpu");
  EXPECT_EQ(json["search_seconds"], 0.25);
  EXPECT_EQ(json["queries_with_tie_at_k"], 7);
}

TEST_F(JobReportTest, WhatWasWrittenIsRead) {
  const JobReport written = {.output_path = "/w/\u00e4 b.pkl",
                             .num_queries = 1,
                             .num_docs = 2,
                             .dim = 3,
                             .k = 4,
                             .device = "cuda:0 (NVIDIA)",
                             .search_seconds = 0.5,
                             .write_seconds = 0.25,
                             .search = {.nonfinite_query_rows = 5,
                                        .nonfinite_doc_rows = 6,
                                        .infs_made_in_queries = 7,
                                        .infs_made_in_docs = 8,
                                        .queries_with_tie_at_k = 9,
                                        .rescored_pairs = 10,
                                        .refined_pairs = 12,
                                        .repeated_queries = 13},
                             .verified_queries = 11};
  const absl::StatusOr<JobReport> read = JobReportFromJson(JobReportToJson(written));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->output_path, written.output_path);
  EXPECT_EQ(read->num_queries, 1);
  EXPECT_EQ(read->num_docs, 2);
  EXPECT_EQ(read->dim, 3);
  EXPECT_EQ(read->k, 4);
  EXPECT_EQ(read->device, written.device);
  EXPECT_EQ(read->search_seconds, 0.5);
  EXPECT_EQ(read->write_seconds, 0.25);
  EXPECT_EQ(read->search.nonfinite_query_rows, 5);
  EXPECT_EQ(read->search.nonfinite_doc_rows, 6);
  EXPECT_EQ(read->search.infs_made_in_queries, 7);
  EXPECT_EQ(read->search.infs_made_in_docs, 8);
  EXPECT_EQ(read->search.queries_with_tie_at_k, 9);
  EXPECT_EQ(read->search.rescored_pairs, 10);
  EXPECT_EQ(read->search.refined_pairs, 12);
  EXPECT_EQ(read->search.repeated_queries, 13);
  EXPECT_EQ(read->verified_queries, 11);
}

TEST_F(JobReportTest, WhatIsNoReportIsRefused) {
  for (const char* text : {"", "[]", "3", "{\"k\":", "\xff"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(JobReportFromJson(text).status())) << text;
  }
  nlohmann::json json = nlohmann::json::parse(JobReportToJson({}));
  json["added_later"] = {1, 2};
  EXPECT_TRUE(JobReportFromJson(json.dump()).ok());
  for (const char* name : {"rescored_pairs", "search_seconds", "device"}) {
    nlohmann::json lacking = json;
    lacking.erase(name);
    EXPECT_THAT(std::string(JobReportFromJson(lacking.dump()).status().message()),
                HasSubstr(std::string(name)));
    nlohmann::json wrong = json;
    wrong[name] = true;
    EXPECT_THAT(std::string(JobReportFromJson(wrong.dump()).status().message()),
                HasSubstr(std::string(name)));
  }
}

}  // namespace
}  // namespace tiny_knn
