// `tiny-knn show`: a result as a person looks at it.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/flags.h"
#include "cli/labels.h"
#include "cli/text.h"
#include "cli/values.h"
#include "cli/verbs.h"
#include "core/io/result_file.h"
#include "core/job/one_line.h"
#include "core/job/run_job.h"
#include "fmt/format.h"

namespace tiny_knn {

const std::string_view kShowHelp =
    R"(tiny-knn show: look at a result as a table

usage: tiny-knn show RESULT [flags]

RESULT is of run (.pkl, .npz) or of the original tool. For each query: rank,
score, doc index and label of its best docs, and how its k scores are spread
from the least to the greatest.

      --labels FILE        text, one label a line: line i names doc i
      --query-labels FILE  the same for queries
      --queries A:B        which queries (default 0:5); also A: or one number
      --top N              docs per query (default 10)
  -h, --help               this page

example: tiny-knn show top10_queries_x_docs.pkl --labels words.txt --queries 0:3
)";

namespace {

constexpr int kMinLabelWidth = 10;
constexpr int kFewestBins = 10;
constexpr int kMostBins = 40;

struct ShowFlags {
  std::string result;
  std::optional<std::string> labels, query_labels, queries, top;
};

void Declare(FlagParser& parser, ShowFlags& flags) {
  parser.Value("--labels", &flags.labels);
  parser.Value("--query-labels", &flags.query_labels);
  parser.Value("--queries", &flags.queries);
  parser.Value("--top", &flags.top);
  parser.Positional("RESULT", &flags.result);
}

bool Utf8Locale() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    const std::string_view locale = value;
    return locale.find("UTF-8") != std::string_view::npos ||
           locale.find("utf8") != std::string_view::npos;
  }
  return false;
}

// Where the labels go, and how wide they may be; 0 is without limit.
struct Layout {
  int index_width = 5;
  int label_width = 0;
  bool unicode = false;
};

using Labels = std::map<int64_t, std::string>;

std::string QueryTable(const ResultFile& result, int64_t query, int64_t top, const Labels& labels,
                       const Labels& query_labels, const Layout& layout) {
  const auto k = static_cast<size_t>(result.metadata.k);
  const size_t row = static_cast<size_t>(query) * k;
  const std::span<const double> scores = std::span(result.scores).subspan(row, k);
  const auto shown = static_cast<size_t>(top);

  std::string text = fmt::format("\nquery {}", query);
  if (const auto name = query_labels.find(query); name != query_labels.end()) {
    text += fmt::format("  {}", name->second);
  }
  text += '\n';
  const std::vector<std::string> score_texts = FormatScores(scores.first(shown));
  int score_width = 5;
  for (const std::string& score : score_texts) {
    score_width = std::max(score_width, static_cast<int>(score.size()));
  }
  text += fmt::format("  rank  {:>{}}  {:>{}}{}\n", "score", score_width, "index",
                      layout.index_width, labels.empty() ? "" : "  label");
  for (size_t rank = 0; rank < shown; ++rank) {
    const int64_t index = result.indices[row + rank];
    text += fmt::format("  {:>4}  {:>{}}  {:>{}}", rank + 1, score_texts[rank], score_width, index,
                        layout.index_width);
    if (const auto label = labels.find(index); label != labels.end()) {
      const int room = layout.label_width - (8 + score_width + 2 + layout.index_width + 2);
      text += "  " + (layout.label_width == 0
                          ? label->second
                          : TruncateToWidth(label->second, std::max(room, kMinLabelWidth)));
    }
    text += '\n';
  }
  // Two per square root of k: enough scores in each for a shape to show.
  const int bins =
      std::clamp(static_cast<int>(2 * std::sqrt(static_cast<double>(k))), kFewestBins, kMostBins);
  const std::string histogram = Histogram(scores, bins, layout.unicode);
  if (!histogram.empty()) {
    double least = scores[0], greatest = scores[0];
    bool first = true;
    for (double score : scores) {
      if (!std::isfinite(score)) continue;
      least = first ? score : std::min(least, score);
      greatest = first ? score : std::max(greatest, score);
      first = false;
    }
    text += fmt::format("  all {} scores: {:.4g} |{}| {:.4g}\n", k, least, histogram, greatest);
  }
  return text;
}

// What of a result is looked at. Docs and queries are listed only where their labels are wanted.
struct Shown {
  std::set<int64_t> docs, queries;
  int64_t greatest_index = 0;
};

