// Parts of any split, searched and merged, are the bytes of the search that was not split.
#include "core/job/merge_results.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/cpu/cpu_engine.h"
#include "core/io/result_file.h"
#include "core/job/docs_range.h"
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
using testing::HasSubstr;

constexpr int64_t kDim = 3;

class MergeResultsTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    // Small integers: every score is tied with many others. And rows that are not finite.
    WriteQueries(30, 1);
    WriteDocs(130, 2);
    spec_.queries_path = Path("q.npy");
    spec_.docs_path = Path("d.npy");
    spec_.k = 9;
    spec_.threads = 1;
    spec_.memory_limit_bytes = 256 << 20;
  }

  static std::vector<float> Values(int64_t rows, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<float> values(static_cast<size_t>(rows * kDim));
    for (float& value : values) value = static_cast<float>(static_cast<int>(random() % 5) - 2);
    for (int64_t i = 3; i < rows; i += 17) {
      values[static_cast<size_t>(i * kDim)] = i % 2 == 0 ? std::nanf("") : HUGE_VALF;
    }
    return values;
  }
  void WriteQueries(int64_t rows, unsigned seed) {
    WriteNpyForTest(Path("q.npy"), rows, Values(rows, seed));
  }
  void WriteDocs(int64_t rows, unsigned seed) {
    WriteNpyForTest(Path("d.npy"), rows, Values(rows, seed));
  }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  // Writes a result and returns its path.
  std::string Run(JobSpec spec, const std::string& name) {
    spec.output_path = Path(name);
    absl::StatusOr<PreparedJob> job = PrepareJob(spec);
    EXPECT_TRUE(job.ok()) << job.status();
    if (!job.ok()) return "";
    const absl::StatusOr<JobResult> result = RunJob(spec, *job, *engine_, {});
    EXPECT_TRUE(result.ok()) << result.status();
    return spec.output_path;
  }
  std::string RunPart(JobSpec spec, int64_t begin, int64_t end, std::string_view suffix = ".pkl") {
    spec.docs_range = DocsRange{begin, end};
    return Run(spec, fmt::format("part_{}_{}{}", begin, end, suffix));
  }

  // Ends of `count` uneven ranges of `docs`, in ascending order.
  static std::vector<int64_t> Split(int64_t docs, size_t count) {
    std::vector<int64_t> inner(static_cast<size_t>(docs - 1));
    for (size_t i = 0; i < inner.size(); ++i) inner[i] = static_cast<int64_t>(i) + 1;
    std::shuffle(inner.begin(), inner.end(), std::mt19937(static_cast<unsigned>(count)));
    inner.resize(count - 1);
    inner.push_back(docs);
    std::sort(inner.begin(), inner.end());
    return inner;
  }

  // The message of a merge that is refused, leaving nothing.
  std::string Refusal(const std::vector<std::string>& parts) {
    const auto merged = MergeResults(parts, Path("refused.pkl"), {});
    EXPECT_TRUE(absl::IsInvalidArgument(merged.status())) << merged.status();
    for (const auto& entry : fs::directory_iterator(folder_)) {
      EXPECT_THAT(entry.path().filename().string(), testing::Not(HasSubstr("refused")));
    }
    return std::string(merged.status().message());
  }

  fs::path folder_;
  JobSpec spec_;
  std::unique_ptr<Engine> engine_ = MakeCpuEngine();
};

TEST_F(MergeResultsTest, AnySplitIsTheSameBytes) {
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
      for (const bool exclude_self : {false, true}) {
        spec_.metric = metric;
        spec_.compute_dtype = dtype;
        spec_.exclude_self = exclude_self;
        for (const char* const suffix : {".pkl", ".npz"}) {
          const std::string whole = ReadAllForTest(Run(spec_, std::string("whole") + suffix));
          for (const size_t count : {1, 2, 7, 100}) {
            std::vector<std::string> parts;
            int64_t begin = 0;
            for (const int64_t end : Split(130, count)) {
              parts.push_back(RunPart(spec_, begin, end, suffix));
              begin = end;
            }
            std::shuffle(parts.begin(), parts.end(), std::mt19937(3));
            const std::string out = Path(std::string("merged") + suffix);
            const auto merged = MergeResults(parts, out, {});
            ASSERT_TRUE(merged.ok()) << merged.status();
            EXPECT_EQ(merged->num_parts, static_cast<int64_t>(count));
            EXPECT_EQ(merged->num_docs, 130);
            ASSERT_EQ(ReadAllForTest(out), whole) << MetricName(metric) << " " << DTypeName(dtype)
                                                  << " " << exclude_self << suffix << " " << count;
          }
        }
      }
    }
  }
}

