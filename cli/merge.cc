// `tiny-knn merge`: results of ranges of the docs into the result of all of them.
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/flags.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "cli/search_report.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "core/job/merge_results.h"
#include "core/job/run_job.h"
#include "fmt/format.h"

namespace tiny_knn {

const std::string_view kMergeHelp =
    R"(tiny-knn merge: results of ranges of the docs, as one

usage: tiny-knn merge PART... -o OUT [flags]

PARTs are results of run --docs-range (.pkl, .npz), in any order, that together
have every doc once. OUT is what one search of all docs would have written, bit
for bit. Parts of other queries, docs, k, metric or dtype are refused, and so
are docs that are missing or there twice.

  -o, --output-path P  where the result goes; .npz makes it numpy's own format
      --partial        the parts are neighbours, but others are still to come:
                       makes a larger part of them
  -q, --quiet          only errors on standard error
  -h, --help           this page

example: tiny-knn merge top100_q_x_d_*.pkl -o top100_q_x_d.pkl
)";

namespace {

struct MergeTexts {
  std::vector<std::string> parts;
  std::optional<std::string> output_path;
  bool partial = false, quiet = false;
};

void Declare(FlagParser& parser, MergeTexts& texts) {
  parser.Value("-o,--output-path", &texts.output_path);
  parser.Switch("--partial", &texts.partial);
  parser.Switch("-q,--quiet", &texts.quiet);
  parser.Positionals("PART", &texts.parts);
}

}  // namespace

absl::Status MergeVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("merge", "PART... -o OUT [flags]");
  MergeTexts texts;
  Declare(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok() || PrintedHelp(parser, kMergeHelp, console)) return status;
  if (texts.parts.empty()) {
    return absl::InvalidArgumentError(
        "merge: missing PART: give results of run --docs-range; 'tiny-knn help merge' has more");
  }
  if (!texts.output_path || texts.output_path->empty()) {
    return absl::InvalidArgumentError("merge: missing -o OUT: where the merged result goes");
  }
  console.set_quiet(texts.quiet);
  CatchInterrupts();
  ConsoleProgress progress(console, /*bar=*/false, /*json=*/false);
  const absl::StatusOr<MergeReport> report = MergeResults(
      texts.parts, *texts.output_path, {.partial = texts.partial, .progress = &progress});
  if (absl::IsCancelled(report.status())) {
    return absl::CancelledError("interrupted: no result was written");
  }
  if (!report.ok()) return AsBadInput(report.status());
  PrintPath(*texts.output_path, console);
  const bool is_all = report->docs_begin == 0 && report->docs_end == report->num_docs;
  console.Note(fmt::format("merged {}: {} x {}{}, k={}", Plural(report->num_parts, "part", "parts"),
                           Plural(report->num_queries, "query", "queries"),
                           Plural(report->docs_end - report->docs_begin, "doc", "docs"),
                           is_all ? ""
                                  : fmt::format(" ({}:{} of {})", report->docs_begin,
                                                report->docs_end, report->num_docs),
                           report->k));
  return absl::OkStatus();
}

VerbFlags MergeVerbFlags() { return DeclaredFlags<MergeTexts>(Declare); }

}  // namespace tiny_knn
