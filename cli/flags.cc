#include "cli/flags.h"

#include <algorithm>
#include <utility>

#include "CLI/CLI.hpp"
#include "cli/text.h"
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

  absl::Status Misuse(const std::string& what) const {
    return absl::InvalidArgumentError(fmt::format("{}; see 'tiny-knn {} --help'", what, verb));
  }
};

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

std::vector<std::string> FlagParser::FlagNames() const {
  std::vector<std::string> names;
  for (const CLI::Option* option : state_->app.get_options()) {
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
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
  try {
    state.app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::ArgumentMismatch& error) {
    // "NAME: 1 required TEXT missing"
    const std::string what = error.what();
    return state.Misuse(fmt::format("{} needs a value", what.substr(0, what.find(':'))));
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
