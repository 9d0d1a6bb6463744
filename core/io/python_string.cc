#include "core/io/python_string.h"

#include <cstdint>

namespace tiny_knn {
namespace {

uint8_t At(std::string_view text, size_t i) {
  return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0};
}

bool IsContinuation(uint8_t byte) { return (byte & 0xC0) == 0x80; }

// Bytes of the well-formed UTF-8 sequence at `i` (Unicode, table 3-7), or 0.
size_t SequenceLength(std::string_view text, size_t i) {
  const uint8_t a = At(text, i);
  const uint8_t b = At(text, i + 1);
  if (a < 0x80) return 1;
  if (a < 0xC2 || a > 0xF4 || !IsContinuation(b)) return 0;
  if (a < 0xE0) return 2;
  if (!IsContinuation(At(text, i + 2))) return 0;
  if (a < 0xF0) {
    const bool overlong = a == 0xE0 && b < 0xA0;
    const bool surrogate = a == 0xED && b > 0x9F;
    return overlong || surrogate ? 0 : 3;
  }
  if (!IsContinuation(At(text, i + 3))) return 0;
  const bool overlong = a == 0xF0 && b < 0x90;
  const bool beyond = a == 0xF4 && b > 0x8F;
  return overlong || beyond ? 0 : 4;
}

}  // namespace

std::string FileNameToPythonUtf8(std::string_view name) {
  std::string out;
  out.reserve(name.size());
  for (size_t i = 0; i < name.size();) {
    const size_t length = SequenceLength(name, i);
    if (length > 0) {
      out += name.substr(i, length);
      i += length;
      continue;
    }
    const uint8_t byte = At(name, i++);  // 0x80 or above: U+DC80 to U+DCFF
    out += '\xED';
    out += static_cast<char>(0xB0 | byte >> 6);
    out += static_cast<char>(0x80 | (byte & 0x3F));
  }
  return out;
}

std::string PythonUtf8ToFileName(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const uint8_t second = At(text, i + 1);
    const uint8_t third = At(text, i + 2);
    if (At(text, i) == 0xED && (second == 0xB2 || second == 0xB3) && IsContinuation(third)) {
      out += static_cast<char>((second & 0x03) << 6 | (third & 0x3F));
      i += 3;
    } else {
      out += text[i++];
    }
  }
  return out;
}

}  // namespace tiny_knn
