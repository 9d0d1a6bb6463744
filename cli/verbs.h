// The commands of tiny-knn, one function and one help text each.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "cli/console.h"

namespace tiny_knn {

struct Verb {
  std::string_view name;
  std::string_view summary;  // half a line
  std::string_view help;     // the whole page, at most 80 columns, with an example
  // `args` follow the verb. Data goes to console.Out, which the caller flushes.
  absl::Status (*run)(const std::vector<std::string>& args, Console& console);
};

// In the order in which help lists them.
std::span<const Verb> AllVerbs();

// The verb of that name, or null.
const Verb* FindVerb(std::string_view name);

absl::Status RunVerb(const std::vector<std::string>& args, Console& console);
absl::Status InfoVerb(const std::vector<std::string>& args, Console& console);
absl::Status ShowVerb(const std::vector<std::string>& args, Console& console);
absl::Status DemoVerb(const std::vector<std::string>& args, Console& console);
absl::Status HelpVerb(const std::vector<std::string>& args, Console& console);
absl::Status VersionVerb(const std::vector<std::string>& args, Console& console);

extern const std::string_view kRunHelp;
extern const std::string_view kInfoHelp;
extern const std::string_view kShowHelp;
extern const std::string_view kDemoHelp;
extern const std::string_view kHelpHelp;
extern const std::string_view kVersionHelp;

// The page of `tiny-knn` and `tiny-knn help`.
std::string OverviewText();

// A file that is wrong when it is opened is bad input, not a failure of ours: DataLoss (truncated)
// becomes InvalidArgument. Everything else stays as it is.
absl::Status AsBadInput(const absl::Status& status);

}  // namespace tiny_knn
