#include "core/io/pickle_machine.h"

#include <bit>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Kind = PickleValue::Kind;

enum Global { kReconstruct, kFromBuffer, kNdArray, kNumpyDType, kCodecsEncode, kBytesType };

struct GlobalName {
  std::string_view module;
  std::string_view name;
  Global global;
};

// numpy 2 moved its internals to numpy._core.
constexpr GlobalName kGlobals[] = {
    {"numpy.core.multiarray", "_reconstruct", kReconstruct},
    {"numpy._core.multiarray", "_reconstruct", kReconstruct},
    {"numpy.core.numeric", "_frombuffer", kFromBuffer},
    {"numpy._core.numeric", "_frombuffer", kFromBuffer},
    {"numpy", "ndarray", kNdArray},
    {"numpy", "dtype", kNumpyDType},
    {"_codecs", "encode", kCodecsEncode},
    {"__builtin__", "bytes", kBytesType},
    {"builtins", "bytes", kBytesType},
};

// Text of the input, fit for one line of a message.
std::string Shown(std::string_view text) {
  std::string out;
  for (char c : text.substr(0, 60)) out += c >= ' ' && c <= '~' ? c : '?';
  return text.size() > 60 ? out + "..." : out;
}

// Bytes of an element of a dtype like "i8"; 0: not a dtype this machine knows the size of.
int64_t ElementSize(std::string_view code) {
  constexpr std::string_view kKinds = "biuf";
  if (code.size() != 2 || kKinds.find(code[0]) == std::string_view::npos) return 0;
  const int64_t size = code[1] - '0';
  return size == 1 || size == 2 || size == 4 || size == 8 ? size : 0;
}

class Machine {
 public:
  explicit Machine(std::span<const uint8_t> input) : input_(input) {}

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
    for (const GlobalName& known : kGlobals) {
      if (known.module == module && known.name == name) {
        PickleValue value;
        value.kind = Kind::kGlobal;
        value.global = known.global;
        return Push(std::move(value));
      }
    }
    return Error(fmt::format("found {}.{}, expected only numpy arrays, strings and numbers",
                             Shown(module), Shown(name)));
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
  absl::Status CallEncode(const std::vector<int32_t>& arguments);
  absl::Status CallDType(const std::vector<int32_t>& arguments);
  absl::Status CallFromBuffer(const std::vector<int32_t>& arguments);
  absl::Status FillArray(int32_t array, int32_t shape, int32_t dtype, int32_t data);
  absl::StatusOr<PickleDocument> Finish();

  std::span<const uint8_t> input_;
  size_t position_ = 0;
  size_t opcode_at_ = 0;
  std::vector<int32_t> stack_;
  std::vector<size_t> marks_;  // heights of the stack
  std::map<uint64_t, int32_t> memo_;
  size_t owned_bytes_ = 0;
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
  switch (callable.global) {
    case kReconstruct: {
      // _reconstruct(numpy.ndarray, (0,), b'b'): an empty array that BUILD fills.
      const bool of_ndarray = !arguments.items.empty() &&
                              Value(arguments.items[0]).kind == Kind::kGlobal &&
                              Value(arguments.items[0]).global == kNdArray;
      if (!of_ndarray) return Error("the pickle reconstructs something that is no numpy.ndarray");
      return PushNumber(Kind::kArray, 0);
    }
    case kFromBuffer:
      return CallFromBuffer(arguments.items);
    case kNumpyDType:
      return CallDType(arguments.items);
    case kCodecsEncode:
      return CallEncode(arguments.items);
    case kBytesType:
      if (!arguments.items.empty()) return Error("the pickle calls bytes() with arguments");
      return PushNumber(Kind::kBytes, 0);
    default:
      return Error("the pickle calls numpy.ndarray");
  }
}

// numpy.dtype('i8', False, True).
absl::Status Machine::CallDType(const std::vector<int32_t>& arguments) {
  if (arguments.empty() || Value(arguments[0]).kind != Kind::kText) {
    return Error("a numpy.dtype has no name");
  }
  PickleValue value;
  value.kind = Kind::kDType;
  value.text = Value(arguments[0]).text;
  if (ElementSize(value.text) == 0) {
    return Error(
        fmt::format("found dtype '{}', expected int64, float32 or float64", Shown(value.text)));
  }
  if (value.text[1] == '1') value.byte_order = '|';
  return Push(std::move(value));
}

// _codecs.encode('...', 'latin1'): how protocol 2 spells bytes.
absl::Status Machine::CallEncode(const std::vector<int32_t>& arguments) {
  if (arguments.size() != 2 || Value(arguments[0]).kind != Kind::kText ||
      Value(arguments[1]).kind != Kind::kText || Value(arguments[1]).text != "latin1") {
    return Error("found an encoding that is not latin1");
  }
  const std::string_view text = Value(arguments[0]).text;
  // One text may be encoded many times: what it adds up to stays below the input's size.
  owned_bytes_ += text.size();
  if (owned_bytes_ > input_.size()) return Error("the pickle encodes a string more than once");
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto first = static_cast<uint8_t>(text[i]);
    if (first < 0x80) {
      bytes += text[i];
      continue;
    }
    const uint8_t second = i + 1 < text.size() ? static_cast<uint8_t>(text[i + 1]) : uint8_t{0};
    if ((first != 0xC2 && first != 0xC3) || (second & 0xC0) != 0x80) {
      return Error("found a character beyond latin1 in bytes");
    }
    bytes += static_cast<char>((first & 0x03) << 6 | (second & 0x3F));
    ++i;
  }
  PickleValue value;
  value.kind = Kind::kBytes;
  value.text = document_.owned.emplace_back(std::move(bytes));
  return Push(std::move(value));
}

