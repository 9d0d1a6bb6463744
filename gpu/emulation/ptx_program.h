// A PTX module as the parser gives it: statements with their operands resolved, nothing executed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tiny_knn::emulation {

// A PTX type: its bits and how they are read. "b32" is kUnsigned of 4 bytes, as far as we care.
enum class TypeKind : uint8_t { kUnsigned, kSigned, kFloat, kBFloat, kPredicate };
struct PtxType {
  TypeKind kind = TypeKind::kUnsigned;
  uint8_t bytes = 0;   // of one value; 0: a predicate
  uint8_t packed = 1;  // 2: f16x2 and bf16x2, where `bytes` is 2
  friend bool operator==(const PtxType&, const PtxType&) = default;
  int total_bytes() const { return bytes * packed; }
};

// The type that a modifier or directive names, without its dot; false if it names none.
bool ParsePtxType(std::string_view name, PtxType* type);

enum class StateSpace : uint8_t { kGeneric, kGlobal, kConst, kShared, kLocal, kParam };

// A .global, .const, .shared or .local variable.
struct PtxVariable {
  std::string name;
  StateSpace space = StateSpace::kGlobal;
  uint64_t bytes = 0;  // 0: .extern .shared x[], sized by the launch
  uint32_t align = 1;
  std::vector<uint8_t> initial;  // empty: zeros; shorter than `bytes`: zeros follow
};

struct PtxParameter {
  std::string name;
  uint32_t offset = 0;  // in the parameter buffer
  uint32_t bytes = 0;
};

struct PtxOperand {
  enum class Kind : uint8_t {
    kRegister,   // index
    kInteger,    // bits: two's complement
    kFloat32,    // bits of 0fXXXXXXXX
    kFloat64,    // bits of 0dXXXXXXXXXXXXXXXX
    kName,       // name: a special register, variable, parameter, label or function
    kAddress,    // [register + offset], [name + offset], [offset]
    kList,       // {a, b, c, d} or a|b
    kDiscarded,  // _
  };
  Kind kind = Kind::kInteger;
  bool negated = false;  // !%p
  // kAddress: whether `index` is the register of the base; else `name`, else neither.
  bool based = false;
  uint32_t index = 0;
  uint64_t bits = 0;
  int64_t offset = 0;
  std::string name;
  std::vector<PtxOperand> list;
};

struct PtxInstruction {
  std::string opcode;
  std::vector<std::string> modifiers;  // "sync", "shared::cta", "u32"
  std::vector<PtxOperand> operands;
  bool predicated = false;
  bool predicate_negated = false;
  uint32_t predicate = 0;                     // register
  uint32_t line = 0;                          // in the PTX text, from 1
  uint32_t source_file = 0, source_line = 0;  // of the last .loc; 0: none
  bool has(std::string_view modifier) const;
};

struct PtxKernel {
  std::string name;  // mangled
  std::vector<PtxParameter> parameters;
  uint32_t parameter_bytes = 0;
  std::vector<PtxType> registers;
  std::vector<PtxVariable> variables;  // .shared and .local of its own
  std::vector<PtxInstruction> code;
  std::unordered_map<std::string, uint32_t> labels;                          // -> index into code
  std::unordered_map<std::string, std::vector<std::string>> branch_targets;  // of brx.idx
  uint32_t max_threads = 0;  // .maxntid, the product; 0: not given
};

struct PtxModule {
  std::vector<PtxVariable> variables;
  std::vector<PtxKernel> kernels;
  std::unordered_map<uint32_t, std::string> files;  // of .file
  std::vector<std::string> lines;                   // the text, for messages
};

}  // namespace tiny_knn::emulation
