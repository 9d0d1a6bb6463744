#include "core/io/pickle_machine.h"

#include <bit>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/io/pickle_objects.h"
#include "core/io/pickle_value.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Kind = PickleValue::Kind;

class Machine {
 public:
  explicit Machine(std::span<const uint8_t> input) : input_(input), owned_budget_(input.size()) {}

  absl::StatusOr<PickleDocument> Run() {
    if (input_.size() < 2 || input_[0] != 0x80) {
      return absl::InvalidArgumentError("is not a pickle of protocol 2 or later");
    }
    for (int count = 0; count < kMaxPickleOpcodes; ++count) {
      opcode_at_ = position_;
      const std::optional<uint64_t> opcode = Number(1);
      if (!opcode.has_value()) return Error("the pickle ends without STOP");
      if (*opcode == '.') return Finish();
      absl::Status status = Step(static_cast<uint8_t>(*opcode));
      if (!status.ok()) return status;
    }
    return Error(fmt::format("the pickle has more than {} opcodes", kMaxPickleOpcodes));
  }

 private:
  absl::Status Error(std::string_view what) const {
    return absl::InvalidArgumentError(fmt::format("{} (pickle byte {})", what, opcode_at_));
  }

  // The next `bytes` bytes as a little-endian number, or nothing at the end of the input.
  std::optional<uint64_t> Number(size_t bytes) {
    if (input_.size() - position_ < bytes) return std::nullopt;
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value |= uint64_t{input_[position_ + i]} << (8 * i);
    position_ += bytes;
    return value;
  }

  std::optional<std::string_view> Bytes(uint64_t size) {
    if (input_.size() - position_ < size) return std::nullopt;
    const auto* data = reinterpret_cast<const char*>(input_.data()) + position_;
    position_ += size;
    return std::string_view(data, size);
  }

  std::optional<std::string_view> Line() {
    size_t end = position_;
    while (end < input_.size() && input_[end] != '\n') ++end;
    if (end == input_.size()) return std::nullopt;
    const auto line = Bytes(end - position_);
    ++position_;
    return line;
  }

  PickleValue& Value(int32_t index) { return document_.values[static_cast<size_t>(index)]; }

  absl::Status Push(PickleValue value) {
    stack_.push_back(static_cast<int32_t>(document_.values.size()));
    document_.values.push_back(std::move(value));
    return absl::OkStatus();
  }
  absl::Status PushNumber(Kind kind, int64_t number) {
    PickleValue value;
    value.kind = kind;
    value.number = number;
    return Push(std::move(value));
  }

