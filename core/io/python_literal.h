// The Python literals that an .npy header is made of, parsed as the grammar they are.
//
// Literal = string | int | bool | None | tuple | list | dict. No expressions, floats, sets,
// comments or string concatenation: numpy writes none of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tiny_knn {

// Deepest nesting of brackets that is parsed; an .npy header needs 3 (5 with structured dtypes).
inline constexpr int kMaxPythonLiteralDepth = 32;

struct PythonLiteral {
  enum class Kind { kString, kInt, kBool, kNone, kTuple, kList, kDict };

  Kind kind = Kind::kNone;
  // kString: its bytes, escapes resolved (code points beyond ASCII as UTF-8).
  std::string text;
  // kInt: the value, when `int_overflow` is false. kBool: 0 or 1.
  int64_t number = 0;
  bool int_overflow = false;  // an int beyond int64; `text` holds its digits
  // kTuple, kList: the items. kDict: key, value, key, value ... in the order written; keys may
  // repeat and be of any kind.
  std::vector<PythonLiteral> items;
};

// "a string", "a tuple": for messages.
std::string_view PythonLiteralKindName(PythonLiteral::Kind kind);

// Parses all of `text` as one literal, white space around it allowed. Strings may use either quote,
// every escape but \N{...}, and a u or b prefix; ints a sign and Python 2's trailing L; tuples,
// lists and dicts a trailing comma. Errors are InvalidArgument: what was found, what was expected,
// at which character. Time and memory are linear in the size of `text`.
absl::StatusOr<PythonLiteral> ParsePythonLiteral(std::string_view text);

}  // namespace tiny_knn
