#include "gpu/emulation/ptx_parser.h"

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "gpu/emulation/ptx_cursor.h"

namespace tiny_knn::emulation {
namespace {

using Kind = PtxToken::Kind;

uint64_t RoundUp(uint64_t value, uint64_t align) { return (value + align - 1) / align * align; }

// Reads one module. Methods return false after they have failed.
class Parser : private PtxCursor {
 public:
  explicit Parser(std::span<const PtxToken> tokens) : PtxCursor(tokens) {}

  absl::StatusOr<PtxModule> Parse() {
    while (Now().kind != Kind::kEnd) {
      if (!ParseTopLevel()) return absl::InvalidArgumentError(error());
    }
    return std::move(module_);
  }

 private:
  bool ParseTopLevel() {
    const std::string_view word = Now().text;
    if (word == ".version" || word == ".target" || word == ".address_size") {
      SkipLine();
      return true;
    }
    if (word == ".file") {
      Next();
      uint64_t number = 0;
      if (!Integer(&number)) return false;
      if (Now().kind != Kind::kString) return Fail("expected the name of a file");
      module_.files[static_cast<uint32_t>(number)] = std::string(Now().text);
      SkipLine();
      return true;
    }
    if (word == ".section") {
      while (!Now().is("{")) {
        if (Now().kind == Kind::kEnd) return Fail("expected '{'");
        Next();
      }
      return SkipBraces();
    }
    if (word == ".pragma" || word == ".alias") return SkipStatement();
    if (Accept(";")) return true;
    // Linkage, then what it is.
    while (Now().is(".visible") || Now().is(".extern") || Now().is(".weak") ||
           Now().is(".common")) {
      Next();
    }
    if (Accept(".entry")) return ParseKernel();
    if (Accept(".func")) return SkipFunction();
    PtxVariable variable;
    if (!ParseVariable(&variable)) return false;
    module_.variables.push_back(std::move(variable));
    return true;
  }

  // A device function: nvcc inlines ours. A call of one is found when it is executed.
  bool SkipFunction() {
    while (!Now().is("{") && !Now().is(";")) {
      if (Now().kind == Kind::kEnd) return Fail("expected a function's body");
      Next();
    }
    return Now().is(";") ? Expect(";") : SkipBraces();
  }

  // ".shared .align 4 .b8 name[4][8] = {1, 2};", from the state space on.
  bool ParseVariable(PtxVariable* variable) {
    static const std::pair<std::string_view, StateSpace> kSpaces[] = {
        {".global", StateSpace::kGlobal},
        {".const", StateSpace::kConst},
        {".shared", StateSpace::kShared},
        {".local", StateSpace::kLocal},
        {".param", StateSpace::kParam}};
    const auto* space = std::find_if(std::begin(kSpaces), std::end(kSpaces),
                                     [&](const auto& entry) { return Now().is(entry.first); });
    if (space == std::end(kSpaces)) return Fail("expected a directive");
    Next();
    variable->space = space->second;
    PtxType type;
    uint64_t align = 0, vector = 1;
    while (Now().kind == Kind::kWord && Now().text[0] == '.') {
      const std::string_view word = Next().text;
      if (word == ".align") {
        if (!Integer(&align)) return false;
      } else if (word == ".v2" || word == ".v4") {
        vector = word == ".v2" ? 2 : 4;
      } else if (word == ".attribute") {
        while (!Accept(")")) {
          if (Now().kind == Kind::kEnd) return Fail("expected ')'");
          Next();
        }
      } else if (word != ".ptr" && !ParsePtxType(word.substr(1), &type)) {
        return Fail(fmt::format("{} is no type", word));
      }
    }
    if (type.bytes == 0 || !IsName(Now())) return Fail("expected a type and a name");
    variable->name = std::string(Next().text);
    const uint64_t element = static_cast<uint64_t>(type.total_bytes()) * vector;
    variable->align = static_cast<uint32_t>(align != 0 ? align : element);
    variable->bytes = element;
    while (Accept("[")) {
      uint64_t count = 0;
      if (!Now().is("]") && !Integer(&count)) return false;
      if (!Expect("]")) return false;
      if (count > (uint64_t{1} << 32)) return Fail("an array of this size is not supported");
      variable->bytes *= count;
    }
    if (variable->bytes > (uint64_t{1} << 32))
      return Fail("an array of this size is not supported");
    if (Accept("=") && !ParseInitializer(type, &variable->initial)) return false;
    return Expect(";");
  }

