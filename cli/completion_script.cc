#include "cli/completion_script.h"

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "core/job/version.h"
#include "core/matrix/dtype.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Flag = FlagParser::Flag;

// "float32, int8" as "float32 int8".
std::string WithoutCommas(std::string_view names) {
  std::string words(names);
  words.erase(std::remove(words.begin(), words.end(), ','), words.end());
  return words;
}

// What may follow a flag: some words, files, folders, or anything.
struct ValueKind {
  enum class Of { kWords, kFiles, kFolders, kAnything } of = Of::kAnything;
  std::string words = {};
};

ValueKind KindOf(const Flag& flag) {
  const std::string& name = flag.names.back();  // the long one
  using enum ValueKind::Of;
  if (name == "--metric") return {kWords, "ip cosine l2"};
  if (name == "--dtype") return {kWords, WithoutCommas(ComputeDTypeNames())};
  if (name == "--input-dtype") return {kWords, WithoutCommas(FileDTypeNames())};
  if (name == "--device") return {kWords, "auto cpu cuda"};
  if (name == "--progress") return {kWords, "auto always never json"};
  for (const char* file :
       {"--output-path", "--checkpoint", "--labels", "--query-labels", "--spec", "--socket"}) {
    if (name == file) return {kFiles};
  }
  for (const char* folder : {"--data", "--state-dir"}) {
    if (name == folder) return {kFolders};
  }
  return {kAnything};
}

std::string VerbWords(std::span<const Verb> verbs) {
  std::string words;
  for (const Verb& verb : verbs) {
    if (verb.group == Verb::Group::kNowhere) continue;
    words += fmt::format("{}{}", words.empty() ? "" : " ", verb.name);
  }
  return words;
}

std::string ReplaceAll(std::string text, std::string_view what, std::string_view by) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size()) {
    text.replace(at, what.size(), by);
  }
  return text;
}

// ---- bash ---------------------------------------------------------------------------------------

// The line of `case $verb` that completes what follows one verb.
std::string BashVerb(const Verb& verb, std::string_view pattern, std::span<const Verb> verbs) {
  std::string flags, values;
  for (const Flag& flag : verb.flags()) {
    for (const std::string& name : flag.names) flags += fmt::format("{} ", name);
    if (!flag.takes_value) continue;
    std::string names;
    for (const std::string& name : flag.names) {
      names += fmt::format("{}{}", names.empty() ? "" : " | ", name);
    }
    const ValueKind kind = KindOf(flag);
    std::string action;
    switch (kind.of) {
      case ValueKind::Of::kWords:
        action = fmt::format("_tiny_knn_words \"$cur\" '{}'", kind.words);
        break;
      case ValueKind::Of::kFiles:
        action = "_tiny_knn_files \"$cur\" '*'";
        break;
      case ValueKind::Of::kFolders:
        action = "_tiny_knn_files \"$cur\" ''";
        break;
      case ValueKind::Of::kAnything:
        action = ":";
        break;
    }
    values += fmt::format("        {}) {}; return ;;\n", names, action);
  }
  flags.pop_back();
  std::string arguments;
  switch (verb.arguments) {
    case Verb::Arguments::kNone:
    case Verb::Arguments::kWords:
      arguments = ":";
      break;
    case Verb::Arguments::kMatrices:
      arguments = "_tiny_knn_files \"$cur\" '*.npy'";
      break;
    case Verb::Arguments::kMatrixOrResult:
      arguments = "_tiny_knn_files \"$cur\" '*.@(npy|npz|pkl)'";
      break;
    case Verb::Arguments::kResult:
    case Verb::Arguments::kResults:
    case Verb::Arguments::kParts:
      arguments = "_tiny_knn_files \"$cur\" '*.@(npz|pkl)'";
      break;
    case Verb::Arguments::kCommand:
      arguments = fmt::format("_tiny_knn_words \"$cur\" '{}'", VerbWords(verbs));
      break;
    case Verb::Arguments::kJobs:
      arguments = "_tiny_knn_words \"$cur\" \"$(_tiny_knn_jobs \"$1\")\"";
      break;
    case Verb::Arguments::kShell:
      arguments = "_tiny_knn_words \"$cur\" 'bash zsh'";
      break;
  }
  std::string text = fmt::format("    {})\n", pattern);
  if (!values.empty()) text += fmt::format("      case $flag in\n{}      esac\n", values);
  text +=
      fmt::format("      flags='{}'\n      [[ $cur == -* ]] || {}\n      ;;\n", flags, arguments);
  return text;
}