// _frombuffer(buffer, dtype, shape, 'C').
absl::Status Machine::CallFromBuffer(const std::vector<int32_t>& arguments) {
  if (arguments.size() < 4) return Error("_frombuffer is called with too few arguments");
  const PickleValue& order = Value(arguments[3]);
  if (order.kind != Kind::kText || order.text != "C") {
    return Error("found an array in Fortran order, expected C order");
  }
  absl::Status status = PushNumber(Kind::kArray, 0);
  if (!status.ok()) return status;
  return FillArray(stack_.back(), arguments[2], arguments[1], arguments[0]);
}

// Pops a state and gives it to the object below.
absl::Status Machine::Build() {
  absl::Status status = Need(2);
  if (!status.ok()) return status;
  const PickleValue& state = Value(stack_.back());
  stack_.pop_back();
  const int32_t target = stack_.back();
  if (state.kind != Kind::kTuple) return Error("an object's state is no tuple");
  if (Value(target).kind == Kind::kDType) {
    // (3, '<', None, None, None, -1, -1, 0): version, byte order, and what plain dtypes lack.
    if (state.items.size() < 2 || Value(state.items[1]).kind != Kind::kText ||
        Value(state.items[1]).text.size() != 1) {
      return Error("a numpy.dtype has an unknown state");
    }
    Value(target).byte_order = Value(state.items[1]).text[0];
    return absl::OkStatus();
  }
  if (Value(target).kind != Kind::kArray) {
    return Error(
        fmt::format("the pickle sets the state of {}", PickleKindName(Value(target).kind)));
  }
  // (1, shape, dtype, is_fortran, data)
  if (state.items.size() != 5) return Error("a numpy array has an unknown state");
  const PickleValue& fortran = Value(state.items[3]);
  if ((fortran.kind != Kind::kBool && fortran.kind != Kind::kInt) || fortran.number != 0) {
    return Error("found an array in Fortran order, expected C order");
  }
  return FillArray(target, state.items[1], state.items[2], state.items[4]);
}

absl::Status Machine::FillArray(int32_t array, int32_t shape, int32_t dtype, int32_t data) {
  PickleValue& target = Value(array);
  if (Value(shape).kind != Kind::kTuple || Value(dtype).kind != Kind::kDType ||
      Value(data).kind != Kind::kBytes) {
    return Error(fmt::format("an array has {} as shape, {} as dtype and {} as data",
                             PickleKindName(Value(shape).kind), PickleKindName(Value(dtype).kind),
                             PickleKindName(Value(data).kind)));
  }
  constexpr auto kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  auto bytes = static_cast<uint64_t>(ElementSize(Value(dtype).text));
  bool empty = false;
  std::vector<int64_t> sizes;
  for (int32_t item : Value(shape).items) {
    const PickleValue& size = Value(item);
    if (size.kind != Kind::kInt || size.number < 0) {
      return Error("an array's shape holds something that is no size");
    }
    if (sizes.size() == 32) return Error("an array has more than 32 dimensions");
    sizes.push_back(size.number);
    if (size.number == 0) {
      empty = true;
    } else if (bytes > kMax / static_cast<uint64_t>(size.number)) {
      return Error("an array is larger than any file");
    } else {
      bytes *= static_cast<uint64_t>(size.number);
    }
  }
  if (empty) bytes = 0;
  if (Value(data).text.size() != bytes) {
    return Error(
        fmt::format("an array has {} bytes of data, {} expected", Value(data).text.size(), bytes));
  }
  target.shape = std::move(sizes);
  target.dtype = dtype;
  target.text = Value(data).text;
  return absl::OkStatus();
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

std::string_view PickleKindName(PickleValue::Kind kind) {
  switch (kind) {
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "a bool";
    case Kind::kInt:
      return "an int";
    case Kind::kFloat:
      return "a float";
    case Kind::kText:
      return "a string";
    case Kind::kBytes:
      return "bytes";
    case Kind::kTuple:
      return "a tuple";
    case Kind::kList:
      return "a list";
    case Kind::kDict:
      return "a dict";
    case Kind::kGlobal:
      return "a callable";
    case Kind::kDType:
      return "a numpy dtype";
    case Kind::kArray:
      return "a numpy array";
  }
  return "something unknown";
}

absl::StatusOr<PickleDocument> ParsePickle(std::span<const uint8_t> input) {
  return Machine(input).Run();
}

}  // namespace tiny_knn
