// `tiny-knn eval`: how much of a true result another one has.
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/flags.h"
#include "cli/text.h"
#include "cli/values.h"
#include "cli/verbs.h"
#include "core/io/result_file.h"
#include "core/job/evaluate.h"
#include "core/job/run_job.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {

const std::string_view kEvalHelp =
    R"(tiny-knn eval: how much of a true result another one has

usage: tiny-knn eval RESULT TRUTH [flags]

Recall@k: of the k docs that TRUTH has for a query, how many RESULT has among
its first k, over all queries. Docs whose score is just that of TRUTH's rank k
are as right as the one it has there, and count. Both are results of run (.pkl,
.npz), or of the original tool; TRUTH should be one of tiny-knn's.

  -k, --k N   how many ranks count (default: as many as both have)
      --json  one JSON object
  -h, --help  this page

example: tiny-knn eval approximate.npz top10_queries_x_docs.pkl
)";

namespace {

struct EvalTexts {
  std::string result, truth;
  std::optional<std::string> k;
  bool json = false;
};

void Declare(FlagParser& parser, EvalTexts& texts) {
  parser.Value("-k,--k", &texts.k);
  parser.Switch("--json", &texts.json);
  parser.Positional("RESULT", &texts.result);
  parser.Positional("TRUTH", &texts.truth);
}

Ranking RankingOf(const ResultFile& file) {
  return {file.metadata.num_queries, file.metadata.k, file.indices, file.scores};
}

std::string JsonOf(const Evaluation& e) {
  return nlohmann::ordered_json({{"k", e.k},
                                 {"queries", e.num_queries},
                                 {"recall", e.recall()},
                                 {"found", e.found},
                                 {"found_by_tie", e.found_by_tie},
                                 {"complete_queries", e.complete_queries},
                                 {"identical_queries", e.identical_queries},
                                 {"lowest_recall", e.lowest_recall},
                                 {"lowest_query", e.lowest_query}})
             .dump() +
         "\n";
}

// A share as it is read: 1 only where nothing is missing.
std::string Share(int64_t part, int64_t all, double share) {
  const std::string text = fmt::format("{:.6f}", share);
  return part < all && text == "1.000000" ? "0.999999" : text;
}

std::string TextOf(const Evaluation& e) {
  const int64_t all = e.num_queries * e.k;
  std::string text;
  const auto line = [&](const std::string& label, const std::string& value) {
    text += fmt::format("{:<14}{}\n", label, value);
  };
  line(fmt::format("recall@{}", e.k),
       fmt::format("{} ({} of {})", Share(e.found, all, e.recall()), e.found, all));
  line("queries", fmt::format("{}: {} complete, {} with the same docs and scores in the same order",
                              e.num_queries, e.complete_queries, e.identical_queries));
  if (e.lowest_recall < 1) {
    line("lowest", fmt::format("{:.6f} of query {}", e.lowest_recall, e.lowest_query));
  }
  if (e.found_by_tie > 0) {
    line("ties", fmt::format("{} found by {} score of TRUTH's rank {}",
                             Plural(e.found_by_tie, "doc", "docs"),
                             e.found_by_tie == 1 ? "its" : "their", e.k));
  }
  return text;
}

}  // namespace

absl::Status EvalVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("eval", "RESULT TRUTH [flags]");
  EvalTexts texts;
  Declare(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok() || PrintedHelp(parser, kEvalHelp, console)) return status;
  std::optional<int64_t> k;
  if (texts.k) {
    const absl::StatusOr<int64_t> asked = ParseCount("--k", *texts.k, 1);
    if (!asked.ok()) return asked.status();
    k = *asked;
  }
  const absl::StatusOr<ResultFile> result = ReadResult(texts.result);
  if (!result.ok()) return AsBadInput(result.status());
  const absl::StatusOr<ResultFile> truth = ReadResult(texts.truth);
  if (!truth.ok()) return AsBadInput(truth.status());
  const absl::StatusOr<Evaluation> evaluation =
      Evaluate(RankingOf(*result), RankingOf(*truth),
               k.value_or(std::min(result->metadata.k, truth->metadata.k)));
  if (!evaluation.ok()) return evaluation.status();
  if (!result->metadata.metric.empty() && !truth->metadata.metric.empty() &&
      result->metadata.metric != truth->metadata.metric) {
    console.Note(fmt::format("RESULT is by {}, TRUTH by {}", result->metadata.metric,
                             truth->metadata.metric));
  }
  console.Out(texts.json ? JsonOf(*evaluation) : TextOf(*evaluation));
  return absl::OkStatus();
}

VerbFlags EvalVerbFlags() { return DeclaredFlags<EvalTexts>(Declare); }

}  // namespace tiny_knn