TEST_F(MergeResultsTest, PartsOfFewerDocsThanKHoldWhatTheyHave) {
  spec_.exclude_self = true;
  spec_.verify_queries = 30;
  const auto part = ReadResult(RunPart(spec_, 4, 8));
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_EQ(part->metadata.k, 4);
  EXPECT_EQ(part->metadata.part.k_wanted, 9);
  EXPECT_EQ(part->metadata.part.docs_begin, 4);
  EXPECT_EQ(part->metadata.part.docs_end, 8);
  EXPECT_EQ(part->metadata.part.num_docs, 130);
  EXPECT_TRUE(part->metadata.exclude_self);
  for (int64_t query = 0; query < 30; ++query) {
    const auto row = part->indices.begin() + query * 4;
    std::vector<int64_t> docs(row, row + 4);
    const bool own = query >= 4 && query < 8;
    EXPECT_EQ(docs[3] == -1, own);
    EXPECT_EQ(std::isnan(part->scores[static_cast<size_t>(query * 4 + 3)]), own || query % 17 == 3)
        << query;
    EXPECT_EQ(std::count(docs.begin(), docs.end(), query), 0);
    std::sort(docs.begin(), docs.end());
    EXPECT_EQ(std::unique(docs.begin(), docs.end()), docs.end());
  }
}

TEST_F(MergeResultsTest, PartsCanBeMergedStepByStepInBothFormats) {
  const std::string whole = ReadAllForTest(Run(spec_, "whole.pkl"));
  const std::vector<std::string> first = {RunPart(spec_, 0, 5), RunPart(spec_, 5, 50, ".npz")};
  EXPECT_THAT(Refusal(first), HasSubstr("docs 50:130 are missing, of 130; --partial"));
  ASSERT_TRUE(MergeResults(first, Path("half.npz"), {.partial = true}).ok());
  const auto half = ReadResult(Path("half.npz"));
  ASSERT_TRUE(half.ok());
  EXPECT_EQ(half->metadata.part.docs_end, 50);
  EXPECT_EQ(half->metadata.k, 9);
  // The same as the part that was not split.
  EXPECT_EQ(ReadAllForTest(Path("half.npz")), ReadAllForTest(RunPart(spec_, 0, 50, ".npz")));
  ASSERT_TRUE(
      MergeResults(std::vector{RunPart(spec_, 50, 130), Path("half.npz")}, Path("all.pkl"), {})
          .ok());
  EXPECT_EQ(ReadAllForTest(Path("all.pkl")), whole);
}

TEST_F(MergeResultsTest, PartsThatDoNotBelongTogetherAreRefusedByName) {
  const std::string a = RunPart(spec_, 0, 60);
  EXPECT_THAT(Refusal({a, RunPart(spec_, 61, 130)}),
              AllOf(HasSubstr("docs 60:61 are missing, between "), HasSubstr("part_61_130.pkl")));
  EXPECT_THAT(Refusal({a, RunPart(spec_, 59, 130)}),
              AllOf(HasSubstr("part_59_130.pkl: its docs 59:130 overlap the docs 0:60 of "),
                    HasSubstr("part_0_60.pkl")));
  EXPECT_THAT(Refusal({a, a}), HasSubstr("overlap"));
  EXPECT_THAT(Refusal({RunPart(spec_, 20, 130)}), HasSubstr("docs 0:20 are missing"));
  EXPECT_THAT(Refusal({RunPart(spec_, 20, 60)}), HasSubstr("docs 0:20 and 60:130 are missing"));
  EXPECT_THAT(Refusal({Run(spec_, "whole.pkl")}), HasSubstr("whole.pkl: is no part"));
  EXPECT_THAT(Refusal({}), HasSubstr("no parts"));

  const auto refused_with = [&](const std::function<void(JobSpec&)>& change) {
    JobSpec other = spec_;
    change(other);
    other.docs_range = DocsRange{60, 130};
    const std::string message = Refusal({a, Run(other, "b.pkl")});
    EXPECT_THAT(message, AllOf(HasSubstr("b.pkl: does not belong with "), HasSubstr(a)));
    return message;
  };
  EXPECT_THAT(refused_with([](JobSpec& s) { s.k = 8; }), HasSubstr("k 9 there, 8 here"));
  EXPECT_THAT(refused_with([](JobSpec& s) { s.metric = Metric::kL2; }),
              HasSubstr("metric ip there, l2 here"));
  EXPECT_THAT(refused_with([](JobSpec& s) { s.compute_dtype = DType::kFloat16; }),
              HasSubstr("dtype float32 there, float16 here"));
  EXPECT_THAT(refused_with([](JobSpec& s) { s.exclude_self = true; }),
              HasSubstr("--exclude-self no there, yes here"));
  WriteQueries(30, 7);
  EXPECT_THAT(refused_with([](JobSpec&) {}), HasSubstr("queries 30x3 float32 crc32"));
  WriteQueries(30, 1);
  WriteDocs(131, 2);
  EXPECT_THAT(refused_with([](JobSpec&) {}), HasSubstr("number of docs 130 there, 131 here"));
  WriteDocs(130, 3);
  EXPECT_THAT(refused_with([](JobSpec&) {}), HasSubstr("docs 130x3 float32 sample crc32"));
}

