#include "cli/cli_main.h"

#include <sys/stat.h>

#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cli/console.h"
#include "cli/interrupt.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// The only place where a Status becomes an exit code.
int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kAlreadyExists:
      return 2;
    case absl::StatusCode::kCancelled:
      if (CaughtSignal() != 0) return 128 + CaughtSignal();
      return 1;
    default:
      return 1;
  }
}

bool FileExists(const std::string& path) {
  struct stat ignored;
  return stat(path.c_str(), &ignored) == 0;
}

// Whether a first word that is no verb is meant as the QUERIES of the bare form.
bool LooksLikeFile(const std::string& word) {
  return word.find_first_of("./") != std::string::npos || FileExists(word);
}

absl::Status UnknownVerb(const std::string& word) {
  const std::vector<std::string> near = NearestWords(word, ListedVerbNames(), 1);
  return absl::InvalidArgumentError(fmt::format(
      "'{}' is neither a command nor a file; {}", word,
      near.empty() ? "see 'tiny-knn help'" : fmt::format("did you mean '{}'?", near[0])));
}

absl::Status OutOfMemory(const std::vector<std::string>& args) {
  const Verb* verb = args.empty() ? nullptr : FindVerb(args[0]);
  const bool searches = verb == nullptr || verb->name == "run";
  return absl::ResourceExhaustedError(
      searches ? "out of memory; a smaller --memory-limit may help"
               : fmt::format("out of memory: {} needs more than is free", verb->name));
}

absl::Status Dispatch(const std::vector<std::string>& args, Console& console) {
  if (args.empty()) {
    console.Out(OverviewText());
    return absl::OkStatus();
  }
  const std::string& first = args[0];
  const std::vector<std::string> after_first(args.begin() + 1, args.end());
  if (first == "-h" || first == "--help") return HelpVerb(after_first, console);
  if (first == "-V" || first == "--version") return VersionVerb(after_first, console);
  if (const Verb* verb = FindVerb(first)) return verb->run(after_first, console);
  if (first[0] != '-' && !LooksLikeFile(first)) return UnknownVerb(first);
  return RunVerb(args, console);
}

}  // namespace

int CliMain(int argc, char** argv) {
  PrepareStandardStreams();
  Console console;
  const std::vector<std::string> args(argv + (argc > 0 ? 1 : 0), argv + argc);
  absl::Status status;
  // Our own code throws nothing, but the standard library may, when memory ends.
  try {
    status = Dispatch(args, console);
    absl::Status flushed = console.Flush();
    if (status.ok()) status = flushed;
  } catch (const std::bad_alloc&) {
    status = OutOfMemory(args);
  } catch (const std::length_error&) {  // more than any memory: what a container says of its size
    status = OutOfMemory(args);
  } catch (const std::exception& error) {
    status = absl::InternalError(error.what());
  }
  if (!status.ok()) console.Error(std::string(status.message()));
  return ExitCode(status);
}

}  // namespace tiny_knn