  bool ParseInitializer(PtxType type, std::vector<uint8_t>* bytes) {
    if (Accept("{")) {
      while (!Accept("}")) {
        if (!ParseInitializer(type, bytes)) return false;
        if (!Now().is("}") && !Expect(",")) return false;
      }
      return true;
    }
    uint64_t bits = 0;
    if (const std::optional<PtxOperand> number = ParseFloat(Now().text)) {
      bits = number->bits;
      Next();
    } else if (!Integer(&bits)) {
      return false;
    }
    for (int i = 0; i < type.bytes; ++i) bytes->push_back(static_cast<uint8_t>(bits >> (8 * i)));
    return true;
  }

  bool ParseKernel() {
    PtxKernel& kernel = module_.kernels.emplace_back();
    if (!IsName(Now())) return Fail("expected the kernel's name");
    kernel.name = std::string(Next().text);
    if (Accept("(")) {
      while (!Accept(")")) {
        if (!ParseParameter(&kernel)) return false;
        if (!Now().is(")") && !Expect(",")) return false;
      }
    }
    while (!Now().is("{")) {
      if (Now().is(".maxntid") || Now().is(".reqntid")) {
        Next();
        uint64_t threads = 1;
        do {
          uint64_t count = 0;
          if (!Integer(&count)) return false;
          threads *= count;
        } while (Accept(","));
        kernel.max_threads = static_cast<uint32_t>(threads);
      } else if (Now().kind == Kind::kEnd) {
        return Fail("expected the kernel's body");
      } else {
        Next();
      }
    }
    Next();
    scopes_.assign(1, {});
    source_file_ = source_line_ = 0;
    while (!scopes_.empty()) {
      if (!ParseStatement(&kernel)) return false;
    }
    return true;
  }

  // ".param .u64 .ptr .global .align 8 name" or ".param .align 8 .b8 name[24]".
  bool ParseParameter(PtxKernel* kernel) {
    if (!Expect(".param")) return false;
    PtxType type;
    uint64_t align = 0;
    bool pointer = false;
    while (Now().kind == Kind::kWord && Now().text[0] == '.') {
      const std::string_view word = Next().text;
      PtxType named;
      if (word == ".align") {
        uint64_t value = 0;
        if (!Integer(&value)) return false;
        // After .ptr it is the alignment of what is pointed to.
        if (!pointer) align = value;
      } else if (word == ".ptr") {
        pointer = true;
      } else if (ParsePtxType(word.substr(1), &named)) {
        type = named;
      }
    }
    if (type.bytes == 0 || !IsName(Now())) return Fail("expected a parameter's type and name");
    PtxParameter parameter{.name = std::string(Next().text),
                           .bytes = static_cast<uint32_t>(type.total_bytes())};
    if (Accept("[")) {
      uint64_t count = 0;
      if (!Integer(&count) || !Expect("]")) return false;
      parameter.bytes *= static_cast<uint32_t>(count);
    }
    if (align == 0) align = static_cast<uint64_t>(type.total_bytes());
    parameter.offset = static_cast<uint32_t>(RoundUp(kernel->parameter_bytes, align));
    kernel->parameter_bytes = parameter.offset + parameter.bytes;
    kernel->parameters.push_back(std::move(parameter));
    return true;
  }

