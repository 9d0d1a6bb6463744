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
  static const Verb kVerbs[] = {
      {"run", kRunSummary, kRunHelp, RunVerb},
      {"info", "what an .npy file or a result file holds", kInfoHelp, InfoVerb},
      {"show", "look at a result as a table", kShowHelp, ShowVerb},
      {"demo", "nearest words of a few words, from bundled data", kDemoHelp, DemoVerb},
      {"help", "this page, or one command in full", kHelpHelp, HelpVerb},
      {"version", "which tiny-knn this is", kVersionHelp, VersionVerb},
  };
  return kVerbs;
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
       tiny-knn COMMAND ...

commands:
)",
      kTinyKnnVersion);
  for (const Verb& verb : AllVerbs()) {
    text += fmt::format("  {:<9} {}\n", verb.name, verb.summary);
  }
  text += R"(
  tiny-knn help COMMAND   flags of a command, with an example
  tiny-knn demo           something to look at
)";
  return text;
}

absl::Status HelpVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("help", "[COMMAND]");
  std::vector<std::string> names;
  parser.Positionals("COMMAND", &names);
  absl::Status status = parser.Parse(args);
  if (!status.ok()) return status;
  if (parser.help_wanted()) {
    console.Out(kHelpHelp);
    return absl::OkStatus();
  }
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
  std::vector<std::string> known;
  for (const Verb& verb : AllVerbs()) known.emplace_back(verb.name);
  const std::vector<std::string> near = NearestWords(names[0], known, 1);
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

absl::Status AsBadInput(const absl::Status& status) {
  if (!absl::IsDataLoss(status)) return status;
  return absl::InvalidArgumentError(std::string(status.message()));
}

}  // namespace tiny_knn
