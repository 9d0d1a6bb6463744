#include "cli/submit_flags.h"

#include <algorithm>
#include <utility>

#include "cli/values.h"
#include "core/job/one_line.h"
#include "daemon/protocol/client_messages.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

struct SubmitTexts {
  RunTexts run;
  DaemonTexts daemon;
  std::vector<std::string> files;
  RunTexts::Text spec, priority, key, timeout;
  bool wait = false, follow = false, json = false;
};

void Declare(FlagParser& parser, SubmitTexts& texts) {
  DeclareRunFlags(parser, texts.run);
  parser.Value("--spec", &texts.spec);
  parser.Switch("--wait", &texts.wait);
  parser.Switch("--follow", &texts.follow);
  parser.Switch("--json", &texts.json);
  parser.Value("--priority", &texts.priority);
  parser.Value("--key", &texts.key);
  parser.Value("--timeout", &texts.timeout);
  DeclareDaemonFlags(parser, texts.daemon);
  parser.Positionals("FILES", &texts.files);
}

bool IsKey(const std::string& text) {
  return !text.empty() && text.size() <= kMostKeyBytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

absl::Status Contradiction(std::string_view given) {
  return absl::InvalidArgumentError(fmt::format(
      "--spec and {} contradict each other; the whole search is described in the file", given));
}

// The two files, or the spec instead of them and of all flags that describe a search.
absl::StatusOr<RunRequest> InterpretSearch(SubmitTexts& texts) {
  if (texts.spec) {
    if (texts.spec->empty()) {
      return absl::InvalidArgumentError("--spec expects a file name or -, found ''");
    }
    if (!texts.files.empty()) return Contradiction(fmt::format("'{}'", OneLine(texts.files[0])));
    if (const char* flag = FirstSearchFlagGiven(texts.run)) return Contradiction(flag);
    return InterpretReportingFlags(texts.run);
  }
  if (texts.files.size() < 2) {
    return absl::InvalidArgumentError(
        fmt::format("missing {}; usage: tiny-knn submit QUERIES DOCS [flags]",
                    texts.files.empty() ? "QUERIES" : "DOCS"));
  }
  if (texts.files.size() > 2) {
    return absl::InvalidArgumentError(fmt::format(
        "unexpected argument '{}'; see 'tiny-knn submit --help'", OneLine(texts.files[2])));
  }
  texts.run.queries = texts.files[0];
  texts.run.docs = texts.files[1];
  absl::StatusOr<RunRequest> request = InterpretRunFlags(texts.run);
  // The engine that would refuse another one is the daemon's.
  if (request.ok()) {
    absl::Status status = CheckDevice("--device", request->spec.device);
    if (!status.ok()) return status;
  }
  return request;
}

}  // namespace

absl::StatusOr<SubmitFlags> ParseSubmitFlags(const std::vector<std::string>& args) {
  FlagParser parser("submit", "QUERIES DOCS [flags]");
  SubmitTexts texts;
  Declare(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok()) return status;
  SubmitFlags flags;
  if (parser.help_wanted()) {
    flags.run.help = true;
    return flags;
  }
  absl::StatusOr<RunRequest> run = InterpretSearch(texts);
  if (!run.ok()) return run.status();
  flags.run = *std::move(run);
  flags.spec_file = texts.spec;
  flags.follow = texts.follow;
  flags.wait = texts.wait || texts.follow;
  flags.json = texts.json;
  flags.daemon = texts.daemon;
  if (texts.priority) {
    const absl::StatusOr<int64_t> priority =
        ParseInteger("--priority", *texts.priority, kLeastPriority, kGreatestPriority);
    if (!priority.ok()) return priority.status();
    flags.priority = static_cast<int>(*priority);
  }
  if (texts.key) {
    if (!IsKey(*texts.key)) {
      return absl::InvalidArgumentError(
          fmt::format("--key expects 1 to {} letters, digits or marks without blanks, found '{}'",
                      kMostKeyBytes, OneLine(*texts.key)));
    }
    flags.key = *texts.key;
  }
  if (texts.timeout) {
    const absl::StatusOr<int64_t> seconds = ParseDuration("--timeout", *texts.timeout);
    if (!seconds.ok()) return seconds.status();
    flags.timeout_seconds = *seconds;
  }
  return flags;
}

std::vector<FlagParser::Flag> ListSubmitFlags() { return DeclaredFlags<SubmitTexts>(Declare); }

}  // namespace tiny_knn
