// What the Tab key of a shell knows of tiny-knn, made from the table of verbs and their flags, so
// that it cannot lag behind. Pure.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "cli/verbs.h"

namespace tiny_knn {

// A script to be sourced by bash 4 or later; needs no other completion package.
std::string BashCompletion(std::span<const Verb> verbs);

// The text of a file _tiny-knn in zsh's $fpath.
std::string ZshCompletion(std::span<const Verb> verbs);

// What a help page says of a flag, up to the end of its first sentence, and what it calls the
// flag's value; empty where it says nothing.
struct FlagText {
  std::string value;
  std::string summary;
};
FlagText FindFlagText(std::string_view help, std::string_view flag);

}  // namespace tiny_knn
