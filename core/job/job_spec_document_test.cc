// docs/job_spec.md says what the code does: it describes every member, and its examples are so.
#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "core/job/job_spec.h"
#include "core/job/job_spec_json.h"
#include "core/matrix/dtype.h"
#include "core/search/search.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::ElementsAreArray;
using testing::HasSubstr;

std::vector<std::string> Lines() {
  std::ifstream page("docs/job_spec.md");
  std::vector<std::string> lines;
  for (std::string line; std::getline(page, line);) lines.push_back(line);
  return lines;
}

// The lines of the page's blocks of one language; "" is that of blocks that name none.
std::vector<std::string> Blocks(std::string_view language) {
  std::vector<std::string> inside;
  std::string fence;  // of the block that a line is in
  for (const std::string& line : Lines()) {
    if (line.starts_with("```")) {
      fence = fence.empty() ? line : "";
    } else if (fence == fmt::format("```{}", language)) {
      inside.push_back(line);
    }
  }
  return inside;
}

// The cells of the table of members, a row for each: member, type, default, range, flag.
std::vector<std::vector<std::string>> Rows() {
  std::vector<std::vector<std::string>> rows;
  for (const std::string& line : Lines()) {
    if (!line.starts_with("| `")) continue;
    std::istringstream text(line.substr(1));
    std::vector<std::string>& cells = rows.emplace_back();
    for (std::string cell; std::getline(text, cell, '|');) {
      const size_t begin = std::min(cell.find_first_not_of(' '), cell.size());
      cells.push_back(cell.substr(begin, cell.find_last_not_of(' ') + 1 - begin));
    }
  }
  return rows;
}

// The row of a member; empty cells where there is none.
std::vector<std::string> RowOf(std::string_view member) {
  for (const std::vector<std::string>& row : Rows()) {
    if (row[0] == fmt::format("`{}`", member)) return row;
  }
  ADD_FAILURE() << "docs/job_spec.md lacks the row of " << member;
  return std::vector<std::string>(5);
}

// "a, b" as the page writes texts of JSON: `"a"`, `"b"`.
std::string AsTexts(std::string_view names) {
  std::string texts = "`\"";
  while (true) {
    const size_t end = names.find(", ");
    texts += names.substr(0, end);
    if (end == std::string_view::npos) return texts + "\"`";
    texts += "\"`, `\"";
    names.remove_prefix(end + 2);
  }
}

TEST(JobSpecDocument, EveryMemberHasItsRowAndThereIsNoOther) {
  std::vector<std::string> documented, known;
  for (const std::vector<std::string>& row : Rows()) {
    ASSERT_EQ(row.size(), 5u) << row[0];
    documented.push_back(row[0]);
  }
  for (const std::string_view member : JobSpecMembers()) {
    known.push_back(fmt::format("`{}`", member));
  }
  EXPECT_THAT(documented, ElementsAreArray(known));
}

TEST(JobSpecDocument, EveryExampleIsAJobSpec) {
  const std::vector<std::string> examples = Blocks("json");
  EXPECT_FALSE(examples.empty());
  for (const std::string& example : examples) {
    EXPECT_TRUE(JobSpecFromJson(example).ok()) << example;
  }
}

TEST(JobSpecDocument, NamesAndRangesAreThoseOfTheCode) {
  const JobSpec defaults;
  const std::string ranges = AsTexts(ComputeDTypeNames());
  EXPECT_EQ(RowOf("dtype")[3], ranges);
  EXPECT_EQ(RowOf("dtype")[2], AsTexts(DTypeName(defaults.compute_dtype)));
  // All that a file may hold are those and one more.
  EXPECT_EQ(RowOf("input_dtype")[3], "those of `dtype`, and `\"bool\"`");
  EXPECT_EQ(AsTexts(FileDTypeNames()), ranges + ", `\"bool\"`");
  EXPECT_EQ(RowOf("metric")[2], AsTexts(MetricName(defaults.metric)));
  for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
    EXPECT_THAT(RowOf("metric")[3], HasSubstr(AsTexts(MetricName(metric))));
  }
  EXPECT_EQ(RowOf("device")[2], AsTexts(defaults.device));
  EXPECT_EQ(RowOf("exclude_self")[2], fmt::format("`{}`", defaults.exclude_self));
  EXPECT_EQ(RowOf("threads")[3], fmt::format("0 to {}", kMostThreads));
}

TEST(JobSpecDocument, EveryRefusalIsSaidInThoseWords) {
  const std::string files = "\"queries\":\"q.npy\",\"docs\":\"d.npy\"";
  std::vector<std::string> said;
  for (const char* member : {"\"metrik\":\"ip\"", "\"k\":\"100\"", "\"dtype\":\"float8\""}) {
    const absl::StatusOr<JobSpec> spec = JobSpecFromJson(fmt::format("{{{},{}}}", files, member));
    said.emplace_back(spec.status().message());
  }
  EXPECT_THAT(Blocks(""), ElementsAreArray(said));
}

}  // namespace
}  // namespace tiny_knn