  // Values on the stack above the last mark.
  size_t Available() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }
  absl::Status Need(size_t count) const {
    return Available() >= count ? absl::OkStatus() : Error("the pickle's stack is empty");
  }

  // Takes the values above the last mark, and the mark.
  absl::StatusOr<std::vector<int32_t>> PopMarked() {
    if (marks_.empty()) return Error("the pickle has no mark");
    const auto from = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<int32_t> items(from, stack_.end());
    stack_.erase(from, stack_.end());
    marks_.pop_back();
    return items;
  }

  absl::Status PushItems(Kind kind, std::vector<int32_t> items) {
    PickleValue value;
    value.kind = kind;
    value.items = std::move(items);
    return Push(std::move(value));
  }

  absl::Status PushTopTuple(size_t count) {
    absl::Status status = Need(count);
    if (!status.ok()) return status;
    const auto from = stack_.end() - static_cast<std::ptrdiff_t>(count);
    std::vector<int32_t> items(from, stack_.end());
    stack_.erase(from, stack_.end());
    return PushItems(Kind::kTuple, std::move(items));
  }

  absl::Status PushCounted(Kind kind, size_t size_bytes) {
    const std::optional<uint64_t> size = Number(size_bytes);
    const auto text = size.has_value() ? Bytes(*size) : std::nullopt;
    if (!text.has_value()) return Error("the file is truncated");
    PickleValue value;
    value.kind = kind;
    value.text = *text;
    return Push(std::move(value));
  }

  absl::Status PushLong() {
    const std::optional<uint64_t> size = Number(1);
    if (!size.has_value()) return Error("the file is truncated");
    if (*size > 8) return Error("found an int beyond 64 bits");
    const std::optional<uint64_t> bits = Number(*size);
    if (!bits.has_value()) return Error("the file is truncated");
    const int unused = 64 - 8 * static_cast<int>(*size);
    if (unused == 64) return PushNumber(Kind::kInt, 0);
    return PushNumber(Kind::kInt, static_cast<int64_t>(*bits << unused) >> unused);
  }

  absl::Status PushFloat() {
    const std::optional<uint64_t> bits = Number(8);
    if (!bits.has_value()) return Error("the file is truncated");
    PickleValue value;
    value.kind = Kind::kFloat;
    value.real = std::bit_cast<double>(__builtin_bswap64(*bits));  // big-endian, alone in pickle
    return Push(std::move(value));
  }

  absl::Status PushGlobal(std::string_view module, std::string_view name) {
    const std::optional<PickleCallable> callable = FindPickleCallable(module, name);
    if (!callable.has_value()) {
      return Error(fmt::format("found {}.{}, expected only numpy arrays, strings and numbers",
                               ShownPickleText(module), ShownPickleText(name)));
    }
    PickleValue value;
    value.kind = Kind::kGlobal;
    value.callable = *callable;
    return Push(std::move(value));
  }

  absl::Status Get(size_t index_bytes) {
    const std::optional<uint64_t> index = Number(index_bytes);
    if (!index.has_value()) return Error("the file is truncated");
    const auto found = memo_.find(*index);
    if (found == memo_.end()) return Error("the pickle refers to nothing");
    stack_.push_back(found->second);
    return absl::OkStatus();
  }

  absl::Status Put(std::optional<uint64_t> index) {
    absl::Status status = Need(1);
    if (!status.ok()) return status;
    if (!index.has_value()) return Error("the file is truncated");
    memo_[*index] = stack_.back();
    return absl::OkStatus();
  }

  absl::Status PushInt(size_t bytes) {
    const std::optional<uint64_t> bits = Number(bytes);
    if (!bits.has_value()) return Error("the file is truncated");
    // Only the 4-byte one is signed.
    return PushNumber(Kind::kInt,
                      bytes == 4 ? static_cast<int32_t>(*bits) : static_cast<int64_t>(*bits));
  }

  absl::Status Extend(Kind kind, std::vector<int32_t> items) {
    absl::Status status = Need(1);
    if (!status.ok()) return status;
    PickleValue& target = Value(stack_.back());
    if (target.kind != kind || (kind == Kind::kDict && items.size() % 2 != 0)) {
      return Error(fmt::format("the pickle adds items to {}", PickleKindName(target.kind)));
    }
    target.items.insert(target.items.end(), items.begin(), items.end());
    return absl::OkStatus();
  }

  absl::Status ExtendTop(Kind kind, size_t count) {
    absl::Status status = Need(count + 1);
    if (!status.ok()) return status;
    const auto from = stack_.end() - static_cast<std::ptrdiff_t>(count);
    std::vector<int32_t> items(from, stack_.end());
    stack_.erase(from, stack_.end());
    return Extend(kind, std::move(items));
  }

  absl::Status ExtendMarked(Kind kind) {
    absl::StatusOr<std::vector<int32_t>> items = PopMarked();
    if (!items.ok()) return items.status();
    return Extend(kind, *std::move(items));
  }

  absl::Status Step(uint8_t opcode);
  absl::Status Reduce();
  absl::Status Build();
  absl::StatusOr<PickleDocument> Finish();

  std::span<const uint8_t> input_;
  size_t position_ = 0;
  size_t opcode_at_ = 0;
  std::vector<int32_t> stack_;
  std::vector<size_t> marks_;  // heights of the stack
  std::map<uint64_t, int32_t> memo_;
  size_t owned_budget_;  // bytes that may still be decoded: in all, as many as the input has
  PickleDocument document_;
};

