// The list of verbs, and the two that talk about the others: help and version.
#include <algorithm>
#include <string>
#include <vector>

#include "cli/flags.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "core/job/version.h"
#include "fmt/format.h"

namespace tiny_knn {

const std::string_view kHelpHelp =
    R"(tiny-knn help: what there is, or one command in full

usage: tiny-knn help [COMMAND]

example: tiny-knn help run
)";

const std::string_view kVersionHelp =
    R"(tiny-knn version: which tiny-knn this is

usage: tiny-knn version
       tiny-knn --version
)";

std::span<const Verb> AllVerbs() {
  static constexpr std::string_view kRunSummary = "find the k nearest docs of every query, exactly";
  static constexpr std::string_view kDaemonSummary = "start the daemon: one queue for one device";
  using enum Verb::Arguments;
  using enum Verb::Group;
  static const Verb kVerbs[] = {
      {"run", kRunSummary, kRunHelp, RunVerb, RunVerbFlags, kMatrices},
      {"info", "what an .npy file or a result file holds", kInfoHelp, InfoVerb, InfoVerbFlags,
       kMatrixOrResult},
      {"show", "look at a result as a table", kShowHelp, ShowVerb, ShowVerbFlags, kResult},
      {"eval", "how much of a true result another one has", kEvalHelp, EvalVerb, EvalVerbFlags,
       kResults},
      {"merge", "results of ranges of the docs, as one", kMergeHelp, MergeVerb, MergeVerbFlags,
       kParts},
      {"demo", "nearest words of a few words, from bundled data", kDemoHelp, DemoVerb,
       DemoVerbFlags, kWords},
      {"completion", "words for the Tab key of bash or zsh", kCompletionHelp, CompletionVerb,
       HelpOnlyFlags, kShell},
      {"help", "this page, or one command in full", kHelpHelp, HelpVerb, HelpOnlyFlags, kCommand},
      {"version", "which tiny-knn this is", kVersionHelp, VersionVerb, HelpOnlyFlags, kNone},
      {"daemon", kDaemonSummary, kDaemonHelp, DaemonVerb, DaemonVerbFlags, kNone, kDaemon},
      {"submit", "like run, in the daemon's queue; prints the job's id", kSubmitHelp, SubmitVerb,
       SubmitVerbFlags, kMatrices, kDaemon},
      {"status", "the queue, or one job in full", kStatusHelp, StatusVerb, StatusVerbFlags, kJobs,
       kDaemon},
      {"wait", "until jobs are finished", kWaitHelp, WaitVerb, WaitVerbFlags, kJobs, kDaemon},
      {"log", "what a job has said", kLogHelp, LogVerb, LogVerbFlags, kJobs, kDaemon},
      {"cancel", "stop jobs, or take them from the queue", kCancelHelp, CancelVerb, CancelVerbFlags,
       kJobs, kDaemon},
      {"clean", "forget your finished jobs", kCleanHelp, CleanVerb, CleanVerbFlags, kNone, kDaemon},
      {"drain", "no new jobs; the daemon ends after the last one", kDrainHelp, DrainVerb,
       DrainVerbFlags, kNone, kDaemon},
      {"shutdown", "end the daemon; its queue is kept", kShutdownHelp, ShutdownVerb,
       ShutdownVerbFlags, kNone, kDaemon},
      {"worker", "runs the daemon's jobs", kWorkerHelp, WorkerVerb, WorkerVerbFlags, kNone,
       kNowhere},
  };
  return kVerbs;
}

std::vector<std::string> ListedVerbNames() {
  std::vector<std::string> names;
  for (const Verb& verb : AllVerbs()) {
    if (verb.group != Verb::Group::kNowhere) names.emplace_back(verb.name);
  }
  return names;
}

const Verb* FindVerb(std::string_view name) {
  for (const Verb& verb : AllVerbs()) {
    if (verb.name == name) return &verb;
  }
  return nullptr;
}

std::string OverviewText() {
  std::string text = fmt::format(
      R"(tiny-knn {}: exact top-k search over embeddings

usage: tiny-knn run QUERIES DOCS [flags]     QUERIES, DOCS: 2-D .npy files
       tiny-knn QUERIES DOCS [flags]         the same

commands ('tiny-knn help COMMAND' describes one, with its flags and an example):
)",
      kTinyKnnVersion);
  const auto list = [&](Verb::Group group) {
    for (const Verb& verb : AllVerbs()) {
      if (verb.group == group) text += fmt::format("  {:<11} {}\n", verb.name, verb.summary);
    }
  };
  list(Verb::Group::kHere);
  text += "commands for a queue that several users and programs share:\n";
  list(Verb::Group::kDaemon);
  return text;
}

absl::Status HelpVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("help", "[COMMAND]");
  std::vector<std::string> names;
  parser.Positionals("COMMAND", &names);
  absl::Status status = parser.Parse(args);
  if (!status.ok() || PrintedHelp(parser, kHelpHelp, console)) return status;
  if (names.empty()) {
    console.Out(OverviewText());
    return absl::OkStatus();
  }
  if (names.size() > 1) {
    return absl::InvalidArgumentError(
        fmt::format("help takes one command, found '{}' after it", names[1]));
  }
  if (const Verb* verb = FindVerb(names[0])) {
    console.Out(verb->help);
    return absl::OkStatus();
  }
  const std::vector<std::string> near = NearestWords(names[0], ListedVerbNames(), 1);
  return absl::InvalidArgumentError(fmt::format(
      "no command '{}'; {}", names[0],
      near.empty() ? "see 'tiny-knn help'" : fmt::format("did you mean '{}'?", near[0])));
}

absl::Status VersionVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("version", "");
  absl::Status status = parser.Parse(args);
  if (!status.ok()) return status;
  if (parser.help_wanted()) {
    console.Out(kVersionHelp);
  } else {
    console.Out(fmt::format("tiny-knn {}\n", kTinyKnnVersion));
  }
  return absl::OkStatus();
}

VerbFlags HelpOnlyFlags() { return FlagParser("", "").Flags(); }

bool PrintedHelp(const FlagParser& parser, std::string_view help, Console& console) {
  if (parser.help_wanted()) console.Out(help);
  return parser.help_wanted();
}

}  // namespace tiny_knn