absl::StatusOr<Shown> CheckTop(const ResultFile& result, const IndexRange& queries, int64_t top,
                               const ShowFlags& flags) {
  Shown shown;
  if (top == 0) return shown;  // such a result may claim any number of queries
  for (int64_t query = queries.begin; query < queries.end; ++query) {
    if (flags.query_labels) shown.queries.insert(query);
    for (int64_t rank = 0; rank < top; ++rank) {
      const int64_t index = result.indices[static_cast<size_t>(query * result.metadata.k + rank)];
      // A part has no doc there for a query that is left out of its own row.
      if (index == -1 && result.metadata.is_part()) continue;
      if (index < 0) {
        return absl::InvalidArgumentError(
            fmt::format("{}: query {} rank {} has the index {}; a doc's index is 0 or more",
                        flags.result, query, rank + 1, index));
      }
      shown.greatest_index = std::max(shown.greatest_index, index);
      if (flags.labels) shown.docs.insert(index);
    }
  }
  return shown;
}

std::string Heading(const std::string& path, const ResultMetadata& data) {
  std::string text = fmt::format("{}: {}, k={}", OneLine(path),
                                 Plural(data.num_queries, "query", "queries"), data.k);
  for (const std::string& part : {data.metric, data.dtype, data.device}) {
    if (!part.empty()) text += ", " + OneLine(part);
  }
  text += '\n';
  if (!data.queries_path.empty()) text += "queries  " + OneLine(data.queries_path) + '\n';
  if (!data.docs_path.empty()) text += "docs     " + OneLine(data.docs_path) + '\n';
  if (data.is_part()) {
    text += fmt::format("part     docs {}:{} of {}\n", data.part.docs_begin, data.part.docs_end,
                        data.part.num_docs);
  }
  return text;
}

absl::Status Show(const ShowFlags& flags, Console& console) {
  for (const auto& [flag, path] :
       {std::pair("--labels", &flags.labels), std::pair("--query-labels", &flags.query_labels)}) {
    if (*path && (*path)->empty()) {
      return absl::InvalidArgumentError(fmt::format("{} expects a file name, found ''", flag));
    }
  }
  int64_t top = 10;
  if (flags.top) {
    const absl::StatusOr<int64_t> asked = ParseCount("--top", *flags.top, 1);
    if (!asked.ok()) return asked.status();
    top = *asked;
  }
  const absl::StatusOr<ResultFile> result = ReadResult(flags.result);
  if (!result.ok()) return AsBadInput(result.status());
  const ResultMetadata& data = result->metadata;
  top = std::min(top, data.k);
  IndexRange queries{0, std::min<int64_t>(5, data.num_queries)};
  if (flags.queries && data.num_queries > 0) {
    const absl::StatusOr<IndexRange> asked =
        ParseRange("--queries", *flags.queries, data.num_queries);
    if (!asked.ok()) return asked.status();
    queries = *asked;
  }

  const absl::StatusOr<Shown> shown = CheckTop(*result, queries, top, flags);
  if (!shown.ok()) return shown.status();
  absl::StatusOr<Labels> labels = Labels();
  if (flags.labels) labels = ReadLabels(*flags.labels, shown->docs);
  if (!labels.ok()) return labels.status();
  absl::StatusOr<Labels> query_labels = Labels();
  if (flags.query_labels) query_labels = ReadLabels(*flags.query_labels, shown->queries);
  if (!query_labels.ok()) return query_labels.status();

  Layout layout;
  layout.label_width = TerminalWidth(STDOUT_FILENO);  // without limit where nobody looks
  layout.unicode = Utf8Locale();
  layout.index_width = std::max(layout.index_width,
                                static_cast<int>(fmt::format("{}", shown->greatest_index).size()));
  console.Out(Heading(flags.result, data));
  if (top == 0) {
    console.Out("\nno docs: k is 0\n");
    return absl::OkStatus();
  }
  for (int64_t query = queries.begin; query < queries.end && !console.reader_gone(); ++query) {
    console.Out(QueryTable(*result, query, top, *labels, *query_labels, layout));
  }
  if (queries.end < data.num_queries && !flags.queries) {
    console.Out(fmt::format("\n{} more; --queries A:B shows others\n",
                            Plural(data.num_queries - queries.end, "query", "queries")));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ShowVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("show", "RESULT [flags]");
  ShowFlags flags;
  Declare(parser, flags);
  absl::Status status = parser.Parse(args);
  if (!status.ok() || PrintedHelp(parser, kShowHelp, console)) return status;
  return Show(flags, console);
}

VerbFlags ShowVerbFlags() { return DeclaredFlags<ShowFlags>(Declare); }

}  // namespace tiny_knn
