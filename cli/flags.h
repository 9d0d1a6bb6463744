// The flags and arguments of one verb: which there are, and what was typed.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tiny_knn {

// Declares flags, then parses once. Values stay text: cli/values.h makes numbers of them. Later
// flags win over earlier ones of the same name, so that a script's defaults can be overridden.
// Pointers must outlive Parse. Thread-compatible.
//
//   FlagParser parser("run", "QUERIES DOCS [flags]");
//   parser.Value("-k,--k", &k);
//   parser.Switch("--cpu", &cpu);
//   parser.Positional("QUERIES", &queries);
//   absl::Status status = parser.Parse(args);
class FlagParser {
 public:
  // `usage` follows "tiny-knn VERB" in messages. -h and --help are always there.
  FlagParser(std::string verb, std::string usage);
  ~FlagParser();
  FlagParser(const FlagParser&) = delete;
  FlagParser& operator=(const FlagParser&) = delete;

  void Value(const std::string& names, std::optional<std::string>* value);
  void Switch(const std::string& names, bool* value);
  void Positional(const std::string& name, std::string* value);                // required
  void Positionals(const std::string& name, std::vector<std::string>* value);  // any number, last

  // `args` follow the verb. InvalidArgument, in one line, for an unknown flag (naming the nearest),
  // a missing value (a flag where a value should be is none: `--flag=--value` is for values like
  // that), a value of a switch, a missing or surplus argument. With -h or --help it is always OK.
  absl::Status Parse(const std::vector<std::string>& args);
  bool help_wanted() const;

  // Every declared flag in the order of declaration, "-h, --help" first.
  struct Flag {
    std::vector<std::string> names;  // "-k", "--k"
    bool takes_value = false;
  };
  std::vector<Flag> Flags() const;

  // All their names: "-k", "--k", "--cpu", ...
  std::vector<std::string> FlagNames() const;

 private:
  struct State;
  struct Word;
  Word TakeApart(const std::string& arg) const;
  // `args` with empty values as words of their own, or what is wrong with a value.
  absl::StatusOr<std::vector<std::string>> Checked(const std::vector<std::string>& args) const;

  std::unique_ptr<State> state_;
};

// What `declare` declares: how a verb's flags are listed without parsing anything.
template <typename Texts>
std::vector<FlagParser::Flag> DeclaredFlags(void (*declare)(FlagParser& parser, Texts& texts)) {
  FlagParser parser("", "");
  Texts texts;
  declare(parser, texts);
  return parser.Flags();
}

}  // namespace tiny_knn