  bool ParseStatement(PtxKernel* kernel) {
    if (Now().kind == Kind::kEnd) return Fail("the kernel's body does not end");
    if (Accept(";")) return true;
    if (Accept("{")) {
      scopes_.emplace_back();
      return true;
    }
    if (Accept("}")) {
      scopes_.pop_back();
      return true;
    }
    const std::string_view word = Now().text;
    if (word == ".loc") return ParseLocation();
    if (word == ".reg") return ParseRegisters(kernel);
    if (word == ".pragma") return SkipStatement();
    if (word == ".param") return SkipStatement();  // of a call
    if (word == ".shared" || word == ".local" || word == ".extern" || word == ".global" ||
        word == ".const") {
      Accept(".extern");
      PtxVariable variable;
      if (!ParseVariable(&variable)) return false;
      const bool of_kernel =
          variable.space == StateSpace::kShared || variable.space == StateSpace::kLocal;
      (of_kernel ? kernel->variables : module_.variables).push_back(std::move(variable));
      return true;
    }
    if (IsName(Now()) && Following().is(":")) {
      std::string label(Next().text);
      Next();
      if (Accept(".branchtargets")) {
        std::vector<std::string>& targets = kernel->branch_targets[label];
        do {
          targets.emplace_back(Next().text);
        } while (Accept(","));
        return Expect(";");
      }
      if (Now().is(".callprototype") || Now().is(".calltargets")) return SkipStatement();
      const auto index = static_cast<uint32_t>(kernel->code.size());
      if (!kernel->labels.emplace(std::move(label), index).second) {
        return Fail("a label stands twice");
      }
      return true;
    }
    return ParseInstruction(kernel);
  }

  // ".loc file line column[, function_name label, inlined_at file line column]".
  bool ParseLocation() {
    const uint32_t line = Now().line;
    Next();
    uint64_t file = 0, source_line = 0;
    if (!Integer(&file) || !Integer(&source_line)) return false;
    source_file_ = static_cast<uint32_t>(file);
    source_line_ = static_cast<uint32_t>(source_line);
    if (Now().line == line) SkipLine();
    return true;
  }

  bool ParseRegisters(PtxKernel* kernel) {
    Next();
    PtxType type;
    if (Now().kind != Kind::kWord || !ParsePtxType(Now().text.substr(1), &type)) {
      return Fail("expected a register's type");
    }
    Next();
    do {
      if (!IsName(Now()) && !Now().text.starts_with("%")) return Fail("expected a register's name");
      const std::string name(Next().text);
      if (Accept("<")) {
        uint64_t count = 0;
        if (!Integer(&count) || count > 1'000'000 || !Expect(">")) return Fail("expected a count");
        for (uint64_t i = 0; i < count; ++i) Declare(kernel, name + std::to_string(i), type);
      } else {
        Declare(kernel, name, type);
      }
    } while (Accept(","));
    return Expect(";");
  }

  void Declare(PtxKernel* kernel, const std::string& name, PtxType type) {
    scopes_.back()[name] = static_cast<uint32_t>(kernel->registers.size());
    kernel->registers.push_back(type);
  }

  std::optional<uint32_t> Register(const std::string& name) const {
    std::optional<uint32_t> innermost;
    for (const auto& scope : scopes_) {
      if (const auto found = scope.find(name); found != scope.end()) innermost = found->second;
    }
    return innermost;
  }

