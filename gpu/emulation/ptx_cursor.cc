#include "gpu/emulation/ptx_cursor.h"

#include <charconv>

#include "fmt/format.h"

namespace tiny_knn::emulation {
namespace {

std::optional<uint64_t> ParseInteger(std::string_view word) {
  if (!word.empty() && word.back() == 'U') word.remove_suffix(1);
  int base = 10;
  if (word.starts_with("0x") || word.starts_with("0X")) {
    base = 16;
  } else if (word.starts_with("0b") || word.starts_with("0B")) {
    base = 2;
  }
  if (base != 10) word.remove_prefix(2);
  if (base == 10 && word.size() > 1 && word[0] == '0') base = 8;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, base);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

}  // namespace

bool IsName(const PtxToken& token) {
  return token.kind == PtxToken::Kind::kWord && token.text[0] != '.' &&
         (token.text[0] < '0' || token.text[0] > '9');
}

std::optional<PtxOperand> ParseFloat(std::string_view word) {
  const bool wide = word.starts_with("0d") || word.starts_with("0D");
  if (!wide && !word.starts_with("0f") && !word.starts_with("0F")) return std::nullopt;
  if (word.size() != (wide ? 18 : 10)) return std::nullopt;
  PtxOperand operand;
  operand.kind = wide ? PtxOperand::Kind::kFloat64 : PtxOperand::Kind::kFloat32;
  const auto [end, error] =
      std::from_chars(word.data() + 2, word.data() + word.size(), operand.bits, 16);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return operand;
}

bool PtxCursor::Accept(std::string_view mark) {
  if (!Now().is(mark)) return false;
  Next();
  return true;
}

bool PtxCursor::Expect(std::string_view mark) {
  return Accept(mark) || Fail(fmt::format("expected '{}'", mark));
}

bool PtxCursor::Fail(std::string_view what) {
  if (error_.empty()) {
    error_ = fmt::format("PTX line {}: {}, found '{}'", Now().line, what, Now().text);
  }
  return false;
}

void PtxCursor::SkipLine() {
  const uint32_t line = Now().line;
  while (!IsAtEnd() && Now().line == line) Next();
}

bool PtxCursor::SkipStatement() {
  while (!Accept(";")) {
    if (IsAtEnd()) return Fail("expected ';'");
    Next();
  }
  return true;
}

bool PtxCursor::SkipBraces() {
  if (!Expect("{")) return false;
  for (int depth = 1; depth > 0;) {
    if (IsAtEnd()) return Fail("expected '}'");
    depth += Now().is("{") - Now().is("}");
    Next();
  }
  return true;
}

bool PtxCursor::Integer(uint64_t* value) {
  const bool negative = Accept("-");
  const std::optional<uint64_t> parsed = ParseInteger(Now().text);
  if (Now().kind != PtxToken::Kind::kWord || !parsed) return Fail("expected an integer");
  Next();
  *value = negative ? -*parsed : *parsed;
  return true;
}

}  // namespace tiny_knn::emulation
