#include "gpu/emulation/ptx_lexer.h"

#include <cctype>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace tiny_knn::emulation {
namespace {

bool IsWordCharacter(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '$' || c == '%' ||
         c == '.';
}

}  // namespace

absl::StatusOr<std::vector<PtxToken>> PtxTokens(std::string_view text) {
  std::vector<PtxToken> tokens;
  uint32_t line = 1;
  size_t at = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '\n') ++line;
    if (std::isspace(static_cast<unsigned char>(c)) != 0) {
      ++at;
    } else if (text.substr(at, 2) == "//") {
      while (at < text.size() && text[at] != '\n') ++at;
    } else if (text.substr(at, 2) == "/*") {
      const uint32_t begin = line;
      const size_t end = text.find("*/", at + 2);
      if (end == std::string_view::npos) {
        return absl::InvalidArgumentError(
            fmt::format("PTX line {}: a comment does not end", begin));
      }
      for (; at < end + 2; ++at) line += text[at] == '\n';
    } else if (c == '"') {
      const size_t end = text.find_first_of("\"\n", at + 1);
      if (end == std::string_view::npos || text[end] == '\n') {
        return absl::InvalidArgumentError(fmt::format("PTX line {}: a string does not end", line));
      }
      tokens.push_back({PtxToken::Kind::kString, text.substr(at + 1, end - at - 1), line});
      at = end + 1;
    } else if (IsWordCharacter(c)) {
      size_t end = at;
      // "::" belongs to a modifier (.shared::cta), ":" alone follows a label.
      while (end < text.size() && (IsWordCharacter(text[end]) || text.substr(end, 2) == "::")) {
        end += text[end] == ':' ? 2 : 1;
      }
      tokens.push_back({PtxToken::Kind::kWord, text.substr(at, end - at), line});
      at = end;
    } else {
      tokens.push_back({PtxToken::Kind::kMark, text.substr(at, 1), line});
      ++at;
    }
  }
  tokens.push_back({PtxToken::Kind::kEnd, {}, line});
  return tokens;
}

}  // namespace tiny_knn::emulation