// ---- zsh ----------------------------------------------------------------------------------------

std::string ZshAction(const Flag& flag) {
  const ValueKind kind = KindOf(flag);
  switch (kind.of) {
    case ValueKind::Of::kWords:
      return fmt::format("({})", kind.words);
    case ValueKind::Of::kFiles:
      return "_files";
    case ValueKind::Of::kFolders:
      return "_files -/";
    case ValueKind::Of::kAnything:
      return " ";
  }
  return " ";
}

std::string ZshArguments(const Verb& verb, std::span<const Verb> verbs) {
  switch (verb.arguments) {
    case Verb::Arguments::kNone:
      return "";
    case Verb::Arguments::kWords:
      return "'*:word: '";
    case Verb::Arguments::kMatrices:
      return "'1:queries:_files -g \"*.npy\"' '2:docs:_files -g \"*.npy\"'";
    case Verb::Arguments::kMatrixOrResult:
      return "'1:file:_files -g \"*.(npy|npz|pkl)\"'";
    case Verb::Arguments::kResult:
      return "'1:result:_files -g \"*.(npz|pkl)\"'";
    case Verb::Arguments::kResults:
      return "'1:result:_files -g \"*.(npz|pkl)\"' '2:truth:_files -g \"*.(npz|pkl)\"'";
    case Verb::Arguments::kParts:
      return "'*:part:_files -g \"*.(npz|pkl)\"'";
    case Verb::Arguments::kCommand:
      return fmt::format("'1:command:({})'", VerbWords(verbs));
    case Verb::Arguments::kJobs:
      return "'*:job:_tiny_knn_jobs'";
    case Verb::Arguments::kShell:
      return "'1:shell:(bash zsh)'";
  }
  return "";
}

// What is said of a flag within the brackets of a specification in single quotes.
std::string ZshSummary(std::string text) {
  text = ReplaceAll(std::move(text), "\\", "\\\\");
  text = ReplaceAll(std::move(text), "]", "\\]");
  text = ReplaceAll(std::move(text), "[", "\\[");
  return ReplaceAll(std::move(text), "'", "'\\''");
}

std::string ZshVerb(const Verb& verb, std::span<const Verb> verbs) {
  std::string text = "      _arguments -s";
  for (const Flag& flag : verb.flags()) {
    std::string group;
    for (const std::string& name : flag.names) {
      group += fmt::format("{}{}", group.empty() ? "" : " ", name);
    }
    if (flag.names.size() > 1) group = fmt::format("({})", group);
    if (flag.names.size() == 1) group.clear();
    const FlagText said = FindFlagText(verb.help, flag.names.back());
    for (const std::string& name : flag.names) {
      // "-k+": the value may be joined to it; "--k=": a blank or a '=' may stand between.
      const std::string_view joint = !flag.takes_value ? "" : name.size() == 2 ? "+" : "=";
      text += fmt::format(" \\\n        '{}{}{}[{}]", group, name, joint, ZshSummary(said.summary));
      if (flag.takes_value) {
        text += fmt::format(":{}:{}", said.value.empty() ? "value" : said.value, ZshAction(flag));
      }
      text += "'";
    }
  }
  const std::string arguments = ZshArguments(verb, verbs);
  if (!arguments.empty()) text += fmt::format(" \\\n        {}", arguments);
  return text + "\n";
}

}  // namespace

FlagText FindFlagText(std::string_view help, std::string_view flag) {
  std::istringstream lines{std::string(help)};
  std::string line;
  FlagText text;
  bool found = false;
  while (std::getline(lines, line)) {
    const size_t begin = line.find_first_not_of(' ');
    const bool indented = begin != std::string::npos && begin > 0;
    const bool names_flag = indented && line[begin] == '-';
    if (found && (!indented || names_flag)) break;
    if (found) {
      text.summary.append(1, ' ').append(line, begin);
      continue;
    }
    if (!names_flag) continue;
    // "-k, --k N   docs per query": the head ends where two blanks stand.
    const size_t head_end = std::min(line.find("  ", begin), line.size());
    std::istringstream words(line.substr(begin, head_end - begin));
    std::string value;
    for (std::string word; words >> word;) {
      if (word.back() == ',') word.pop_back();
      found = found || word == flag;
      value = word[0] == '-' ? "" : word;
    }
    if (!found) continue;
    text.value = value;
    const size_t summary = line.find_first_not_of(' ', head_end);
    if (summary != std::string::npos) text.summary = line.substr(summary);
  }
  // "default: all of it" is one thing that is said, "compute in T: float32, ..." two.
  const bool is_default = text.summary.starts_with("default: ");
  size_t summary_end = text.summary.size();
  for (const char* end : {"; ", ". ", " (default:", is_default ? "; " : ": "}) {
    summary_end = std::min(summary_end, text.summary.find(end));
  }
  text.summary.resize(summary_end);
  return text;
}

