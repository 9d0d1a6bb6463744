// PTX text to tokens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tiny_knn::emulation {

struct PtxToken {
  enum class Kind : uint8_t {
    kWord,    // name, %register, .directive, number; a name keeps its modifiers: "ld.global.u32"
    kMark,    // one of , ; : { } [ ] ( ) < > + - | ! @ = and others
    kString,  // without its quotes
    kEnd,
  };
  Kind kind = Kind::kEnd;
  std::string_view text;  // into the text that was given
  uint32_t line = 0;      // from 1
  bool is(std::string_view mark) const { return kind != Kind::kString && text == mark; }
};

// All tokens of `text` and a last one of kEnd; comments are left out. `text` outlives the tokens.
// Errors: InvalidArgument (a comment or a string that does not end), naming the line.
absl::StatusOr<std::vector<PtxToken>> PtxTokens(std::string_view text);

}  // namespace tiny_knn::emulation
