// `tiny-knn completion`: a script for a shell's Tab key.
#include <string>
#include <vector>

#include "cli/completion_script.h"
#include "cli/flags.h"
#include "cli/verbs.h"
#include "core/job/one_line.h"
#include "fmt/format.h"

namespace tiny_knn {

const std::string_view kCompletionHelp =
    R"(tiny-knn completion: words for the Tab key of bash or zsh

usage: tiny-knn completion bash|zsh

Prints a script. It completes commands, flags, their values, .npy and .pkl
files, and the ids of the daemon's jobs. tools/install puts it where both shells
look for it.

  -h, --help    this page

example: source <(tiny-knn completion bash)     in ~/.bashrc
         source <(tiny-knn completion zsh)      in ~/.zshrc, after compinit
)";

absl::Status CompletionVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("completion", "bash|zsh");
  std::string shell;
  parser.Positional("SHELL", &shell);
  absl::Status status = parser.Parse(args);
  if (!status.ok()) return status;
  if (parser.help_wanted()) {
    console.Out(kCompletionHelp);
  } else if (shell == "bash") {
    console.Out(BashCompletion(AllVerbs()));
  } else if (shell == "zsh") {
    console.Out(ZshCompletion(AllVerbs()));
  } else {
    return absl::InvalidArgumentError(
        fmt::format("completion is there for bash and zsh, found '{}'", OneLine(shell)));
  }
  return absl::OkStatus();
}

}  // namespace tiny_knn
