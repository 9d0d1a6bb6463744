// A place in a text's tokens, and what can be read there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "gpu/emulation/ptx_lexer.h"
#include "gpu/emulation/ptx_program.h"

namespace tiny_knn::emulation {

// Whether a token is a name: of a variable, an instruction, a register.
bool IsName(const PtxToken& token);

// The value of 0fXXXXXXXX or 0dXXXXXXXXXXXXXXXX; nothing for any other word.
std::optional<PtxOperand> ParseFloat(std::string_view word);

class PtxCursor {
 public:
  // `tokens` ends in one of kEnd, and outlives the cursor.
  explicit PtxCursor(std::span<const PtxToken> tokens) : tokens_(tokens) {}

  const PtxToken& Now() const { return tokens_[at_]; }
  const PtxToken& Following() const { return tokens_[IsAtEnd() ? at_ : at_ + 1]; }
  bool IsAtEnd() const { return Now().kind == PtxToken::Kind::kEnd; }
  // Steps on; returns what was there.
  const PtxToken& Next() { return tokens_[IsAtEnd() ? at_ : at_++]; }
  // Steps over `mark` if it is there.
  bool Accept(std::string_view mark);

  // These return false after Fail().
  bool Expect(std::string_view mark);
  bool Integer(uint64_t* value);
  bool SkipStatement();  // to behind the next ';'
  bool SkipBraces();     // from "{" to behind its "}"
  void SkipLine();

  // Notes the first error, with the line and what was found; returns false.
  bool Fail(std::string_view what);
  const std::string& error() const { return error_; }

 private:
  std::span<const PtxToken> tokens_;
  size_t at_ = 0;
  std::string error_;
};

}  // namespace tiny_knn::emulation
