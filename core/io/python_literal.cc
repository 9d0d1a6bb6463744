#include "core/io/python_literal.h"

#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

bool IsSpace(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// A byte for an error message: printable ASCII as itself, anything else by number.
std::string Shown(char c) {
  if (c >= ' ' && c <= '~') return fmt::format("'{}'", c);
  return fmt::format("byte 0x{:02x}", static_cast<unsigned char>(c));
}

void AppendUtf8(uint32_t code, std::string& out) {
  auto put = [&out](uint32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

// Recursive descent; every method starts at the first character of what it parses.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  absl::StatusOr<PythonLiteral> ParseAll() {
    SkipSpace();
    PythonLiteral literal;
    absl::Status status = ParseValue(0, literal);
    if (!status.ok()) return status;
    SkipSpace();
    if (position_ < text_.size()) return Unexpected("the end of the header");
    return literal;
  }

 private:
  using Kind = PythonLiteral::Kind;

  char Peek(size_t ahead = 0) const {
    return position_ + ahead < text_.size() ? text_[position_ + ahead] : '\0';
  }
  bool AtEnd() const { return position_ >= text_.size(); }
  void SkipSpace() {
    while (!AtEnd() && IsSpace(text_[position_])) ++position_;
  }
  bool Accept(char c) {
    if (AtEnd() || text_[position_] != c) return false;
    ++position_;
    return true;
  }

  absl::Status Error(std::string_view what) const {
    return absl::InvalidArgumentError(fmt::format("{} at character {}", what, position_));
  }
  absl::Status Unexpected(std::string_view expected) const {
    return Error(
        fmt::format("found {}, expected {},", AtEnd() ? "the end" : Shown(Peek()), expected));
  }

  absl::Status ParseValue(int depth, PythonLiteral& out) {
    if (depth > kMaxPythonLiteralDepth) return Error("brackets are nested too deeply");
    const char c = Peek();
    if (c == '\'' || c == '"') return ParseString(false, out);
    if ((c == 'u' || c == 'U' || c == 'b' || c == 'B') && (Peek(1) == '\'' || Peek(1) == '"')) {
      ++position_;
      return ParseString(c == 'b' || c == 'B', out);
    }
    if (IsDigit(c) || c == '-' || c == '+') return ParseInt(out);
    if (IsNameStart(c)) return ParseName(out);
    if (c == '(' || c == '[') return ParseSequence(depth, out);
    if (c == '{') return ParseDict(depth, out);
    return Unexpected("a Python literal");
  }

  absl::Status ParseName(PythonLiteral& out) {
    const size_t start = position_;
    while (IsNameStart(Peek()) || IsDigit(Peek())) ++position_;
    const std::string_view name = text_.substr(start, position_ - start);
    if (name == "True" || name == "False") {
      out.kind = Kind::kBool;
      out.number = name == "True" ? 1 : 0;
      return absl::OkStatus();
    }
    if (name == "None") return absl::OkStatus();
    position_ = start;
    return Error(
        fmt::format("found the name '{}', expected a Python literal,", name.substr(0, 40)));
  }

  absl::Status ParseInt(PythonLiteral& out) {
    const size_t start = position_;
    const bool negative = Peek() == '-';
    if (negative || Peek() == '+') ++position_;
    if (!IsDigit(Peek())) return Unexpected("a digit");
    const size_t first_digit = position_;
    uint64_t magnitude = 0;
    const uint64_t limit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) + negative;
    while (IsDigit(Peek())) {
      const auto digit = static_cast<uint64_t>(Peek() - '0');
      if (magnitude > (limit - digit) / 10) out.int_overflow = true;
      if (!out.int_overflow) magnitude = magnitude * 10 + digit;
      ++position_;
    }
    if (text_[first_digit] == '0' && position_ - first_digit > 1) {
      position_ = start;
      return Error("found an int with a leading zero");
    }
    out.kind = Kind::kInt;
    if (out.int_overflow) {
      out.text = std::string(text_.substr(start, position_ - start));
    } else {
      out.number = static_cast<int64_t>(negative ? uint64_t{0} - magnitude : magnitude);
    }
    if (Peek() == 'L' || Peek() == 'l') ++position_;
    if (Peek() == '.' || IsNameStart(Peek())) return Unexpected("the end of an int");
    return absl::OkStatus();
  }

  absl::Status ParseString(bool bytes, PythonLiteral& out) {
    out.kind = Kind::kString;
    const char quote = text_[position_++];
    while (true) {
      if (AtEnd() || Peek() == '\n' || Peek() == '\r') return Unexpected("a closing quote");
      const char c = text_[position_++];
      if (c == quote) return absl::OkStatus();
      if (c != '\\') {
        out.text += c;
      } else {
        absl::Status status = ParseEscape(bytes, out.text);
        if (!status.ok()) return status;
      }
    }
  }

  // After the backslash.
  absl::Status ParseEscape(bool bytes, std::string& out) {
    if (AtEnd()) return Unexpected("a closing quote");
    const char c = text_[position_++];
    static constexpr std::string_view kFrom = "\\'\"abfnrtv";
    static constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
    if (const size_t i = kFrom.find(c); i != std::string_view::npos) {
      out += kTo[i];
      return absl::OkStatus();
    }
    if (c == '\n') return absl::OkStatus();  // a continued line
    if (c >= '0' && c <= '7') {
      auto code = static_cast<uint32_t>(c - '0');
      for (int i = 0; i < 2 && Peek() >= '0' && Peek() <= '7'; ++i) {
        code = code * 8 + static_cast<uint32_t>(text_[position_++] - '0');
      }
      AppendCode(bytes, code, out);
      return absl::OkStatus();
    }
    if (c == 'x') return ParseHexEscape(2, bytes, out);
    if (!bytes && c == 'u') return ParseHexEscape(4, bytes, out);
    if (!bytes && c == 'U') return ParseHexEscape(8, bytes, out);
    if (!bytes && c == 'N') return Error("found the escape \\N, which is not supported,");
    out += '\\';  // Python keeps the backslash of an escape it does not know
    out += c;
    return absl::OkStatus();
  }

  absl::Status ParseHexEscape(int digits, bool bytes, std::string& out) {
    uint32_t code = 0;
    for (int i = 0; i < digits; ++i) {
      const char c = Peek();
      if (IsDigit(c)) {
        code = code * 16 + static_cast<uint32_t>(c - '0');
      } else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) {
        code = code * 16 + static_cast<uint32_t>((c | 0x20) - 'a' + 10);
      } else {
        return Unexpected("a hexadecimal digit");
      }
      ++position_;
    }
    if (code > 0x10FFFF) return Error("found an escape beyond Unicode");
    AppendCode(bytes, code, out);
    return absl::OkStatus();
  }

  static void AppendCode(bool bytes, uint32_t code, std::string& out) {
    if (bytes) {
      out += static_cast<char>(code & 0xFF);
    } else {
      AppendUtf8(code, out);
    }
  }

  // A tuple, a list, or a value in parentheses (which is that value).
  absl::Status ParseSequence(int depth, PythonLiteral& out) {
    const bool list = text_[position_++] == '[';
    const char close = list ? ']' : ')';
    bool comma = false;
    while (true) {
      SkipSpace();
      if (Accept(close)) break;
      if (!out.items.empty() && !comma) {
        return Unexpected(list ? "',' or ']'" : "',' or ')'");
      }
      absl::Status status = ParseValue(depth + 1, out.items.emplace_back());
      if (!status.ok()) return status;
      SkipSpace();
      comma = Accept(',');
    }
    if (!list && out.items.size() == 1 && !comma) {
      PythonLiteral only = std::move(out.items[0]);
      out = std::move(only);
      return absl::OkStatus();
    }
    out.kind = list ? Kind::kList : Kind::kTuple;
    return absl::OkStatus();
  }

  absl::Status ParseDict(int depth, PythonLiteral& out) {
    ++position_;
    out.kind = Kind::kDict;
    bool comma = false;
    while (true) {
      SkipSpace();
      if (Accept('}')) return absl::OkStatus();
      if (!out.items.empty() && !comma) return Unexpected("',' or '}'");
      absl::Status status = ParseValue(depth + 1, out.items.emplace_back());
      if (!status.ok()) return status;
      SkipSpace();
      if (!Accept(':')) return Unexpected("':'");
      SkipSpace();
      status = ParseValue(depth + 1, out.items.emplace_back());
      if (!status.ok()) return status;
      SkipSpace();
      comma = Accept(',');
    }
  }

  std::string_view text_;
  size_t position_ = 0;
};

}  // namespace

std::string_view PythonLiteralKindName(PythonLiteral::Kind kind) {
  switch (kind) {
    case PythonLiteral::Kind::kString:
      return "a string";
    case PythonLiteral::Kind::kInt:
      return "an int";
    case PythonLiteral::Kind::kBool:
      return "a bool";
    case PythonLiteral::Kind::kNone:
      return "None";
    case PythonLiteral::Kind::kTuple:
      return "a tuple";
    case PythonLiteral::Kind::kList:
      return "a list";
    case PythonLiteral::Kind::kDict:
      return "a dict";
  }
  return "an unknown literal";
}

absl::StatusOr<PythonLiteral> ParsePythonLiteral(std::string_view text) {
  return Parser(text).ParseAll();
}

}  // namespace tiny_knn