TEST_F(MergeResultsTest, QueriesAreKnownByTheirRowsNotByTheirName) {
  const std::string whole = ReadAllForTest(Run(spec_, "whole.pkl"));
  const std::string a = RunPart(spec_, 0, 60);
  fs::copy_file(Path("q.npy"), Path("other name.npy"));
  JobSpec other = spec_;
  other.queries_path = Path("other name.npy");
  ASSERT_TRUE(MergeResults(std::vector{RunPart(other, 60, 130), a}, Path("m.pkl"), {}).ok());
  EXPECT_EQ(ReadAllForTest(Path("m.pkl")), whole) << "paths are those of the first docs' part";
}

TEST_F(MergeResultsTest, RowsThatNoSearchWritesAreRefused) {
  spec_.exclude_self = true;
  const std::string b = RunPart(spec_, 3, 130);
  const std::string sound = RunPart(spec_, 0, 3);
  const auto part = ReadResult(sound);
  ASSERT_TRUE(part.ok());
  ASSERT_TRUE(MergeResults(std::vector{sound, b}, Path("m.pkl"), {}).ok());
  // Row 5 has all three docs, row 1 the other two.
  const auto damaged = [&](size_t at, int64_t index, float score) {
    std::vector<int64_t> indices = part->indices;
    std::vector<float> scores(part->scores.begin(), part->scores.end());
    indices[at] = index;
    scores[at] = score;
    auto writer = CreateResultWriter(Path("damaged.pkl"), part->metadata);
    EXPECT_TRUE((*writer)->WriteRows(0, 30, indices.data(), scores.data()).ok());
    EXPECT_TRUE((*writer)->Commit().ok());
    return Refusal({b, Path("damaged.pkl")});
  };
  const float kHigh = std::numeric_limits<float>::max();
  EXPECT_THAT(damaged(15, 3, kHigh), HasSubstr("damaged.pkl: is damaged: the row of query 5"));
  EXPECT_THAT(damaged(15, -1, kHigh), HasSubstr("query 5"));
  EXPECT_THAT(damaged(17, 2, kHigh), HasSubstr("query 5")) << "not in order";
  EXPECT_THAT(damaged(16, part->indices[15], static_cast<float>(part->scores[15])),
              HasSubstr("query 5"))
      << "twice";
  EXPECT_THAT(damaged(3, 1, kHigh), HasSubstr("query 1")) << "its own";
  EXPECT_THAT(damaged(5, 1, -kHigh), HasSubstr("query 1")) << "a doc where there is none";
}

TEST_F(MergeResultsTest, APartIsNotOverwritten) {
  const std::string a = RunPart(spec_, 0, 130);
  const std::string before = ReadAllForTest(a);
  const auto merged = MergeResults(std::vector{a}, a, {});
  EXPECT_TRUE(absl::IsInvalidArgument(merged.status()));
  EXPECT_THAT(std::string(merged.status().message()), HasSubstr("would overwrite the part"));
  EXPECT_EQ(ReadAllForTest(a), before);
}

TEST_F(MergeResultsTest, DocsSearchedInThemselvesCanBeSplitToo) {
  spec_.queries_path = spec_.docs_path;
  spec_.exclude_self = true;
  spec_.k = 129;
  const std::string whole = ReadAllForTest(Run(spec_, "whole.pkl"));
  ASSERT_TRUE(MergeResults(std::vector{RunPart(spec_, 0, 1), RunPart(spec_, 1, 129),
                                       RunPart(spec_, 129, 130)},
                           Path("m.pkl"), {})
                  .ok());
  EXPECT_EQ(ReadAllForTest(Path("m.pkl")), whole);
}

TEST(DocsRangeTest, IsReadAsItIsWritten) {
  for (const char* const text : {"0:1", "5:", "0:", "7:9223372036854775807"}) {
    const auto range = ParseDocsRange(text);
    ASSERT_TRUE(range.ok()) << text;
    EXPECT_EQ(DocsRangeText(*range), text);
  }
  EXPECT_EQ(*ParseDocsRange(":4"), (DocsRange{0, 4}));
  for (const char* const text : {"", ":x", "5", "a:b", "-1:4", "4:-1", "4:4", "5:4", ":0", "1:2:3",
                                 " 1:2", "1 :2", "+1:2", "9223372036854775808:", "1:0x2"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseDocsRange(text).status())) << text;
  }
  EXPECT_EQ(*ResolveDocsRange({3, std::nullopt}, 8, "d"), (DocsRange{3, 8}));
  EXPECT_FALSE(ResolveDocsRange({3, 9}, 8, "d").ok()) << "never cut";
  EXPECT_FALSE(ResolveDocsRange({8, std::nullopt}, 8, "d").ok());
  EXPECT_FALSE(ResolveDocsRange({0, std::nullopt}, 0, "d").ok());
}

}  // namespace
}  // namespace tiny_knn
