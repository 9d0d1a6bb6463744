// The commands of tiny-knn, one function and one help text each.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "cli/console.h"
#include "cli/flags.h"

namespace tiny_knn {

using VerbFlags = std::vector<FlagParser::Flag>;

struct Verb {
  // Where help lists it.
  enum class Group { kHere, kDaemon, kNowhere };
  // What its arguments are, for a shell that completes them.
  enum class Arguments {
    kNone,
    kMatrices,
    kMatrixOrResult,
    kResult,
    kResults,
    kParts,
    kWords,
    kCommand,
    kJobs,
    kShell
  };

  std::string_view name;
  std::string_view summary;  // half a line
  std::string_view help;     // the whole page, at most 80 columns, with an example
  // `args` follow the verb. Data goes to console.Out, which the caller flushes.
  absl::Status (*run)(const std::vector<std::string>& args, Console& console);
  VerbFlags (*flags)();  // as declared to its parser
  Arguments arguments = Arguments::kNone;
  Group group = Group::kHere;
};

// In the order in which help lists them.
std::span<const Verb> AllVerbs();

// The verb of that name, or null.
const Verb* FindVerb(std::string_view name);

// The names that help lists and a mistyped word is compared with.
std::vector<std::string> ListedVerbNames();

absl::Status RunVerb(const std::vector<std::string>& args, Console& console);
absl::Status InfoVerb(const std::vector<std::string>& args, Console& console);
absl::Status ShowVerb(const std::vector<std::string>& args, Console& console);
absl::Status EvalVerb(const std::vector<std::string>& args, Console& console);
absl::Status MergeVerb(const std::vector<std::string>& args, Console& console);
absl::Status DemoVerb(const std::vector<std::string>& args, Console& console);
absl::Status DaemonVerb(const std::vector<std::string>& args, Console& console);
absl::Status SubmitVerb(const std::vector<std::string>& args, Console& console);
absl::Status StatusVerb(const std::vector<std::string>& args, Console& console);
absl::Status WaitVerb(const std::vector<std::string>& args, Console& console);
absl::Status LogVerb(const std::vector<std::string>& args, Console& console);
absl::Status CancelVerb(const std::vector<std::string>& args, Console& console);
absl::Status CleanVerb(const std::vector<std::string>& args, Console& console);
absl::Status DrainVerb(const std::vector<std::string>& args, Console& console);
absl::Status ShutdownVerb(const std::vector<std::string>& args, Console& console);
absl::Status WorkerVerb(const std::vector<std::string>& args, Console& console);
absl::Status CompletionVerb(const std::vector<std::string>& args, Console& console);
absl::Status HelpVerb(const std::vector<std::string>& args, Console& console);
absl::Status VersionVerb(const std::vector<std::string>& args, Console& console);

VerbFlags RunVerbFlags();
VerbFlags InfoVerbFlags();
VerbFlags ShowVerbFlags();
VerbFlags EvalVerbFlags();
VerbFlags MergeVerbFlags();
VerbFlags DemoVerbFlags();
VerbFlags DaemonVerbFlags();
VerbFlags SubmitVerbFlags();
VerbFlags StatusVerbFlags();
VerbFlags WaitVerbFlags();
VerbFlags LogVerbFlags();
VerbFlags CancelVerbFlags();
VerbFlags CleanVerbFlags();
VerbFlags DrainVerbFlags();
VerbFlags ShutdownVerbFlags();
VerbFlags WorkerVerbFlags();
VerbFlags HelpOnlyFlags();  // of completion, help and version

extern const std::string_view kRunHelp;
extern const std::string_view kInfoHelp;
extern const std::string_view kShowHelp;
extern const std::string_view kEvalHelp;
extern const std::string_view kMergeHelp;
extern const std::string_view kDemoHelp;
extern const std::string_view kDaemonHelp;
extern const std::string_view kSubmitHelp;
extern const std::string_view kStatusHelp;
extern const std::string_view kWaitHelp;
extern const std::string_view kLogHelp;
extern const std::string_view kCancelHelp;
extern const std::string_view kCleanHelp;
extern const std::string_view kDrainHelp;
extern const std::string_view kShutdownHelp;
extern const std::string_view kWorkerHelp;
extern const std::string_view kCompletionHelp;
extern const std::string_view kHelpHelp;
extern const std::string_view kVersionHelp;

// The page of `tiny-knn` and `tiny-knn help`.
std::string OverviewText();

// Prints the page on standard output where it was asked for, and says whether: then there is
// nothing left to do.
bool PrintedHelp(const FlagParser& parser, std::string_view help, Console& console);

}  // namespace tiny_knn