  bool ParseInstruction(PtxKernel* kernel) {
    PtxInstruction instruction;
    instruction.line = Now().line;
    instruction.source_file = source_file_;
    instruction.source_line = source_line_;
    if (Accept("@")) {
      instruction.predicated = true;
      instruction.predicate_negated = Accept("!");
      const std::optional<uint32_t> predicate = Register(std::string(Now().text));
      if (!predicate || kernel->registers[*predicate].kind != TypeKind::kPredicate) {
        return Fail("expected a predicate register");
      }
      instruction.predicate = *predicate;
      Next();
    }
    if (!IsName(Now()) || Now().text[0] == '%') return Fail("expected an instruction");
    std::string_view rest = Next().text;
    size_t dot = rest.find('.');
    instruction.opcode = std::string(rest.substr(0, dot));
    while (dot != std::string_view::npos) {
      rest.remove_prefix(dot + 1);
      dot = rest.find('.');
      instruction.modifiers.emplace_back(rest.substr(0, dot));
    }
    while (!Accept(";")) {
      PtxOperand operand;
      if (!ParseOperand(&operand)) return false;
      // "d|p" is one operand of two.
      if (Now().is("|")) {
        PtxOperand pair;
        pair.kind = PtxOperand::Kind::kList;
        pair.list.push_back(std::move(operand));
        while (Accept("|")) {
          if (!ParseOperand(&pair.list.emplace_back())) return false;
        }
        operand = std::move(pair);
      }
      instruction.operands.push_back(std::move(operand));
      if (!Now().is(";") && !Expect(",")) return false;
    }
    kernel->code.push_back(std::move(instruction));
    return true;
  }

  bool ParseOperand(PtxOperand* operand) {
    for (const auto& [open, close] : {std::pair("{", "}"), std::pair("(", ")")}) {
      if (!Accept(open)) continue;
      operand->kind = PtxOperand::Kind::kList;
      while (!Accept(close)) {
        if (!ParseOperand(&operand->list.emplace_back())) return false;
        if (!Now().is(close) && !Expect(",")) return false;
      }
      return true;
    }
    if (Accept("[")) return ParseAddress(operand);
    if (Accept("!")) operand->negated = true;
    if (Now().kind == Kind::kWord && Now().text == "_") {
      operand->kind = PtxOperand::Kind::kDiscarded;
      Next();
      return true;
    }
    if (IsName(Now())) {
      operand->name = std::string(Next().text);
      operand->kind = PtxOperand::Kind::kName;
      if (const std::optional<uint32_t> index = Register(operand->name)) {
        operand->kind = PtxOperand::Kind::kRegister;
        operand->index = *index;
      } else if (Accept("+")) {  // variable+8
        uint64_t offset = 0;
        if (!Integer(&offset)) return false;
        operand->offset = static_cast<int64_t>(offset);
      }
      return true;
    }
    if (const std::optional<PtxOperand> number = ParseFloat(Now().text)) {
      *operand = *number;
      Next();
      return true;
    }
    return Integer(&operand->bits);
  }

  // What follows "[": base, base+offset, base-offset, offset.
  bool ParseAddress(PtxOperand* operand) {
    operand->kind = PtxOperand::Kind::kAddress;
    uint64_t offset = 0;
    if (IsName(Now())) {
      operand->name = std::string(Next().text);
      if (const std::optional<uint32_t> index = Register(operand->name)) {
        operand->based = true;
        operand->index = *index;
      }
      if (Accept("+")) {
        if (!Integer(&offset)) return false;
      } else if (Now().is("-") && !Integer(&offset)) {
        return false;
      }
    } else if (!Integer(&offset)) {
      return false;
    }
    operand->offset = static_cast<int64_t>(offset);
    return Expect("]");
  }

  PtxModule module_;
  std::vector<std::unordered_map<std::string, uint32_t>> scopes_;
  uint32_t source_file_ = 0, source_line_ = 0;
};

}  // namespace

absl::StatusOr<PtxModule> ParsePtx(const std::string& text) {
  const absl::StatusOr<std::vector<PtxToken>> tokens = PtxTokens(text);
  if (!tokens.ok()) return tokens.status();
  absl::StatusOr<PtxModule> module = Parser(*tokens).Parse();
  if (!module.ok()) return module;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    module->lines.emplace_back(text, begin, end - begin);
    begin = end + 1;
  }
  return module;
}

}  // namespace tiny_knn::emulation