std::string BashCompletion(std::span<const Verb> verbs) {
  std::string text =
      fmt::format(R"sh(# bash completion of tiny-knn {}, made by 'tiny-knn completion bash'

_tiny_knn_words() {{ # WORD CHOICES
  mapfile -t COMPREPLY < <(compgen -W "$2" -- "$1")
}}

_tiny_knn_files() {{ # WORD PATTERN; folders always
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(
    shopt -s extglob
    {{
      compgen -d -- "$1"
      if [[ -n $2 ]]; then compgen -f -X "!$2" -- "$1"; fi
    }} | sort -u
  )
}}

_tiny_knn_jobs() {{ # PROGRAM
  "$1" status --json 2>/dev/null | grep -o '"id":[0-9]*' | cut -d: -f2
}}

_tiny_knn() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} flag=${{COMP_WORDS[COMP_CWORD - 1]}} flags
  COMPREPLY=()
  # --flag=VALUE comes as three words.
  if [[ $cur == '=' ]]; then
    cur=''
  elif [[ $flag == '=' ]]; then
    flag=${{COMP_WORDS[COMP_CWORD - 2]}}
  fi
  if ((COMP_CWORD == 1)); then
    local -a files=()
    if [[ $cur != -* ]]; then
      _tiny_knn_files "$cur" '*.npy'
      files=("${{COMPREPLY[@]}}")
    fi
    _tiny_knn_words "$cur" '{} --help --version'
    COMPREPLY+=("${{files[@]}}")
    return
  fi
  case ${{COMP_WORDS[1]}} in
)sh",
                  kTinyKnnVersion, VerbWords(verbs));
  const Verb* run = nullptr;
  for (const Verb& verb : verbs) {
    if (verb.group == Verb::Group::kNowhere) continue;
    if (verb.name == "run") {
      run = &verb;
      continue;
    }
    text += BashVerb(verb, verb.name, verbs);
  }
  // Whatever is no verb means run.
  if (run != nullptr) text += BashVerb(*run, "*", verbs);
  return text + R"sh(  esac
  if [[ $cur == -* ]]; then _tiny_knn_words "$cur" "$flags"; fi
}

complete -F _tiny_knn tiny-knn
)sh";
}

std::string ZshCompletion(std::span<const Verb> verbs) {
  std::string text = fmt::format(R"sh(#compdef tiny-knn
# zsh completion of tiny-knn {}, made by 'tiny-knn completion zsh'

_tiny_knn_jobs() {{
  local -a ids
  ids=(${{(f)"$($program status --json 2>/dev/null | grep -o '"id":[0-9]*' | cut -d: -f2)"}})
  compadd -a ids
}}

_tiny_knn() {{
  local program=$words[1] verb=$words[2]
  local -a commands
  commands=(
)sh",
                                 kTinyKnnVersion);
  for (const Verb& verb : verbs) {
    if (verb.group == Verb::Group::kNowhere) continue;
    text +=
        fmt::format("    '{}:{}'\n", verb.name,
                    ReplaceAll(ReplaceAll(std::string(verb.summary), ":", "\\:"), "'", "'\\''"));
  }
  text += R"sh(  )
  if ((CURRENT == 2)); then
    _describe -t commands command commands
    _files -g '*.npy'
    return
  fi
  # What is no command means run, and is its first argument.
  if [[ -n ${commands[(r)$verb:*]} ]]; then
    shift words
    ((CURRENT--))
  else
    verb=run
  fi
  case $verb in
)sh";
  for (const Verb& verb : verbs) {
    if (verb.group == Verb::Group::kNowhere) continue;
    text += fmt::format("    {})\n{}      ;;\n", verb.name, ZshVerb(verb, verbs));
  }
  return text + R"sh(  esac
}

if [[ $funcstack[1] == _tiny-knn ]]; then
  _tiny_knn "$@"
else
  compdef _tiny_knn tiny-knn
fi
)sh";
}

}  // namespace tiny_knn
