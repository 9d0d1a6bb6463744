#include "cli/flags.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "CLI/CLI.hpp"
#include "cli/text.h"
#include "core/job/one_line.h"
#include "fmt/format.h"

namespace tiny_knn {

struct FlagParser::State {
  std::string verb;
  std::string usage;
  CLI::App app;
  bool help = false;
  std::vector<std::pair<CLI::Option*, std::optional<std::string>*>> values;
  std::vector<std::pair<CLI::Option*, bool*>> switches;
  struct RequiredArgument {
    CLI::Option* option;
    std::string name;
    std::string* value;
  };
  std::vector<RequiredArgument> positionals;

  bool IsSwitch(const CLI::Option* option) const {
    return std::any_of(switches.begin(), switches.end(),
                       [&](const auto& entry) { return entry.first == option; });
  }

  absl::Status Misuse(const std::string& what) const {
    return absl::InvalidArgumentError(fmt::format("{}; see 'tiny-knn {} --help'", what, verb));
  }
};

// One argument that begins with a dash, taken apart. Names carry their dashes.
struct FlagParser::Word {
  CLI::Option* option = nullptr;     // what it sets; of letters in one, the last; null if unknown
  std::string name;                  // as typed
  std::optional<std::string> value;  // what is attached to it
};

FlagParser::Word FlagParser::TakeApart(const std::string& arg) const {
  Word word;
  if (arg.size() < 2 || arg[0] != '-') return word;
  if (arg[1] == '-') {
    const size_t equals = arg.find('=');
    word.name = arg.substr(0, equals);
    if (equals != std::string::npos) word.value = arg.substr(equals + 1);
    word.option = state_->app.get_option_no_throw(word.name);
    return word;
  }
  for (size_t i = 1; i < arg.size(); ++i) {
    word.name = {'-', arg[i]};
    word.option = state_->app.get_option_no_throw(word.name);
    if (word.option == nullptr) break;
    const bool is_switch = state_->IsSwitch(word.option);
    if (i + 1 < arg.size() && (!is_switch || arg[i + 1] == '=')) {
      word.value = arg.substr(i + 1);
      break;
    }
  }
  return word;
}

absl::StatusOr<std::vector<std::string>> FlagParser::Checked(
    const std::vector<std::string>& args) const {
  std::vector<std::string> checked;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if (arg == "--") {
      checked.insert(checked.end(), args.begin() + static_cast<std::ptrdiff_t>(i), args.end());
      break;
    }
    const Word word = TakeApart(arg);
    if (word.option == nullptr) {
      checked.push_back(arg);
    } else if (state_->IsSwitch(word.option)) {
      if (word.value) return state_->Misuse(fmt::format("{} takes no value", word.name));
      checked.push_back(arg);
    } else if (word.value) {
      checked.push_back(word.value->empty() ? word.name : arg);
      if (word.value->empty()) checked.emplace_back();  // a word of its own: the next is no value
    } else if (i + 1 == args.size()) {
      return state_->Misuse(fmt::format("{} needs a value", word.name));
    } else {
      const std::string& value = args[++i];
      if (value.starts_with("--") || TakeApart(value).option != nullptr) {
        return state_->Misuse(fmt::format("{} needs a value, found {}", word.name, OneLine(value)));
      }
      checked.push_back(arg);
      checked.push_back(value);
    }
  }
  return checked;
}

FlagParser::FlagParser(std::string verb, std::string usage) : state_(std::make_unique<State>()) {
  state_->verb = std::move(verb);
  state_->usage = std::move(usage);
  state_->app.set_help_flag();  // its own would throw the help text as an exception
  state_->app.allow_extras();   // so that an unknown flag is named by us, with the nearest
  Switch("-h,--help", &state_->help);
}

FlagParser::~FlagParser() = default;

void FlagParser::Value(const std::string& names, std::optional<std::string>* value) {
  CLI::Option* option = state_->app.add_option(names);
  option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  state_->values.emplace_back(option, value);
}

void FlagParser::Switch(const std::string& names, bool* value) {
  state_->switches.emplace_back(state_->app.add_flag(names), value);
}

void FlagParser::Positional(const std::string& name, std::string* value) {
  state_->positionals.push_back({state_->app.add_option(name)->expected(1), name, value});
}

void FlagParser::Positionals(const std::string& name, std::vector<std::string>* value) {
  state_->app.add_option(name, *value);
}

bool FlagParser::help_wanted() const { return state_->help; }

std::vector<FlagParser::Flag> FlagParser::Flags() const {
  std::vector<Flag> flags;
  for (const CLI::Option* option : state_->app.get_options()) {
    Flag flag;
    for (const std::string& name : option->get_snames()) flag.names.push_back("-" + name);
    for (const std::string& name : option->get_lnames()) flag.names.push_back("--" + name);
    flag.takes_value = !state_->IsSwitch(option);
    if (!flag.names.empty()) flags.push_back(std::move(flag));  // none: an argument
  }
  return flags;
}

std::vector<std::string> FlagParser::FlagNames() const {
  std::vector<std::string> names;
  for (const Flag& flag : Flags()) names.insert(names.end(), flag.names.begin(), flag.names.end());
  return names;
}

absl::Status FlagParser::Parse(const std::vector<std::string>& args) {
  State& state = *state_;
  // Help wins over every mistake in the same line.
  const auto end_of_flags = std::find(args.begin(), args.end(), "--");
  if (std::any_of(args.begin(), end_of_flags,
                  [](const std::string& arg) { return arg == "-h" || arg == "--help"; })) {
    state.help = true;
    return absl::OkStatus();
  }
  // CLI11 takes "--flag= WORD" for "--flag=WORD", any word for a value, and "--switch=no" as it is.
  const absl::StatusOr<std::vector<std::string>> checked = Checked(args);
  if (!checked.ok()) return checked.status();
  try {
    state.app.parse(std::vector<std::string>(checked->rbegin(), checked->rend()));
  } catch (const CLI::Error& error) {
    return state.Misuse(OneLine(error.what()));
  }

  std::vector<std::string> unused = state.app.remaining();
  unused.erase(std::remove(unused.begin(), unused.end(), "--"), unused.end());
  for (const std::string& arg : unused) {
    if (arg.size() < 2 || arg[0] != '-') continue;
    const std::string flag = arg.substr(0, arg.find('='));
    std::vector<std::string> near = NearestWords(flag, FlagNames(), 1);
    if (flag.size() == 2) near.clear();  // every one-letter flag is near to every other
    const std::string what = fmt::format("unknown flag {}", OneLine(flag));
    if (near.empty()) return state.Misuse(what);
    return absl::InvalidArgumentError(fmt::format("{}; did you mean {}?", what, near[0]));
  }
  if (!unused.empty()) {
    return state.Misuse(fmt::format("unexpected argument '{}'", OneLine(unused[0])));
  }
  for (const auto& [option, value] : state.values) {
    if (!option->results().empty()) *value = option->results().back();
  }
  for (const auto& [option, value] : state.switches) {
    if (option->count() > 0) *value = option->as<bool>();
  }
  for (const auto& [option, name, value] : state.positionals) {
    if (option->results().empty()) {
      return absl::InvalidArgumentError(
          fmt::format("missing {}; usage: tiny-knn {} {}", name, state.verb, state.usage));
    }
    *value = option->results().back();
  }
  return absl::OkStatus();
}

}  // namespace tiny_knn