absl::Status Machine::Step(uint8_t opcode) {
  switch (opcode) {
    case 0x80: {  // PROTO
      const std::optional<uint64_t> version = Number(1);
      if (version.has_value() && *version >= 2 && *version <= 5) return absl::OkStatus();
      return Error("found an unknown pickle protocol, expected 2 to 5");
    }
    case 0x95:  // FRAME
      return Number(8).has_value() ? absl::OkStatus() : Error("the file is truncated");
    case '(':  // MARK
      marks_.push_back(stack_.size());
      return absl::OkStatus();
    case '0': {  // POP
      if (Available() == 0) return Error("the pickle's stack is empty");
      stack_.pop_back();
      return absl::OkStatus();
    }
    case '1':  // POP_MARK
      return PopMarked().status();
    case 'N':
      return Push({});
    case 0x88:
      return PushNumber(Kind::kBool, 1);
    case 0x89:
      return PushNumber(Kind::kBool, 0);
    case 'K':  // BININT1, BININT2, BININT
      return PushInt(1);
    case 'M':
      return PushInt(2);
    case 'J':
      return PushInt(4);
    case 0x8a:  // LONG1
      return PushLong();
    case 'G':
      return PushFloat();
    case 0x8c:  // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
      return PushCounted(Kind::kText, 1);
    case 'X':
      return PushCounted(Kind::kText, 4);
    case 0x8d:
      return PushCounted(Kind::kText, 8);
    case 'C':  // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
      return PushCounted(Kind::kBytes, 1);
    case 'B':
      return PushCounted(Kind::kBytes, 4);
    case 0x8e:
    case 0x96:
      return PushCounted(Kind::kBytes, 8);
    case 0x97:  // NEXT_BUFFER
      return Error("the pickle keeps its arrays outside the file");
    case 0x98:  // READONLY_BUFFER
      return absl::OkStatus();
    case ')':
      return PushItems(Kind::kTuple, {});
    case 0x85:
      return PushTopTuple(1);
    case 0x86:
      return PushTopTuple(2);
    case 0x87:
      return PushTopTuple(3);
    case 't': {
      absl::StatusOr<std::vector<int32_t>> items = PopMarked();
      if (!items.ok()) return items.status();
      return PushItems(Kind::kTuple, *std::move(items));
    }
    case ']':
      return PushItems(Kind::kList, {});
    case 'a':  // APPEND, APPENDS
      return ExtendTop(Kind::kList, 1);
    case 'e':
      return ExtendMarked(Kind::kList);
    case '}':
      return PushItems(Kind::kDict, {});
    case 's':  // SETITEM, SETITEMS
      return ExtendTop(Kind::kDict, 2);
    case 'u':
      return ExtendMarked(Kind::kDict);
    case 'd': {  // DICT
      absl::StatusOr<std::vector<int32_t>> items = PopMarked();
      if (!items.ok()) return items.status();
      absl::Status status = PushItems(Kind::kDict, {});
      return status.ok() ? Extend(Kind::kDict, *std::move(items)) : status;
    }
    case 0x94:  // MEMOIZE, BINPUT, LONG_BINPUT
      return Put(memo_.size());
    case 'q':
      return Put(Number(1));
    case 'r':
      return Put(Number(4));
    case 'h':  // BINGET, LONG_BINGET
      return Get(1);
    case 'j':
      return Get(4);
    case 'c': {  // GLOBAL
      const auto module = Line();
      const auto name = module.has_value() ? Line() : std::nullopt;
      if (!name.has_value()) return Error("the file is truncated");
      return PushGlobal(*module, *name);
    }
    case 0x93: {  // STACK_GLOBAL
      absl::Status status = Need(2);
      if (!status.ok()) return status;
      const PickleValue& name = Value(stack_.back());
      const PickleValue& module = Value(stack_[stack_.size() - 2]);
      if (name.kind != Kind::kText || module.kind != Kind::kText) {
        return Error("a global's name is no string");
      }
      const std::string_view module_text = module.text;
      const std::string_view name_text = name.text;
      stack_.resize(stack_.size() - 2);
      return PushGlobal(module_text, name_text);
    }
    case 'R':
      return Reduce();
    case 'b':
      return Build();
    default:
      return Error(fmt::format("found pickle opcode 0x{:02x}, which no result file has", opcode));
  }
}

// Pops arguments and callable, pushes the result.
absl::Status Machine::Reduce() {
  absl::Status status = Need(2);
  if (!status.ok()) return status;
  const PickleValue& arguments = Value(stack_.back());
  const PickleValue& callable = Value(stack_[stack_.size() - 2]);
  stack_.resize(stack_.size() - 2);
  if (callable.kind != Kind::kGlobal || arguments.kind != Kind::kTuple) {
    return Error(fmt::format("the pickle calls {}", PickleKindName(callable.kind)));
  }
  absl::StatusOr<PickleValue> result =
      CallPickled(callable.callable, arguments, document_, owned_budget_);
  if (!result.ok()) return Error(std::string(result.status().message()));
  return Push(*std::move(result));
}

// Pops a state and gives it to the object below.
absl::Status Machine::Build() {
  absl::Status status = Need(2);
  if (!status.ok()) return status;
  const PickleValue& state = Value(stack_.back());
  stack_.pop_back();
  status = SetPickledState(state, document_, Value(stack_.back()));
  return status.ok() ? status : Error(std::string(status.message()));
}

absl::StatusOr<PickleDocument> Machine::Finish() {
  if (stack_.size() != 1 || !marks_.empty()) return Error("the pickle holds no single value");
  for (const PickleValue& value : document_.values) {
    if (value.kind == Kind::kArray && value.dtype < 0) return Error("an array was left empty");
  }
  document_.root = stack_[0];
  return std::move(document_);
}

}  // namespace

absl::StatusOr<PickleDocument> ParsePickle(std::span<const uint8_t> input) {
  return Machine(input).Run();
}

}  // namespace tiny_knn
