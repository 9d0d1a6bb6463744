// Names of files, labels and messages as text that may be shown or logged: they can hold any byte.
// Pure functions, safe to call from any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace tiny_knn {

// What DecodeUtf8 gives for bytes that are no UTF-8: the replacement character.
inline constexpr char32_t kInvalidCodePoint = 0xFFFD;

// The code point at the start of `text` and the number of its bytes, 1 for an invalid one.
// REQUIRES: `text` is not empty.
std::pair<char32_t, size_t> DecodeUtf8(std::string_view text);

// `text` with control characters and invalid UTF-8 made visible, so that a file name or a label can
// neither break a line nor send commands to a terminal.
std::string OneLine(std::string_view text);

}  // namespace tiny_knn
