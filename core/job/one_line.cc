#include "core/job/one_line.h"

#include <cstdint>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

bool IsControl(char32_t code) {
  // C0, DEL, C1, line and paragraph separators, and the marks that reorder text.
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || (code >= 0x2028 && code <= 0x202E) ||
         (code >= 0x2066 && code <= 0x2069);
}

}  // namespace

std::pair<char32_t, size_t> DecodeUtf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {first, 1};
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < length) return {kInvalidCodePoint, 1};
  char32_t code = first & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {kInvalidCodePoint, 1};
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  constexpr char32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kLeast[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
    return {kInvalidCodePoint, 1};
  }
  return {code, length};
}

std::string OneLine(std::string_view text) {
  std::string line;
  while (!text.empty()) {
    const auto [code, length] = DecodeUtf8(text);
    if (code == kInvalidCodePoint) {
      line += "\uFFFD";
    } else if (IsControl(code)) {
      line += code < 0x100 ? fmt::format("\\x{:02x}", static_cast<uint32_t>(code))
                           : fmt::format("\\u{:04x}", static_cast<uint32_t>(code));
    } else {
      line += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
  return line;
}

}  // namespace tiny_knn
